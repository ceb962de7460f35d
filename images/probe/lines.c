/*
 * pc-testdev (QEMU, hw/misc/pc-testdev.c): a byte written to a port of its own sets an ISA line.  A
 * line above 15 is an assertion of QEMU's, so there the write is left out.  The lines of a second
 * IOAPIC have devices of their own.
 */
#include "accesses.h"
#include "devices.h"
#include "ioapic.h"
#include "touched.h"

#define SCRATCH_PORT 0xe0
#define LINES_PORT 0x2000
#define ISA_LINES 16

static bool is_present;

bool lines_find(void)
{
	out32(SCRATCH_PORT, 0x5a17e57d);
	is_present = in32(SCRATCH_PORT) == 0x5a17e57d;
	return is_present;
}

void lines_note(u32 gsi)
{
	touched.lines |= 1u << gsi;
	touched.pic_requests |= 1u << gsi;
	touched.rtc |= gsi == RTC_GSI;
}

void lines_drive(u32 gsi, bool level)
{
	if (gsi >= IOAPIC_PINS)
		virtio_lines_drive(gsi - IOAPIC_PINS, level);
	if (!is_present || gsi >= ISA_LINES)
		return;
	lines_note(gsi);
	out8(LINES_PORT + gsi, level);
}

void lines_reset(void)
{
	for (; touched.lines; touched.lines &= touched.lines - 1)
		if (is_present)
			later_out(LINES_PORT + lowest_bit(touched.lines), 0);
	finish_accesses();
	virtio_lines_reset();
}
