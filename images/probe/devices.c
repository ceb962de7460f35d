#include "devices.h"
#include "touched.h"

#define ALL_LINES 0xffffu
#define ALL_VIRTIO_LINES 0xffffffu
#define ALL_ROUTES 0xffffffu

struct touched touched;
bool is_microvm;
bool proving;

enum device {
	PIC,
	ELCR,
	PIT,
	EDU,
	RTC,
	OTHER,
};

static enum device device_at(u16 port)
{
	switch (port) {
	case 0x20: case 0x21: case 0xa0: case 0xa1:
		return PIC;
	case 0x4d0: case 0x4d1:
		return ELCR;
	case 0x40: case 0x41: case 0x42: case 0x43: case 0x61:
		return PIT;
	case 0xcf8: case 0xcfc: case 0xcfd: case 0xcfe: case 0xcff:
		return EDU;
	case 0x70: case 0x71:
		return RTC;
	default:
		return OTHER;
	}
}

bool devices_is_other(u16 port)
{
	enum device device = device_at(port);

	return device == OTHER || device == RTC;
}

void devices_note_port(u16 port)
{
	enum device device = device_at(port);

	if (device == PIC)
		touched.pic |= port & 0x80 ? PIC_SLAVE : PIC_MASTER;
	if (device == ELCR)
		touched.pic |= PIC_ELCR;
	touched.pit |= device == PIT;
	touched.edu |= device == EDU;
	touched.clock |= device == RTC;
	if (device == RTC)
		lines_note(RTC_GSI);
	if (device == OTHER)
		devices_note_other();
}

void devices_note_other(void)
{
	touched.pic = PIC_ALL;
	touched.lines = ALL_LINES;
	touched.virtio_lines = ALL_VIRTIO_LINES;
	touched.rtc = true;
}

void devices_distrust(void)
{
	touched = (struct touched){
		.lines = ALL_LINES, .virtio_lines = ALL_VIRTIO_LINES,
		.pic = PIC_ALL, .pit = true, .edu = true, .rtc = true,
		.hpet = true, .hpet_routes = ALL_ROUTES, .clock = true,
	};
}
