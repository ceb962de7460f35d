/*
 * The probe's clock on a machine of a known speed that stops once: AT NS AHEAD_NS BEFORE_NS AFTER_NS.
 * Each access of a clock takes a microsecond; before access AT it stops for NS nanoseconds, and the
 * local APIC's timer alone goes AHEAD_NS ahead.  An access of that takes BEFORE_NS until it has the
 * count, and AFTER_NS from there.  Prints what the clock found.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#define tsc the_processors_own
#include "x86.h"
#undef tsc

static u64 now_ns, at, stop_ns, jump_ns, ahead_ns, before_ns, after_ns, accesses, started_ns;

static void pass(void)
{
	bool stops = ++accesses == at;

	now_ns += stops && stop_ns ? stop_ns : 1000;
	ahead_ns += stops ? jump_ns : 0;
}

static inline u64 tsc(void)
{
	pass();
	return now_ns / 1000 * 2596;
}

#include "clock.c"

struct cpu *this_cpu(void)
{
	return NULL;
}

static u64 apic_ns(void)
{
	return now_ns + ahead_ns;
}

u32 lapic_read(const struct cpu *cpu, u32 offset)
{
	u64 passed;

	(void)cpu, (void)offset;
	pass();
	now_ns += before_ns;
	passed = apic_ns() - started_ns;
	now_ns += after_ns;
	return passed < LONGEST ? LONGEST - (u32)passed : 0;
}

void lapic_write(const struct cpu *cpu, u32 offset, u32 value)
{
	(void)cpu, (void)value;
	pass();
	if (offset == LAPIC_TIMER_INITIAL)
		started_ns = apic_ns();
}

int main(int argc, char **argv)
{
	at = argc > 1 ? strtoull(argv[1], NULL, 10) : 0;
	stop_ns = argc > 2 ? strtoull(argv[2], NULL, 10) : 0;
	jump_ns = argc > 3 ? strtoull(argv[3], NULL, 10) : 0;
	before_ns = argc > 4 ? strtoull(argv[4], NULL, 10) : 0;
	after_ns = argc > 5 ? strtoull(argv[5], NULL, 10) : 0;
	clock_start();
	printf("%u\n", tsc_per_us);
	return 0;
}
