/* Prints what CPUID says of the interrupt controllers: key=value.
 *
 * Leaf 1 is in SDM volume 2A, CPUID; KVM's leaves are in the kernel's
 * Documentation/virt/kvm/x86/cpuid.rst.  "none" is for a hypervisor that is not KVM.
 */
#include <cpuid.h>
#include <stdio.h>
#include <string.h>

enum { X2APIC = 1 << 21, TSC_DEADLINE = 1 << 24 };
enum { KVM_LEAF = 0x40000000, PV_EOI = 1 << 6, PV_UNHALT = 1 << 7, EXT_DEST_ID = 1 << 15 };

static void print_bit(const char *name, unsigned value, unsigned mask)
{
    printf("%s=%d\n", name, (value & mask) != 0);
}

int main(void)
{
    unsigned eax, ebx, ecx, edx;
    char signature[13] = "";

    __cpuid(1, eax, ebx, ecx, edx);
    print_bit("x2apic", ecx, X2APIC);
    print_bit("tsc_deadline", ecx, TSC_DEADLINE);
    __cpuid(KVM_LEAF, eax, ebx, ecx, edx);
    memcpy(signature, &ebx, 4);
    memcpy(signature + 4, &ecx, 4);
    memcpy(signature + 8, &edx, 4);
    if (strcmp(signature, "KVMKVMKVM") != 0) {
        printf("pv_eoi=none\npv_unhalt=none\next_dest_id=none\n");
        return 0;
    }
    __cpuid(KVM_LEAF + 1, eax, ebx, ecx, edx);
    print_bit("pv_eoi", eax, PV_EOI);
    print_bit("pv_unhalt", eax, PV_UNHALT);
    print_bit("ext_dest_id", eax, EXT_DEST_ID);
    return 0;
}
