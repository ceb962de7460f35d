import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support import golden
from userspace_chip.errors import StateError
from userspace_chip.info_lapic import InfoLapic, format_lapic, parse_lapic
from userspace_chip.lapic_registers import LVT_LINT0, LVT_LINT1
from userspace_chip.lapic_state import LapicState

STOPPED = (
    "dumping local APIC state for CPU 0 \n"
    "\n"
    "LVT0\t 0x00010000 active-hi edge  masked                      Fixed  (vec 0)\n"
    "LVT1\t 0x00010000 active-hi edge  masked                      Fixed  (vec 0)\n"
    "LVTPC\t 0x00010000 active-hi edge  masked                      Fixed  (vec 0)\n"
    "LVTERR\t 0x00010000 active-hi edge  masked                      Fixed  (vec 0)\n"
    "LVTTHMR\t 0x00010000 active-hi edge  masked                      Fixed  (vec 0)\n"
    "LVTT\t 0x00010000 active-hi edge  masked         one-shot     Fixed  (vec 0)\n"
    "Timer\t DCR=0x0 (divide by 2) initial_count = 0 current_count = 0\n"
    "SPIV\t 0x000000ff APIC disabled, focus=off, spurious vec 255\n"
    "ICR\t 0x00000000 physical edge de-assert no-shorthand\n"
    "ICR2\t 0x00000000 cpu 0 (APIC ID)\n"
    "ESR\t 0x00000000\n"
    "ISR\t (none)\n"
    "IRR\t (none)\n"
    "\n"
    "APR 0x00 TPR 0x00 DFR 0x0f LDR 0x00 PPR 0x00\n"
)
"""Recorded: QEMU 7.2.22, q35, TCG, stopped before the first instruction."""

FIRMWARE = (
    "dumping local APIC state for CPU 0 \n"
    "\n"
    "LVT0\t 0x00008700 active-hi level                             ExtINT (vec 0)\n"
    "LVT1\t 0x00008400 active-hi level                             NMI   \n"
    "LVTPC\t 0x00010000 active-hi edge  masked                      Fixed  (vec 0)\n"
    "LVTERR\t 0x00010000 active-hi edge  masked                      Fixed  (vec 0)\n"
    "LVTTHMR\t 0x00010000 active-hi edge  masked                      Fixed  (vec 0)\n"
    "LVTT\t 0x00010000 active-hi edge  masked         one-shot     Fixed  (vec 0)\n"
    "Timer\t DCR=0x0 (divide by 2) initial_count = 0 current_count = 0\n"
    "SPIV\t 0x000001ff APIC enabled, focus=off, spurious vec 255\n"
    "ICR\t 0x000c4610 physical edge assert all\n"
    "ICR2\t 0x00000000\n"
    "ESR\t 0x00000000\n"
    "ISR\t (none)\n"
    "IRR\t (none)\n"
    "\n"
    "APR 0x00 TPR 0x00 DFR 0x0f LDR 0x00 PPR 0x00\n"
)
"""Recorded: the same machine with two CPUs after SeaBIOS has looked for something to boot."""


@pytest.mark.parametrize("text", [STOPPED, FIRMWARE], ids=["stopped", "firmware"])
def test_recorded_text_prints_back(text):
    assert format_lapic(parse_lapic(text)) == text


@pytest.mark.parametrize("mode", ["on", "split", "tcg"])
def test_text_recorded_in_every_mode_prints_back(mode):
    recorded = json.loads(golden.text(f"monitor-{mode}-qemu7.2.json"))["info lapic"]
    for text in recorded:
        lines = text.replace("\r\n", "\n")
        assert format_lapic(parse_lapic(lines)) == lines


def test_recorded_text_after_firmware_has_its_registers():
    state = parse_lapic(FIRMWARE).state
    assert (state.lvt[LVT_LINT0], state.lvt[LVT_LINT1]) == (0x8700, 0x8400)
    assert (state.spiv, state.icr) == (0x1FF, 0x000C4610)


def test_recorded_text_of_a_stopped_machine_is_the_reset_state():
    assert parse_lapic(STOPPED).state == LapicState()


def test_text_lists_pending_vectors_with_their_trigger():
    info = InfoLapic()
    info.state.irr = 1 << 49 | 1 << 65 | 1 << 66 | 1 << 80
    info.state.tmr = 1 << 65
    assert "\nIRR\t 49 65(level) 66 80 \n" in format_lapic(info)


def test_text_of_an_nmi_lint_has_no_vector():
    info = InfoLapic()
    info.state.lvt[LVT_LINT0] = 0x8700
    info.state.lvt[LVT_LINT1] = 0x8400
    lines = format_lapic(info).splitlines()
    assert (
        lines[2] == "LVT0\t 0x00008700 active-hi level                             ExtINT (vec 0)"
    )
    assert lines[3] == "LVT1\t 0x00008400 active-hi level                             NMI   "


@pytest.mark.parametrize(
    ("icr", "icr2", "x2apic", "dfr", "tail"),
    [
        (0x0000, 0x13000000, False, 0xFFFFFFFF, " cpu 3 (APIC ID)"),
        (0x0000, 0x00000013, True, 0xFFFFFFFF, " cpu 19 (X2APIC ID)"),
        (0x0800, 0x13000000, False, 0xFFFFFFFF, " mask 00010011 (APIC ID)"),
        (0x0800, 0x13000000, False, 0x0FFFFFFF, " cluster 1 mask 0011 (APIC ID)"),
        (
            0x0800,
            0x00020003,
            True,
            0x0FFFFFFF,
            " cluster 2 mask 0000000000000011 (X2APIC ID)",
        ),
        (0x40000, 0x13000000, False, 0xFFFFFFFF, ""),
    ],
)
def test_text_of_icr2_follows_mode_and_model(icr, icr2, x2apic, dfr, tail):
    info = InfoLapic(state=LapicState(icr=icr, icr2=icr2, dfr=dfr), x2apic=x2apic)
    assert f"\nICR2\t 0x{icr2:08x}{tail}\nESR" in format_lapic(info)


def test_text_of_another_dfr_model_lacks_a_line_end():
    info = InfoLapic(state=LapicState(icr=0x800, dfr=0x5FFFFFFF))
    assert "\nICR2\t 0x00000000ESR\t 0x00000000\n" in format_lapic(info)


u8 = st.integers(0, 0xFF)
u32 = st.integers(0, 0xFFFFFFFF)
bitmaps = st.sets(u8, max_size=5).map(lambda vectors: sum(1 << v for v in vectors))


@st.composite
def infos(draw):
    irr, isr = draw(bitmaps), draw(bitmaps)
    state = LapicState(
        tpr=draw(u8),
        ppr=draw(u8),
        ldr=draw(u8) << 24,
        dfr=draw(st.integers(0, 15)) << 28 | 0x0FFFFFFF,
        spiv=draw(u32),
        esr=draw(u32),
        icr=draw(u32),
        icr2=draw(u32),
        irr=irr,
        isr=isr,
        tmr=draw(bitmaps) & (irr | isr),
        tmict=draw(u32),
        tdcr=draw(u8) & 0xB,
    )
    state.lvt[:6] = [draw(u32) for _ in range(6)]
    return InfoLapic(draw(u8), state, draw(st.booleans()), draw(u32), draw(u8))


@given(infos())
def test_any_state_loads_from_its_text_and_prints_the_same(info):
    text = format_lapic(info)
    again = parse_lapic(text)
    assert again.state == info.state
    assert format_lapic(again) == text


@pytest.mark.parametrize("line", ["LVTPC", "Timer", "APR", "dumping", "IRR"])
def test_incomplete_text_is_refused(line):
    cut = "\n".join(row for row in STOPPED.split("\n") if not row.startswith(line))
    with pytest.raises(StateError, match="lines are missing"):
        parse_lapic(cut)
