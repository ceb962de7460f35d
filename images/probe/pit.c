/*
 * The 8254 (Intel 82C54 datasheet).  Channel 0 is stopped by a count in mode 4 that has run out: it
 * ends with its output low in QEMU (hw/timer/i8254_common.c, pit_get_out) and with nothing more to
 * come in KVM.  The one pulse that comes first, from another thread and therefore at any time, is
 * waited for: it is a request at the PIC.
 */
#include "clock.h"
#include "devices.h"
#include "touched.h"

#define CHANNEL0 0x40
#define COMMAND 0x43
#define CHANNEL0_MODE4_16BIT 0x38
#define READ_STATUS_OF_CHANNEL0 0xe2
#define STATUS_MODE 0x3f
#define LONGEST_COUNT 0
#define LAST_COUNT 1
#define RUNS_OUT_WITHIN_US 1000000
#define SECOND_RISE_US 500

#define PIC_PORT 0x20
#define PIC_ICW1 0x11
#define PIC_READ_IRR 0x0a

static bool is_present;

static void pass_us(u32 us)
{
	u64 end = in_us(us);

	while (!is_past(end))
		relax();
}

static void count_down(u16 from)
{
	out8(COMMAND, CHANNEL0_MODE4_16BIT);
	out8(CHANNEL0, from);
	out8(CHANNEL0, from >> 8);
}

bool pit_find(void)
{
	out8(COMMAND, CHANNEL0_MODE4_16BIT);
	out8(COMMAND, READ_STATUS_OF_CHANNEL0);
	is_present = (in8(CHANNEL0) & STATUS_MODE) == (CHANNEL0_MODE4_16BIT & STATUS_MODE);
	touched.pit = true;
	return is_present;
}

void pit_reset(void)
{
	u64 end = in_us(RUNS_OUT_WITHIN_US);

	if (!touched.pit || !is_present)
		return;
	touched.pit = false;
	touched.pic |= PIC_MASTER;
	count_down(LONGEST_COUNT); /* nothing more of what was going on */
	out8(PIC_PORT, PIC_ICW1); /* forgets what was requested; pic_reset() does the rest */
	count_down(LAST_COUNT);
	out8(PIC_PORT, PIC_READ_IRR);
	while (!(in8(PIC_PORT) & 1) && !is_past(end))
		relax();
	/* QEMU's pulse rises twice (pit_irq_timer_update rounds down), the second time a bit later. */
	do {
		out8(PIC_PORT, PIC_ICW1);
		pass_us(SECOND_RISE_US);
	} while ((in8(PIC_PORT) & 1) && !is_past(end));
}
