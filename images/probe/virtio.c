/*
 * virtio-serial as a legacy PCI device (VIRTIO 1.1, sections 4.1.4.8 "Legacy Interfaces: A Note on
 * PCI Device Layout", 2.6 "Split Virtqueues" and 5.3 "Console Device"), polled.  It has nothing to
 * interrupt for: the queue says so, and its INTx is switched off.
 */
#include "virtio.h"
#include "pci.h"

#define SERIAL_ID 0x10031af4u
#define BAR_IO_MASK 0xfffcu

#define GUEST_FEATURES 0x04
#define QUEUE_PAGE 0x08
#define QUEUE_SIZE 0x0c
#define QUEUE_SELECT 0x0e
#define QUEUE_NOTIFY 0x10
#define STATUS 0x12
#define STATUS_ACKNOWLEDGE 1
#define STATUS_DRIVER 2
#define STATUS_DRIVER_OK 4

/* transmitq of port 1: receiveq and transmitq of port 0 and of control come first. */
#define QUEUE 5
#define PAGE_SHIFT 12
#define PAGE_MASK ((1u << PAGE_SHIFT) - 1)
#define NO_INTERRUPT 1

struct descriptor {
	u64 address;
	u32 length;
	u16 flags, next;
};

struct available {
	u16 flags;
	volatile u16 index;
	u16 ring[];
};

struct used {
	u16 flags;
	volatile u16 index;
};

extern u8 console_queue[];

static u16 port;
static u32 size;
static struct available *available;
static const struct used *used;

static void lay_out(void)
{
	u32 at = (u32)console_queue + size * sizeof(struct descriptor);
	u32 end = at + sizeof(struct available) + (size + 1) * sizeof(u16);

	available = (struct available *)at;
	used = (const struct used *)((end + PAGE_MASK) & ~PAGE_MASK);
	memset(console_queue, 0, (u32)used + sizeof(struct used) - (u32)console_queue);
	available->flags = NO_INTERRUPT;
}

bool virtio_port_find(void)
{
	u32 slot = pci_find(SERIAL_ID);

	if (slot == PCI_NO_SLOT)
		return false;
	pci_write(slot, PCI_COMMAND,
		  pci_read(slot, PCI_COMMAND) | PCI_COMMAND_IO | PCI_COMMAND_MASTER |
			  PCI_COMMAND_NO_INTX);
	port = pci_read(slot, PCI_BAR0) & BAR_IO_MASK;
	out8(port + STATUS, 0);
	out8(port + STATUS, STATUS_ACKNOWLEDGE | STATUS_DRIVER);
	out32(port + GUEST_FEATURES, 0);
	out16(port + QUEUE_SELECT, QUEUE);
	size = in16(port + QUEUE_SIZE);
	if (!size)
		return false;
	lay_out();
	out32(port + QUEUE_PAGE, (u32)console_queue >> PAGE_SHIFT);
	out8(port + STATUS, STATUS_ACKNOWLEDGE | STATUS_DRIVER | STATUS_DRIVER_OK);
	return true;
}

void virtio_port_write(const void *text, u32 bytes)
{
	struct descriptor *first = (struct descriptor *)console_queue;

	if (!bytes)
		return;
	*first = (struct descriptor){ .address = (u32)text, .length = bytes };
	available->ring[available->index % size] = 0;
	available->index++;
	out16(port + QUEUE_NOTIFY, QUEUE);
	while (used->index != available->index)
		relax();
}
