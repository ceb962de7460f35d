/*
 * What a scenario may have changed, and therefore the next reset restores and reads back.  In a
 * nested guest a register access costs tens of microseconds: what was not touched is not looked at.
 */
#ifndef TOUCHED_H
#define TOUCHED_H

#include "x86.h"

struct touched {
	u32 lines;
	bool pic, pit, edu;
};

extern struct touched touched;

#endif
