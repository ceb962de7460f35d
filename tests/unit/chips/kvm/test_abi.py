"""The numbers are what a C compiler printed for Linux 6.1's <linux/kvm.h> on x86-64."""

import ctypes

import pytest

from userspace_chip.kvm import abi
from userspace_chip.ports import Irqchip

IOCTLS = {
    "KVM_GET_API_VERSION": 0x0000AE00,
    "KVM_CREATE_VM": 0x0000AE01,
    "KVM_CHECK_EXTENSION": 0x0000AE03,
    "KVM_GET_VCPU_MMAP_SIZE": 0x0000AE04,
    "KVM_GET_SUPPORTED_CPUID": 0xC008AE05,
    "KVM_CREATE_VCPU": 0x0000AE41,
    "KVM_SET_USER_MEMORY_REGION": 0x4020AE46,
    "KVM_SET_TSS_ADDR": 0x0000AE47,
    "KVM_CREATE_IRQCHIP": 0x0000AE60,
    "KVM_IRQ_LINE": 0x4008AE61,
    "KVM_GET_IRQCHIP": 0xC208AE62,
    "KVM_SET_IRQCHIP": 0x8208AE63,
    "KVM_IRQ_LINE_STATUS": 0xC008AE67,
    "KVM_SET_GSI_ROUTING": 0x4008AE6A,
    "KVM_REINJECT_CONTROL": 0x0000AE71,
    "KVM_CREATE_PIT2": 0x4040AE77,
    "KVM_SET_BOOT_CPU_ID": 0x0000AE78,
    "KVM_GET_PIT2": 0x8070AE9F,
    "KVM_SET_PIT2": 0x4070AEA0,
    "KVM_ENABLE_CAP": 0x4068AEA3,
    "KVM_SIGNAL_MSI": 0x4020AEA5,
    "KVM_RUN": 0x0000AE80,
    "KVM_GET_REGS": 0x8090AE81,
    "KVM_SET_REGS": 0x4090AE82,
    "KVM_GET_SREGS": 0x8138AE83,
    "KVM_SET_SREGS": 0x4138AE84,
    "KVM_INTERRUPT": 0x4004AE86,
    "KVM_GET_MSRS": 0xC008AE88,
    "KVM_SET_MSRS": 0x4008AE89,
    "KVM_GET_LAPIC": 0x8400AE8E,
    "KVM_SET_LAPIC": 0x4400AE8F,
    "KVM_SET_CPUID2": 0x4008AE90,
    "KVM_GET_MP_STATE": 0x8004AE98,
    "KVM_SET_MP_STATE": 0x4004AE99,
    "KVM_NMI": 0x0000AE9A,
    "KVM_GET_TSC_KHZ": 0x0000AEA3,
    "KVM_X86_SET_MSR_FILTER": 0x4188AEC6,
    "KVM_TPR_ACCESS_REPORTING": 0xC028AE92,
    "KVM_SMI": 0x0000AEB7,
    "KVM_TRANSLATE": 0xC018AE85,
    "KVM_GET_VCPU_EVENTS": 0x8040AE9F,
    "KVM_SET_VCPU_EVENTS": 0x4040AEA0,
}

SIZES = {
    "KvmLapicState": 1024,
    "KvmIoapicState": 216,
    "KvmPicState": 16,
    "KvmIrqchip": 520,
    "KvmPitChannelState": 24,
    "KvmPitState2": 112,
    "KvmPitConfig": 64,
    "KvmReinjectControl": 32,
    "KvmIrqLevel": 8,
    "KvmMsi": 32,
    "KvmIrqRoutingEntry": 48,
    "KvmIrqRouting": 8,
    "KvmInterrupt": 4,
    "KvmRegs": 144,
    "KvmSegment": 24,
    "KvmDtable": 16,
    "KvmTranslation": 24,
    "KvmSregs": 312,
    "KvmMsrEntry": 16,
    "KvmMsrs": 8,
    "KvmCpuidEntry2": 40,
    "KvmCpuid2": 8,
    "KvmMpState": 4,
    "KvmVcpuEvents": 64,
    "KvmUserspaceMemoryRegion": 32,
    "KvmEnableCap": 104,
    "KvmMsrFilterRange": 24,
    "KvmMsrFilter": 392,
    "KvmRun": 2352,
}

OFFSETS = [
    (abi.KvmRun.exit.offset, 32),
    (abi.KvmRun.exit.offset + abi.ExitMmio.is_write.offset, 52),
    (abi.KvmRun.exit.offset + abi.ExitMsr.data.offset, 48),
    (abi.KvmRun.exit.offset + abi.ExitInternal.data.offset, 40),
    (abi.KvmRun.kvm_valid_regs.offset, 288),
    (abi.KvmVcpuEvents.sipi_vector.offset, 16),
    (abi.KvmVcpuEvents.exception_payload.offset, 56),
    (abi.KvmIrqchip.chip.offset, 8),
]


@pytest.mark.parametrize(("name", "number"), IOCTLS.items())
def test_ioctl_computed_from_its_definition_has_the_compilers_number(name, number):
    ioctl = getattr(abi, name.removeprefix("KVM_"))

    assert (ioctl.name, ioctl.number) == (name, number)


@pytest.mark.parametrize(("name", "size"), SIZES.items())
def test_structure_laid_out_from_annotations_has_the_compilers_size(name, size):
    assert ctypes.sizeof(getattr(abi, name)) == size


@pytest.mark.parametrize(("offset", "expected"), OFFSETS)
def test_field_after_padding_has_the_compilers_offset(offset, expected):
    assert offset == expected


def test_abi_struct_with_nested_fields_reads_back_what_was_stored():
    chip = abi.KvmIrqchip(chip_id=Irqchip.IOAPIC)

    chip.chip.ioapic.redirtbl[23] = 0x0123_4567_89AB_CDEF

    assert bytes(chip)[8 + 24 + 23 * 8 :][:8] == bytes.fromhex("efcdab8967452301")
