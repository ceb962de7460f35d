#include "devices.h"
#include "touched.h"

#define ALL_LINES 0xffffu

struct touched touched;
bool proving;

enum device {
	PIC,
	PIT,
	EDU,
	OTHER,
};

static enum device device_at(u16 port)
{
	switch (port) {
	case 0x20: case 0x21: case 0xa0: case 0xa1: case 0x4d0: case 0x4d1:
		return PIC;
	case 0x40: case 0x41: case 0x42: case 0x43: case 0x61:
		return PIT;
	case 0xcf8: case 0xcfc: case 0xcfd: case 0xcfe: case 0xcff:
		return EDU;
	default:
		return OTHER;
	}
}

bool devices_is_other(u16 port)
{
	return device_at(port) == OTHER;
}

void devices_note_port(u16 port)
{
	enum device device = device_at(port);

	touched.pic |= device == PIC;
	touched.pit |= device == PIT;
	touched.edu |= device == EDU;
	if (device == OTHER)
		devices_note_other();
}

void devices_note_other(void)
{
	touched.pic = true;
	touched.lines = ALL_LINES;
	touched.rtc = true;
}

void devices_distrust(void)
{
	touched = (struct touched){
		.lines = ALL_LINES, .pic = true, .pit = true, .edu = true, .rtc = true,
	};
}
