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
#define YARDSTICK_NS 4000000u
#define SHORTEST (1u << 20)
#define LONGEST_SPAN (1u << 29)
#define MOST_UNSURE 32
#define MEASUREMENTS 7

u32 tsc_per_us = 1;

/* A count of the yardstick, and when it was: between `before` and `after`. */
struct reading {
	u32 count;
	u64 before, after;
};

static struct reading reading(const struct cpu *cpu)
{
	struct reading it;

	it.before = tsc();
	it.count = lapic_read(cpu, LAPIC_TIMER_CURRENT);
	it.after = tsc();
	return it;
}

/*
 * Of a reading that takes long nobody knows when it was: a local APIC in Python, in a lab, takes
 * milliseconds.  So the span is long beside the two readings, and between their middles.  A host whose clock
 * catches up, as that of a busy lab does, makes it too small.  Where KVM's host has an unstable counter the
 * guest's stands still while it is out of the guest (arch/x86/kvm/x86.c, kvm_arch_vcpu_load), and a reading
 * takes no time.  More cycles than 32 bits hold are a guest that was stopped meanwhile, for longer than it
 * takes to measure again.
 */
static u32 measured(const struct cpu *cpu)
{
	for (u32 span = SHORTEST;;) {
		struct reading first, last;
		u64 cycles, unsure;
		u32 passed;

		/* It stops at 0. */
		lapic_write(cpu, LAPIC_TIMER_INITIAL, LONGEST);
		first = reading(cpu);
		while (tsc() - first.after < span)
			;
		last = reading(cpu);
		passed = first.count - last.count;
		unsure = (first.after - first.before + last.after - last.before) / 2;
		cycles = last.before - first.after + unsure;
		if (cycles <= LONGEST && passed >= YARDSTICK_NS &&
		    (cycles / MOST_UNSURE >= unsure || span >= LONGEST_SPAN))
			return (u32)cycles / (passed / 1000);
		if (span < LONGEST_SPAN)
			span *= 2;
	}
}

/* Into the first `count` of them, which are in order. */
static void insert(u32 *sorted, u32 count, u32 value)
{
	for (; count && sorted[count - 1] > value; count--)
		sorted[count] = sorted[count - 1];
	sorted[count] = value;
}

/* The median: a few measurements may be wrong, either way. */
void clock_start(void)
{
	const struct cpu *cpu = this_cpu();
	u32 found[MEASUREMENTS];

	lapic_write(cpu, LAPIC_LVT_TIMER, LVT_MASKED);
	lapic_write(cpu, LAPIC_TIMER_DIVIDE, DIVIDE_BY_1);
	for (u32 i = 0; i < MEASUREMENTS; i++)
		insert(found, i, measured(cpu));
	lapic_write(cpu, LAPIC_TIMER_INITIAL, 0);
	tsc_per_us = found[MEASUREMENTS / 2] ? found[MEASUREMENTS / 2] : 1;
}

u64 in_us(u32 us)
{
	return tsc() + (u64)us * tsc_per_us;
}
