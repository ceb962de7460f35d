"""What identifies somebody is in no redacted text, whatever is around it."""

from hypothesis import given
from hypothesis import strategies as st

from harness.collect.redaction import redacted

HEX = st.text("0123456789abcdefABCDEF", min_size=2, max_size=2)
MACS = st.lists(HEX, min_size=6, max_size=6).map(":".join)
IPV4 = st.lists(st.integers(0, 255).map(str), min_size=4, max_size=4).map(".".join)
IPV6 = st.ip_addresses(v=6).map(str).filter(lambda text: text != "::")
UUIDS = st.uuids().map(str)
WORD = st.text("abcdefghijklmnopqrstuvwxyz0123456789", min_size=6, max_size=12)
PATHS = st.lists(WORD, min_size=2, max_size=4).map(lambda parts: "/" + "/".join(parts))
MAILS = st.tuples(WORD, WORD).map("@".join)
NAMES = WORD.map("host-of-{}".format)
SHAPED = st.one_of(MACS, IPV4, IPV6, UUIDS, PATHS, MAILS)
AROUND = st.text(st.characters(exclude_characters="0123456789abcdefABCDEF:.-_/@"), max_size=20)
EDGE = st.sampled_from([" ", "\n", "'", '"', "(", ",", "=", "\t", "<"])
MEMBERS = st.sampled_from(["trace.txt", "info-pic.txt", "threads.txt", "query-stats.json"])
VALUES = st.one_of(SHAPED, NAMES)
PLACES = st.sampled_from(
    [
        "-drive file={},if=virtio",
        "-device virtio-net-pci,mac={},bus=pcie.0",
        "-smbios type=1,serial={}",
        "-uuid {}",
        "-name guest={},debug-threads=on",
        "-netdev tap,id=n0,ifname={}",
        "-append 'console=ttyS0 root={}'",
        "-cpu host,model-id={}",
        "-M q35,memory-backend={}",
        "-unknown-option {}",
        '-blockdev \'{{"driver":"qcow2","node-name":"{}"}}\'',
        "-chardev socket,id=c,path={}",
    ]
)


@given(MEMBERS, AROUND, EDGE, SHAPED, EDGE, AROUND)
def test_shape_anywhere_in_a_text_is_replaced(member, before, left, secret, right, after):
    text = redacted({member: f"{before}{left}{secret}{right}{after}"}).texts[member]
    assert secret.lower() not in text.lower()


@given(MEMBERS, AROUND, EDGE, NAMES, EDGE)
def test_name_that_is_known_is_replaced_anywhere(member, before, left, name, right):
    text = redacted({member: f"{before}{left}{name}{right}"}, [name]).texts[member]
    assert name not in text


@given(st.lists(st.tuples(PLACES, VALUES), min_size=1, max_size=5))
def test_value_of_a_command_line_is_replaced(places):
    words = " ".join(place.format(value) for place, value in places)
    found = redacted({"cmdline.txt": f"sudo -u anna-b qemu-system-x86_64 -M q35 {words}\n"})
    text = found.texts["cmdline.txt"]
    assert "anna-b" not in text
    assert "-M q35" in text
    assert [value for _, value in places if value in text] == []


@given(VALUES, VALUES)
def test_value_of_an_xml_is_replaced_and_stays_an_xml(value, other):
    text = (
        f"<domain type='kvm'><name>{value}</name><uuid>{other}</uuid><metadata><a>{value}</a>"
        f"</metadata><devices><disk><source file='{value}'/><serial>{other}</serial>"
        f"<target bus='virtio' dev='{value}'/></disk></devices>"
        "<clock><timer name='rtc' tickpolicy='catchup'/></clock></domain>"
    )
    found = redacted({"libvirt.xml": text}).texts["libvirt.xml"]
    assert value not in found
    assert other not in found
    assert 'name="rtc" tickpolicy="catchup"' in found


@given(SHAPED, MEMBERS, MEMBERS)
def test_same_thing_has_the_same_placeholder_in_every_text(secret, one, two):
    found = redacted({one: f"a {secret} b", two: f"a {secret} b"}).texts
    assert found[one] == found[two]
    assert found[one] != f"a {secret} b"


@given(st.text(max_size=300), MEMBERS)
def test_redacting_any_text_a_second_time_changes_nothing(text, member):
    once = redacted({member: text}).texts
    assert redacted(once).texts == once
