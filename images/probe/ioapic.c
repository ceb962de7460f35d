#include "ioapic.h"
#include "accesses.h"
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

/* What was written since the last reset; the upper half of an entry: where it is not 0 now. */
static struct {
	u32 pins, highs;
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

void ioapic_read_entry(u32 number, u32 pin, u32 *halves)
{
	u32 select = base_of(number) + SELECT, window = base_of(number) + WINDOW;
	struct access accesses[] = {
		{ .kind = STORE32, .at = select, .value = IOAPIC_ENTRY(pin) },
		{ .kind = LOAD32, .at = window },
		{ .kind = STORE32, .at = select, .value = IOAPIC_ENTRY(pin) + 1 },
		{ .kind = LOAD32, .at = window },
	};
	bool were_on = take();

	do_accesses(accesses, ARRAY_SIZE(accesses));
	give_back(were_on);
	halves[0] = accesses[1].value;
	halves[1] = accesses[3].value;
}

static void note(u32 number, u32 index, u32 value)
{
	u32 half = index - IOAPIC_ENTRY(0), pin = half / 2;

	if (index == IOAPIC_ID)
		written[number].id = true;
	else if (pin < IOAPIC_PINS)
		written[number].pins |= 1u << pin;
	if (pin < IOAPIC_PINS && half % 2)
		written[number].highs = (written[number].highs & ~(1u << pin)) | !!value << pin;
}

void ioapic_write(u32 number, u32 index, u32 value)
{
	bool were_on = take();

	note(number, index, value);
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
		written[number].pins = written[number].highs = ALL_PINS;
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

static void later_select(u32 number, u32 index)
{
	later_store(base_of(number) + SELECT, index);
}

static void later_put(u32 number, u32 value)
{
	later_store(base_of(number) + WINDOW, value);
}

static void later_expect(u32 number, u32 value, const char *what)
{
	later_expect_load(what, base_of(number) + WINDOW, value);
}

/*
 * Masked nothing can happen, and as an edge the entry has no remote IRR.  In between it is unmasked
 * once: QEMU's IOAPIC keeps an entry's MSI route of KVM from when it last was not masked
 * (hw/intc/ioapic.c, ioapic_update_kvm_routes).  The lines are low by now.
 */
static void reset_entry(u32 number, u32 pin)
{
	if (written[number].highs & 1u << pin) {
		later_select(number, IOAPIC_ENTRY(pin) + 1);
		if (proving)
			later_expect(number, 0, "ioapic.redir.high");
		later_put(number, 0);
		later_expect(number, 0, "ioapic.redir.high");
	}
	later_select(number, IOAPIC_ENTRY(pin));
	if (proving)
		later_expect(number, ENTRY_MASKED, "ioapic.redir");
	later_put(number, 0);
	later_put(number, ENTRY_MASKED);
	later_expect(number, ENTRY_MASKED, "ioapic.redir");
}

static void reset_id(u32 number)
{
	later_select(number, IOAPIC_ID);
	if (proving)
		later_expect(number, 0, "ioapic.id");
	later_put(number, 0);
	later_expect(number, 0, "ioapic.id");
}

void ioapic_mask(void)
{
	for (u32 number = 0; number < count; number++)
		for (u32 pins = written[number].pins; pins; pins &= pins - 1) {
			store32(base_of(number) + SELECT, IOAPIC_ENTRY(lowest_bit(pins)));
			put(number, load32(base_of(number) + WINDOW) | ENTRY_MASKED);
		}
}

void ioapic_reset(void)
{
	for (u32 number = 0; number < count; number++) {
		for (u32 pins = written[number].pins; pins; pins &= pins - 1)
			reset_entry(number, lowest_bit(pins));
		if (written[number].id)
			reset_id(number);
		finish_accesses();
		written[number].pins = written[number].highs = 0;
		written[number].id = false;
	}
}
