/*
 * The HPET (IA-PC HPET Specification 1.0a, 2.3): stopped, every timer as after power-on, every line
 * that it has low.  QEMU does not lower a line that a timer held before its route was changed, and
 * up to 10.0 there is one timer more than the capabilities say (hw/timer/hpet.c).
 */
#include "accesses.h"
#include "devices.h"
#include "touched.h"

#define CAPABILITIES HPET_BASE
#define CONFIGURATION (HPET_BASE + 0x10)
#define STATUS (HPET_BASE + 0x20)
#define COUNTER (HPET_BASE + 0xf0)
#define TIMER(number) (HPET_BASE + 0x100 + 0x20 * (number))
#define COMPARATOR 8
#define FSB_ROUTE 16

#define VENDOR_INTEL 0x8086
#define LEGACY 2
#define LEVEL_WITH_INTERRUPTS 0x6
#define PERIODIC_SET_VALUE 0x48
#define ROUTE(gsi) ((gsi) << 9)
#define TIMERS 3
#define ALL_ONES 0xffffffffu

static bool is_present;

bool hpet_find(void)
{
	is_present = load32(CAPABILITIES) >> 16 == VENDOR_INTEL;
	touched.hpet = true;
	return is_present;
}

static void store64_in_halves(u32 address, u32 half)
{
	later_store(address, half);
	later_store(address + 4, half);
}

/* Both what QEMU before 9.1 lowers a line at, and what it does since. */
static void lower(u32 timer, u32 gsi)
{
	later_store(TIMER(timer), ROUTE(gsi) | LEVEL_WITH_INTERRUPTS);
	later_store(TIMER(timer), ROUTE(gsi));
}

static void reset_timer(u32 timer)
{
	lower(timer, 0);
	later_store(TIMER(timer), PERIODIC_SET_VALUE);
	store64_in_halves(TIMER(timer) + COMPARATOR, 0); /* the period, too */
	later_store(TIMER(timer), 0);
	store64_in_halves(TIMER(timer) + COMPARATOR, timer < TIMERS ? ALL_ONES : 0);
	store64_in_halves(TIMER(timer) + FSB_ROUTE, 0);
}

void hpet_reset(void)
{
	if (!touched.hpet || !is_present)
		return;
	touched.hpet = false;
	/* Given back, the PIT drives its line at once. */
	touched.pit |= !!(load32(CONFIGURATION) & LEGACY);
	later_store(CONFIGURATION, 0);
	for (; touched.hpet_routes; touched.hpet_routes &= touched.hpet_routes - 1)
		lower(0, lowest_bit(touched.hpet_routes));
	for (u32 timer = 0; timer <= TIMERS; timer++)
		reset_timer(timer);
	later_store(STATUS, ALL_ONES);
	store64_in_halves(COUNTER, 0);
	finish_accesses();
}
