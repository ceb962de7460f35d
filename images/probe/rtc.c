/*
 * The MC146818 real-time clock: its divider held in reset, no interrupts, no flags, BCD and 24 hours.
 * So a scenario says when the second begins, half a second after it releases the divider, and at
 * midnight: otherwise no flag could be predicted.
 */
#include "accesses.h"
#include "devices.h"
#include "touched.h"

#define INDEX 0x70
#define DATA 0x71

#define SECONDS 0
#define SECONDS_ALARM 1
#define MINUTES 2
#define MINUTES_ALARM 3
#define HOURS 4
#define HOURS_ALARM 5
#define DAY_OF_WEEK 6
#define DAY_OF_MONTH 7
#define MONTH 8
#define YEAR 9
#define REGISTER_A 10
#define REGISTER_B 11
#define REGISTER_C 12
#define REGISTER_D 13

#define CENTURY 0x32

#define A_DIVIDER_RESET_1024_HZ 0x66
#define B_24_HOURS 0x02
#define D_VALID_RAM_AND_TIME 0x80

/* Thursday, 1 January 2026, 0:00; harness/scenario/execution.py has the same. */
static const struct {
	u8 index, value;
} baseline[] = {
	{ SECONDS, 0 },	    { SECONDS_ALARM, 0 },  { MINUTES, 0 },	{ MINUTES_ALARM, 0 },
	{ HOURS, 0 },	    { HOURS_ALARM, 0 },	   { DAY_OF_WEEK, 5 },	{ DAY_OF_MONTH, 1 },
	{ MONTH, 1 },	    { YEAR, 0x26 },	   { CENTURY, 0x20 },
};

static bool is_present;

static u8 read(u8 index)
{
	out8(INDEX, index);
	return in8(DATA);
}

bool rtc_find(void)
{
	is_present = read(REGISTER_D) == D_VALID_RAM_AND_TIME;
	touched.clock = true;
	return is_present;
}

static void later_write(u8 index, u8 value)
{
	later_out(INDEX, index);
	later_out(DATA, value);
}

void rtc_reset(void)
{
	if (!touched.clock || !is_present)
		return;
	touched.clock = false;
	later_write(REGISTER_A, A_DIVIDER_RESET_1024_HZ);
	later_write(REGISTER_B, B_24_HOURS);
	for (u32 i = 0; i < sizeof(baseline) / sizeof(baseline[0]); i++)
		later_write(baseline[i].index, baseline[i].value);
	later_out(INDEX, REGISTER_C);
	later_in(DATA); /* what is requested, and the line */
	later_out(INDEX, 0);
	finish_accesses();
}
