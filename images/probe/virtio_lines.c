/*
 * The lines of microvm's second IOAPIC: that of virtio-mmio transport n is GSI 24 + n (QEMU,
 * hw/i386/microvm.c).  Each has a virtio-serial device without ports (VIRTIO 1.1, section 4.2.4
 * "Legacy interface").  What is sent to a port that is not there QEMU discards, and raises the line,
 * also where the queue is empty (hw/char/virtio-serial-bus.c, discard_vq_data): so one queue that
 * stays empty is enough for all.  An acknowledgement lowers the line.
 */
#include "devices.h"
#include "touched.h"

#define BASE 0xfeb00000u
#define SPACING 0x200u

#define MAGIC 0x000
#define MAGIC_VALUE 0x74726976u
#define DEVICE_ID 0x008
#define DEVICE_SERIAL 3
#define GUEST_PAGE_SIZE 0x028
#define QUEUE_SELECT 0x030
#define QUEUE_SIZE 0x038
#define QUEUE_ALIGN 0x03c
#define QUEUE_PAGE 0x040
#define QUEUE_NOTIFY 0x050
#define INTERRUPT_ACK 0x064
#define STATUS 0x070
#define STATUS_ACKNOWLEDGE 1
#define STATUS_DRIVER 2
#define STATUS_DRIVER_OK 4

/* transmitq of port 0, and what its two pages have room for. */
#define QUEUE 1
#define ENTRIES 8
#define PAGE_SHIFT 12
#define PAGE_BYTES (1u << PAGE_SHIFT)

extern u8 line_queue[];

static bool are_present;

static u32 base_of(u32 number)
{
	return BASE + number * SPACING;
}

static bool start(u32 base)
{
	if (load32(base + MAGIC) != MAGIC_VALUE || load32(base + DEVICE_ID) != DEVICE_SERIAL)
		return false;
	store32(base + STATUS, 0);
	store32(base + STATUS, STATUS_ACKNOWLEDGE | STATUS_DRIVER);
	store32(base + GUEST_PAGE_SIZE, PAGE_BYTES);
	store32(base + QUEUE_SELECT, QUEUE);
	store32(base + QUEUE_SIZE, ENTRIES);
	store32(base + QUEUE_ALIGN, PAGE_BYTES);
	store32(base + QUEUE_PAGE, (u32)line_queue >> PAGE_SHIFT);
	store32(base + STATUS, STATUS_ACKNOWLEDGE | STATUS_DRIVER | STATUS_DRIVER_OK);
	return true;
}

bool virtio_lines_find(void)
{
	memset(line_queue, 0, 2 * PAGE_BYTES);
	are_present = true;
	for (u32 number = 0; are_present && number < VIRTIO_LINES; number++)
		are_present = start(base_of(number));
	return are_present;
}

void virtio_lines_drive(u32 number, bool level)
{
	if (!are_present || number >= VIRTIO_LINES)
		return;
	touched.virtio_lines |= 1u << number;
	if (level)
		store32(base_of(number) + QUEUE_NOTIFY, QUEUE);
	else
		store32(base_of(number) + INTERRUPT_ACK, ~0u);
}

void virtio_lines_reset(void)
{
	for (; touched.virtio_lines; touched.virtio_lines &= touched.virtio_lines - 1)
		if (are_present)
			store32(base_of(lowest_bit(touched.virtio_lines)) + INTERRUPT_ACK, ~0u);
}
