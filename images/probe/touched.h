/*
 * What a scenario may have changed, and therefore the next reset restores and reads back.  In a
 * nested guest a register access costs tens of microseconds: what was not touched is not looked at.
 */
#ifndef TOUCHED_H
#define TOUCHED_H

#include "x86.h"

enum pic_part {
	PIC_SLAVE = 1,
	PIC_MASTER = 2,
	PIC_ELCR = 4,
	PIC_ALL = 7,
};

struct touched {
	u32 lines;
	u32 virtio_lines;
	/* Lines that may have left a request there. */
	u32 pic_requests;
	/* GSIs that a timer of the HPET may have been given. */
	u32 hpet_routes;
	/* The PIC's chips, and their ELCR: bits of enum pic_part. */
	u8 pic;
	bool pit, edu, hpet;
	/* The RTC's registers. */
	bool clock;
	/* The RTC's line was driven since its pin was last proved to interrupt. */
	bool rtc;
	/* A message that KVM takes for the end of a HLT was sent. */
	bool unhalt;
};

extern struct touched touched;

/* A reset after the reset, of everything: what it finds to do is an error of the first one. */
extern bool proving;

#endif
