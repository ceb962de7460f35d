#include "devices.h"
#include "touched.h"

#define ALL_LINES 0xffffu

struct touched touched;

void devices_note_port(u16 port)
{
	switch (port) {
	case 0x20: case 0x21: case 0xa0: case 0xa1: case 0x4d0: case 0x4d1:
		touched.pic = true;
		break;
	case 0x40: case 0x41: case 0x42: case 0x43: case 0x61:
		touched.pit = true;
		break;
	case 0xcf8: case 0xcfc: case 0xcfd: case 0xcfe: case 0xcff:
		touched.edu = true;
		break;
	default:
		devices_note_other();
	}
}

void devices_note_other(void)
{
	touched.pic = true;
	touched.lines = ALL_LINES;
	touched.rtc = true;
}

void devices_distrust(void)
{
	touched = (struct touched){ .lines = ALL_LINES, .pic = true, .pit = true, .edu = true };
}
