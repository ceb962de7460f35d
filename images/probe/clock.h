/* Time: the time stamp counter, told its speed by something that raises no interrupt. */
#ifndef CLOCK_H
#define CLOCK_H

#include "x86.h"

extern u32 tsc_per_us;

/* On CPU 0; its local APIC has to be in xAPIC mode. */
void clock_start(void);
/* The time stamp counter's value in that many microseconds. */
u64 in_us(u32 us);

static inline bool is_past(u64 when)
{
	return (int64_t)(tsc() - when) >= 0;
}

#endif
