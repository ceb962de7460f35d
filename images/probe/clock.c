/*
 * The yardstick is the local APIC's timer, masked: KVM (arch/x86/kvm/lapic.h, APIC_BUS_CYCLE_NS) and
 * QEMU (hw/intc/apic.c) both count in nanoseconds.  It is there on every machine and raises nothing,
 * what cannot be said of the PIT's channel 0; channel 2 cannot be gated on microvm.
 */
#include "clock.h"
#include "lapic.h"

#define DIVIDE_BY_1 0xb
#define LVT_MASKED 0x10000
#define LONGEST 0xffffffffu
#define YARDSTICK_NS 500000u

u32 tsc_per_us = 1;

void clock_start(void)
{
	const struct cpu *cpu = this_cpu();
	u64 start, end;
	u32 before, passed;

	lapic_write(cpu, LAPIC_LVT_TIMER, LVT_MASKED);
	lapic_write(cpu, LAPIC_TIMER_DIVIDE, DIVIDE_BY_1);
	lapic_write(cpu, LAPIC_TIMER_INITIAL, LONGEST);
	before = lapic_read(cpu, LAPIC_TIMER_CURRENT);
	start = tsc();
	do {
		passed = before - lapic_read(cpu, LAPIC_TIMER_CURRENT);
		end = tsc();
	} while (passed < YARDSTICK_NS);
	lapic_write(cpu, LAPIC_TIMER_INITIAL, 0);
	tsc_per_us = (u32)(end - start) / (passed / 1000);
	if (!tsc_per_us)
		tsc_per_us = 1;
}

u64 in_us(u32 us)
{
	return tsc() + (u64)us * tsc_per_us;
}
