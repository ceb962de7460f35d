from __future__ import annotations

import json

from harness.images.model import Offer
from harness.report.text.images_report import offers_json, offers_table
from support.showing import shown

OFFERS = (
    Offer("kernel", "7.3.4", "linux-image-7.3.4", "7.3.4-1~bpo13+1", "trixie-backports"),
    Offer("qemu", "11.1.3", "qemu-system-x86", "1:11.1.3+ds-1~bpo13+1", "trixie-backports"),
)


def test_offers_as_json_have_the_name_to_ask_for_and_whether_it_is_cached() -> None:
    rows = json.loads(offers_json(OFFERS, {"11.1.3+ds-1~bpo13+1"}))

    assert [(row["name"], row["cached"]) for row in rows] == [
        ("7.3.4-1~bpo13+1", False),
        ("11.1.3+ds-1~bpo13+1", True),
    ]


def test_offers_as_a_table_mark_what_is_cached() -> None:
    text = shown(offers_table(OFFERS, {"11.1.3+ds-1~bpo13+1"}), width=120)

    kernel, qemu = text.splitlines()[1:]
    assert "7.3.4-1~bpo13+1" in kernel
    assert "yes" not in kernel
    assert qemu.split() == ["qemu", "11.1.3", "11.1.3+ds-1~bpo13+1", "trixie-backports", "yes"]
