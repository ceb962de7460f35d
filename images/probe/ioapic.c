#include "ioapic.h"
#include "log.h"
#include "touched.h"

#define FIRST_BASE 0xfec00000u
#define SPACING 0x10000u
#define MOST 2
#define SELECT 0x00
#define WINDOW 0x10
#define BYTES 0x1000u
#define ENTRY_MASKED 0x10000u
#define LAST_PIN (IOAPIC_PINS - 1)
#define VERSION_11 (LAST_PIN << 16 | 0x11)
#define VERSION_20 (LAST_PIN << 16 | 0x20)
#define ALL_PINS ((1u << IOAPIC_PINS) - 1)

static u32 count = MOST;
static u32 lock;

/* What was written since the last reset. */
static struct {
	u32 pins;
	bool id;
} written[MOST];

static u32 base_of(u32 number)
{
	return FIRST_BASE + number * SPACING;
}

/* Selecting and accessing belong together, on one CPU and between CPUs. */
static bool take(void)
{
	bool were_on = hold_interrupts();

	while (exchange(&lock, 1))
		relax();
	return were_on;
}

static void give_back(bool were_on)
{
	exchange(&lock, 0);
	release_interrupts(were_on);
}

void ioapic_unlock(void)
{
	lock = 0;
}

u32 ioapic_read(u32 number, u32 index)
{
	bool were_on = take();
	u32 value;

	store32(base_of(number) + SELECT, index);
	value = load32(base_of(number) + WINDOW);
	give_back(were_on);
	return value;
}

static void note(u32 number, u32 index)
{
	u32 pin = (index - IOAPIC_ENTRY(0)) / 2;

	if (index == IOAPIC_ID)
		written[number].id = true;
	else if (pin < IOAPIC_PINS)
		written[number].pins |= 1u << pin;
}

void ioapic_write(u32 number, u32 index, u32 value)
{
	bool were_on = take();

	note(number, index);
	store32(base_of(number) + SELECT, index);
	store32(base_of(number) + WINDOW, value);
	give_back(were_on);
}

void ioapic_note_store(u32 address)
{
	if (address >= FIRST_BASE && address < FIRST_BASE + BYTES + SPACING)
		ioapic_distrust();
}

void ioapic_distrust(void)
{
	for (u32 number = 0; number < count; number++) {
		written[number].pins = ALL_PINS;
		written[number].id = true;
	}
}

u32 ioapic_count(void)
{
	for (count = 0; count < MOST; count++) {
		u32 version = ioapic_read(count, IOAPIC_VERSION);

		if (version != VERSION_11 && version != VERSION_20)
			break;
	}
	ioapic_distrust();
	return count;
}

static void put(u32 number, u32 value)
{
	store32(base_of(number) + WINDOW, value);
}

static void expect(struct cpu *cpu, u32 number, u32 value, const char *what)
{
	u32 found = load32(base_of(number) + WINDOW);

	if (found != value)
		log_dirty(cpu, what, value, found);
}

/*
 * Masked nothing can happen, and as an edge the entry has no remote IRR.  In between it is unmasked
 * once: QEMU's IOAPIC keeps an entry's MSI route of KVM from when it last was not masked
 * (hw/intc/ioapic.c, ioapic_update_kvm_routes).  The lines are low by now.
 */
static void reset_entry(struct cpu *cpu, u32 number, u32 pin)
{
	store32(base_of(number) + SELECT, IOAPIC_ENTRY(pin) + 1);
	if (proving)
		expect(cpu, number, 0, "ioapic.redir.high");
	put(number, 0);
	expect(cpu, number, 0, "ioapic.redir.high");
	store32(base_of(number) + SELECT, IOAPIC_ENTRY(pin));
	if (proving)
		expect(cpu, number, ENTRY_MASKED, "ioapic.redir");
	put(number, 0);
	put(number, ENTRY_MASKED);
	expect(cpu, number, ENTRY_MASKED, "ioapic.redir");
}

void ioapic_mask(void)
{
	for (u32 number = 0; number < count; number++)
		for (u32 pins = written[number].pins; pins; pins &= pins - 1) {
			store32(base_of(number) + SELECT, IOAPIC_ENTRY(lowest_bit(pins)));
			put(number, load32(base_of(number) + WINDOW) | ENTRY_MASKED);
		}
}

void ioapic_reset(struct cpu *cpu)
{
	for (u32 number = 0; number < count; number++) {
		for (u32 pins = written[number].pins; pins; pins &= pins - 1)
			reset_entry(cpu, number, lowest_bit(pins));
		if (written[number].id) {
			store32(base_of(number) + SELECT, IOAPIC_ID);
			if (proving)
				expect(cpu, number, 0, "ioapic.id");
			put(number, 0);
			expect(cpu, number, 0, "ioapic.id");
		}
		written[number].pins = 0;
		written[number].id = false;
	}
}
