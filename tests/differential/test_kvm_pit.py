"""The 8254 against the kernel's: registers by a guest, loaded states, and the lost-tick policies.

The kernel's clock runs on, so whatever depends on the time (counts, OUT) is compared with what the
model says for *some* moment of the access; channels 1 and 2 show when their count was loaded.  When
channel 0's timer was started nobody shows, so what is latched of it while it runs is taken over.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import pytest

from support.chip_ports import PitRecorder
from support.differential import Step, reduce_steps
from support.kvm import local_linux, skip_without_irqchip
from support.mini_guest import MiniGuest
from userspace_chip.kvm.abi import KvmIrqchip
from userspace_chip.kvm.fds import KvmFd, VmFd
from userspace_chip.kvm.layout import pit_from_kvm, pit_to_kvm
from userspace_chip.pit import Pit, PitChannelState
from userspace_chip.ports import Irqchip
from userspace_chip.profile import profile

pytestmark = pytest.mark.kvm

SESSIONS = 20
STEPS = 150
MOMENT_NS = 400
"""Half an input clock: no count of any channel falls between two moments."""
PATIENCE_S = 20.0


@dataclass
class KernelPit:
    vm: VmFd
    guest: MiniGuest

    def do(self, step: Step) -> int | None:
        """One step; what was read."""
        if step.name == "load":
            self.vm.set_pit2(pit_to_kvm(list(step.args[0])))
            return None
        if step.name == "read":
            return self.guest.port_in(0, *step.args)
        self.guest.port_out(0, *step.args)
        return None

    def channels(self) -> list[PitChannelState]:
        return pit_from_kvm(self.vm.get_pit2())[0]


@contextmanager
def kernel_pit() -> Iterator[KernelPit]:
    skip_without_irqchip("on")
    with KvmFd() as kvm, kvm.create_vm() as vm:
        vm.create_irqchip()
        vm.create_pit2()
        yield KernelPit(vm, MiniGuest(vm, [vm.create_vcpu(0)]))


def do(pit: Pit, step: Step, now_ns: int) -> int | None:
    if step.name == "load":
        pit.set_pit2(list(step.args[0]), 0, now_ns)
        return None
    if step.name == "read":
        port, size = step.args
        return pit.read(port, now_ns, size)
    port, value, size = step.args
    pit.write(port, value, now_ns, size)
    return None


def agrees(
    pit: Pit, value: int | None, kernel: KernelPit, seen: int | None, begin_ns: int, end_ns: int
) -> bool:
    """Whether the model is where the kernel is; if so it takes over what only the kernel knows."""
    running = pit.state.period_ns != 0
    channels = kernel.channels()
    merged = []
    for number, (ours, theirs) in enumerate(zip(pit.state.channels, channels, strict=True)):
        loaded_ns = theirs.count_load_time_ns
        if number and ours.count_load_time_ns != loaded_ns and not begin_ns <= loaded_ns <= end_ns:
            return False
        ours = replace(ours, count_load_time_ns=loaded_ns)
        if number == 0 and running:
            ours = replace(ours, latched_count=theirs.latched_count, status=theirs.status)
        merged.append(ours)
    if merged != channels:
        return False
    if value != seen and not (running and value is not None):
        return False
    pit.state.channels = merged
    return True


def first_disagreement(steps: list[Step]) -> tuple[int, str] | None:
    with kernel_pit() as kernel:
        pit = Pit(profile("on", linux=local_linux()), PitRecorder(), time.monotonic_ns())
        for ours, theirs in zip(pit.state.channels, kernel.channels(), strict=True):
            ours.count_load_time_ns = theirs.count_load_time_ns
        for index, step in enumerate(steps):
            saved = pit.save()
            begin_ns = time.monotonic_ns()
            seen = kernel.do(step)
            end_ns = time.monotonic_ns()
            for now_ns in (end_ns, *range(begin_ns, end_ns, MOMENT_NS)):
                pit.load(saved)
                value = do(pit, step, now_ns)
                if agrees(pit, value, kernel, seen, begin_ns, end_ns):
                    break
            else:
                theirs = kernel.channels()
                return index, f"kernel {seen}, {theirs}\nmodel  {value}, {pit.state.channels}"
    return None


def random_channel(rng: random.Random) -> PitChannelState:
    byte = rng.randrange
    return PitChannelState(
        count=rng.choice((0x10000, byte(1, 300), byte(1, 0x10000))),
        latched_count=byte(0x10000),
        count_latched=rng.choice((0, 0, 1, 2, 3)),
        status_latched=byte(2),
        status=byte(256),
        read_state=byte(1, 5),
        write_state=byte(1, 5),
        write_latch=byte(256),
        rw_mode=byte(1, 4),
        mode=byte(6),
        bcd=byte(2),
        gate=byte(2),
    )


def random_step(rng: random.Random) -> Step:
    kind = rng.random()
    channel = rng.randrange(3)
    # Beyond 0x43 the access would leave the kernel.
    size = rng.choice([size for size in (1, 1, 1, 2, 4) if channel + size <= 4])
    if kind < 0.35:
        return Step("read", (0x40 + channel, size))
    if kind < 0.60:
        return Step("write", (0x40 + channel, rng.getrandbits(8 * size), size))
    if kind < 0.75:
        word = channel << 6 | rng.randrange(1, 4) << 4 | rng.randrange(8) << 1 | rng.randrange(2)
        return Step("write", (0x43, word, 1))
    if kind < 0.85:
        return Step("write", (0x43, channel << 6, 1))
    if kind < 0.95:
        # One latch at a time: the kernel looks at its clock anew for each.
        return Step("write", (0x43, 0xC0 | 2 << channel | rng.choice((0x10, 0x20)), 1))
    return Step("load", (tuple(random_channel(rng) for _ in range(3)),))


@pytest.mark.parametrize("seed", range(SESSIONS))
def test_pit_driven_at_random_stays_equal_to_the_kernels(seed: int) -> None:
    rng = random.Random(seed)
    steps = [random_step(rng) for _ in range(STEPS)]
    found = first_disagreement(steps)
    if found is None:
        return
    minimal = reduce_steps(steps[: found[0] + 1], lambda some: first_disagreement(some) is not None)
    left = first_disagreement(minimal)
    raise AssertionError(f"kernel and model disagree on {minimal}:\n{left and left[1]}")


# --- the policies: what arrives at the PIC is waited for, never slept for

SPECIFIC_EOI_0 = 0x60
LOST_TICKS = 30


def pic(kernel: KernelPit) -> KvmIrqchip:
    return kernel.vm.get_irqchip(Irqchip.PIC_MASTER)


def pulse_arrives(kernel: KernelPit) -> bool:
    """Whether IRQ 0 is requested before patience ends."""
    give_up_s = time.monotonic() + PATIENCE_S
    while time.monotonic() < give_up_s:
        if pic(kernel).chip.pic.irr & 1:
            return True
    return False


def forget_request(kernel: KernelPit) -> None:
    """Clear the latch by ioctl: the guest has acknowledged nothing."""
    image = pic(kernel)
    image.chip.pic.irr = 0
    image.chip.pic.last_irr = 0  # the image may be from the middle of a pulse
    kernel.vm.set_irqchip(image)


def acknowledge(kernel: KernelPit) -> None:
    kernel.guest.port_out(0, 0x20, SPECIFIC_EOI_0, 1)


@contextmanager
def ticking(reinject: bool) -> Iterator[KernelPit]:
    """A PIT that ticks every millisecond into an initialised PIC."""
    with kernel_pit() as kernel:
        kernel.vm.set_pit_reinjection(reinject)
        for port, value in ((0x20, 0x11), (0x21, 0x30), (0x21, 0x04), (0x21, 0x01)):
            kernel.guest.port_out(0, port, value, 1)
        for port, value in ((0x43, 0x34), (0x40, 0xA9), (0x40, 0x04)):
            kernel.guest.port_out(0, port, value, 1)
        yield kernel


@pytest.mark.parametrize("reinject", [True, False], ids=["delay", "discard"])
def test_pit_ticks_again_after_each_acknowledgement(reinject: bool) -> None:
    with ticking(reinject) as kernel:
        for _ in range(5):
            assert pulse_arrives(kernel)
            forget_request(kernel)
            acknowledge(kernel)


def test_pit_discard_ticks_without_acknowledgement() -> None:
    with ticking(reinject=False) as kernel:
        for _ in range(5):
            assert pulse_arrives(kernel)
            forget_request(kernel)


def test_pit_delay_holds_ticks_back_until_they_are_acknowledged() -> None:
    with ticking(reinject=True) as kernel:
        assert pulse_arrives(kernel)
        forget_request(kernel)
        end_ns = time.monotonic_ns() + LOST_TICKS * 1_000_000
        while time.monotonic_ns() < end_ns:
            assert not pic(kernel).chip.pic.irr & 1
        for _ in range(3):
            acknowledge(kernel)
            assert pulse_arrives(kernel)
            forget_request(kernel)
