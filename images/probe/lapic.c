#include "lapic.h"
#include "accesses.h"
#include "log.h"
#include "touched.h"

#define BASE_ENABLED (1u << 11)
#define BASE_X2APIC (1u << 10)
#define BASE_BSP (1u << 8)
#define BASE_ADDRESS 0xfffff000u

#define SVR_ENABLED 0x1ff
#define LVT_MASKED 0x10000
#define NOBODY 0xfe
#define REGISTER_STRIDE 0x10
#define WORDS_OF_REGISTER (REGISTER_STRIDE / sizeof(u32))
#define FIRST_VECTOR 16
#define FIRST_USUAL_VECTOR 32
/* Such a KVM emulates about a hundred instructions before it looks for interrupts again. */
#define LET_IN_ROUNDS 100

void lapic_find_mode(struct cpu *cpu)
{
	u64 base = 0;

	read_msr(MSR_APIC_BASE, &base);
	cpu->apic_base = base & BASE_ADDRESS;
	if (!(base & BASE_ENABLED))
		cpu->apic_mode = APIC_OFF;
	else
		cpu->apic_mode = base & BASE_X2APIC ? APIC_X2APIC : APIC_XAPIC;
}

bool lapic_try_read(const struct cpu *cpu, u32 offset, u64 *value)
{
	if (cpu->apic_mode == APIC_X2APIC)
		return read_msr(MSR_X2APIC + (offset >> 4), value);
	*value = load32(cpu->apic_base + offset);
	return true;
}

bool lapic_try_write(const struct cpu *cpu, u32 offset, u32 low, u32 high)
{
	bool were_on;

	if (cpu->apic_mode == APIC_X2APIC)
		return write_msr(MSR_X2APIC + (offset >> 4), (u64)high << 32 | low);
	/* A handler that sends, too, must not come between the halves. */
	were_on = hold_interrupts();
	if (offset == LAPIC_ICR)
		store32(cpu->apic_base + LAPIC_ICR2, high);
	store32(cpu->apic_base + offset, low);
	release_interrupts(were_on);
	return true;
}

u32 lapic_read(const struct cpu *cpu, u32 offset)
{
	u64 value = 0;

	lapic_try_read(cpu, offset, &value);
	return value;
}

void lapic_write(const struct cpu *cpu, u32 offset, u32 value)
{
	lapic_try_write(cpu, offset, value, 0);
}

bool lapic_has(const struct cpu *cpu, u32 offset, u32 vector)
{
	return lapic_read(cpu, offset + vector / 32 * REGISTER_STRIDE) >> vector % 32 & 1;
}

u32 vector_words = ALL_WORDS;

static u64 register_bit(u32 offset)
{
	return 1ull << (offset / REGISTER_STRIDE % 64);
}

#define BASE_BIT register_bit(0)
#define LVT_BITS (0x3full << LAPIC_LVT_TIMER / REGISTER_STRIDE)

/*
 * Disabled by its SVR a local APIC may mask the LVTs.  A level that LINT0 takes back leaves IRR, but
 * not TMR (QEMU, hw/intc/apic.c, apic_deliver_pic_intr).
 */
void lapic_note_write(struct cpu *cpu, u32 offset)
{
	cpu->apic_touched |= register_bit(offset) | register_bit(LAPIC_ESR);
	if (offset == LAPIC_LVT_LINT0)
		cpu->entered_words = ALL_WORDS;
	if (offset == LAPIC_SVR)
		cpu->apic_touched |= LVT_BITS;
}

/* Of a register that is not there it is an error. */
void lapic_note_read(struct cpu *cpu)
{
	cpu->apic_touched |= register_bit(LAPIC_ESR);
}

void lapic_distrust(struct cpu *cpu)
{
	cpu->apic_touched = ~0ull;
	cpu->entered_words = ALL_WORDS;
}

bool lapic_is_renamed(const struct cpu *cpu)
{
	return cpu->apic_touched & register_bit(LAPIC_ID);
}

/*
 * The registers of a map in one go: a KVM that emulates the accesses does so at one exit, where the
 * local APIC is its own.  The words between them are reserved, and nobody looks at what they give.
 */
static void copy_map(const struct cpu *cpu, u32 map, u32 words, u32 *values)
{
	u32 page[MAP_WORDS * WORDS_OF_REGISTER], first = lowest_bit(words), last = highest_bit(words);

	if (cpu->apic_mode == APIC_X2APIC) {
		for (; words; words &= words - 1)
			values[lowest_bit(words)] =
				lapic_read(cpu, map + lowest_bit(words) * REGISTER_STRIDE);
		return;
	}
	load32s(page, cpu->apic_base + map + first * REGISTER_STRIDE,
		(last - first) * WORDS_OF_REGISTER + 1);
	for (u32 word = first; word <= last; word++)
		values[word] = page[(word - first) * WORDS_OF_REGISTER];
}

static u32 words_used(const u32 *values)
{
	u32 used = 0;

	for (u32 word = 0; word < MAP_WORDS; word++)
		used |= (u32)!!values[word] << word;
	return used;
}

static u32 read_map(const struct cpu *cpu, u32 map, u32 words, u32 *values)
{
	memset(values, 0, MAP_WORDS * sizeof(u32));
	if (words)
		copy_map(cpu, map, words, values);
	return words_used(values);
}

/* Register by register; `words` has a bit for each. */
static void load_maps(const struct cpu *cpu, u32 words, u32 *const *values)
{
	static const u32 offsets[] = { LAPIC_IRR, LAPIC_ISR, LAPIC_TMR };
	struct access loads[ARRAY_SIZE(offsets) * MAP_WORDS];
	const struct access *load = loads;
	u32 count = 0;

	for (u32 map = 0; map < ARRAY_SIZE(offsets); map++)
		for (u32 left = words; left; left &= left - 1)
			loads[count++] = (struct access){
				.kind = LOAD32,
				.at = cpu->apic_base + offsets[map] + lowest_bit(left) * REGISTER_STRIDE,
			};
	do_accesses(loads, count);
	for (u32 map = 0; map < ARRAY_SIZE(offsets); map++) {
		memset(values[map], 0, MAP_WORDS * sizeof(u32));
		for (u32 left = words; left; left &= left - 1)
			values[map][lowest_bit(left)] = (load++)->value;
	}
}

static void keep_words(u32 *values, u32 words)
{
	for (u32 word = 0; word < MAP_WORDS; word++)
		if (!(words >> word & 1))
			values[word] = 0;
}

/* What is in TMR was accepted: it is in IRR still, or it was entered. */
void lapic_read_maps(const struct cpu *cpu, u32 *irr, u32 *isr, u32 *tmr)
{
	u32 pending;

	if (each_access_exits && cpu->apic_mode == APIC_XAPIC) {
		load_maps(cpu, vector_words | cpu->entered_words, (u32 *const[]){ irr, isr, tmr });
		keep_words(isr, cpu->entered_words);
		keep_words(tmr, words_used(irr) | cpu->entered_words);
		return;
	}
	pending = read_map(cpu, LAPIC_IRR, vector_words | cpu->entered_words, irr);

	read_map(cpu, LAPIC_ISR, cpu->entered_words, isr);
	read_map(cpu, LAPIC_TMR, pending | cpu->entered_words, tmr);
}

void lapic_send(const struct cpu *cpu, u32 destination, u32 command)
{
	u32 high = cpu->apic_mode == APIC_X2APIC ? destination : destination << 24;

	lapic_try_write(cpu, LAPIC_ICR, command, high);
}

/* What there is to do. */
static void note_found(struct cpu *cpu, const char *what, u32 expected, u32 found)
{
	if (proving)
		log_dirty(cpu, what, expected, found);
}

static u64 read_base(void)
{
	u64 base = 0;

	read_msr(MSR_APIC_BASE, &base);
	return base;
}

/* To xAPIC mode at the usual address; the way there from x2APIC mode is through "disabled". */
static void reset_base(struct cpu *cpu)
{
	u32 wanted = LAPIC_WINDOW | BASE_ENABLED | (cpu->id ? 0 : BASE_BSP);
	u64 base;

	if (!(cpu->apic_touched & BASE_BIT))
		return;
	base = read_base();
	if (base != wanted) {
		note_found(cpu, "lapic.base", wanted, base);
		if (base & BASE_X2APIC)
			write_msr(MSR_APIC_BASE, wanted & ~BASE_ENABLED);
		write_msr(MSR_APIC_BASE, wanted);
		base = read_base();
	}
	if (base != wanted)
		log_dirty(cpu, "lapic.base", wanted, base);
	lapic_find_mode(cpu);
}

/* What the registers hold between scenarios, but for those that have the CPU's number in them. */
static const struct {
	u16 offset;
	const char *name;
	u32 value;
} quiet[] = {
	{ LAPIC_SVR, "lapic.svr", SVR_ENABLED },
	{ LAPIC_LVT_TIMER, "lapic.lvt_timer", LVT_MASKED },
	{ LAPIC_LVT_LINT0, "lapic.lvt_lint0", LVT_MASKED },
	{ LAPIC_LVT_LINT1, "lapic.lvt_lint1", LVT_MASKED },
	{ LAPIC_LVT_ERROR, "lapic.lvt_error", LVT_MASKED },
	{ LAPIC_LVT_THERMAL, "lapic.lvt_thermal", LVT_MASKED },
	{ LAPIC_LVT_PMC, "lapic.lvt_perf", LVT_MASKED },
	{ LAPIC_TIMER_INITIAL, "lapic.timer_initial", 0 },
	{ LAPIC_TIMER_DIVIDE, "lapic.timer_divide", 0 },
	{ LAPIC_TPR, "lapic.tpr", 0 },
	{ LAPIC_DFR, "lapic.dfr", 0xffffffff },
	{ LAPIC_ESR, "lapic.esr", 0 },
};

/* Written only where it reads differently, and then read back. */
static void restore(struct cpu *cpu, u32 offset, u32 value, const char *name)
{
	u32 found;

	if (!(cpu->apic_touched & register_bit(offset)))
		return;
	found = lapic_read(cpu, offset);
	if (found == value)
		return;
	note_found(cpu, name, value, found);
	lapic_write(cpu, offset, value);
	found = lapic_read(cpu, offset);
	if (found != value)
		log_dirty(cpu, name, value, found);
}

/* To nobody, so that the command reads as if none had been given. */
void lapic_restore_command(struct cpu *cpu)
{
	if (!(cpu->apic_touched & (register_bit(LAPIC_ICR) | register_bit(LAPIC_ICR2))) ||
	    (!lapic_read(cpu, LAPIC_ICR) && !lapic_read(cpu, LAPIC_ICR2)))
		return;
	note_found(cpu, "lapic.icr", 0, lapic_read(cpu, LAPIC_ICR));
	lapic_try_write(cpu, LAPIC_ICR, 0, NOBODY << 24);
	cpu->apic_touched |= register_bit(LAPIC_ICR2);
	restore(cpu, LAPIC_ICR2, 0, "lapic.icr2");
	if (lapic_read(cpu, LAPIC_ICR))
		log_dirty(cpu, "lapic.icr", 0, lapic_read(cpu, LAPIC_ICR));
}

/* All of a map's bits together; those of the first vectors are in the lowest word. */
static u32 bits_in(const u32 *map)
{
	u32 all = 0;

	for (u32 word = 0; word < MAP_WORDS; word++)
		all |= map[word];
	return all;
}

static u32 bit_count(u32 word)
{
	u32 count = 0;

	for (; word; word &= word - 1)
		count++;
	return count;
}

/*
 * With `draining` each vector that comes in is dismissed.  A KVM that emulates its guests lets one
 * in some instructions after it could have.
 */
static void let_in(const struct cpu *cpu, u32 pending)
{
	u32 before = cpu->dismissed;

	enable_interrupts();
	for (u32 round = 0; round < LET_IN_ROUNDS; round++) {
		cpuid(0);
		if (cpu->dismissed - before >= pending)
			break;
	}
	disable_interrupts();
}

/* A vector's TMR bit is written when it is accepted: send oneself the edge of each that is set. */
static void clear_tmr(struct cpu *cpu, const u32 *tmr)
{
	for (u32 word = 0; word < MAP_WORDS; word++) {
		u32 left = tmr[word];

		if (!word)
			left &= ~0u << FIRST_VECTOR;
		for (; left; left &= left - 1) {
			lapic_note_write(cpu, LAPIC_ICR);
			lapic_write(cpu, LAPIC_ICR,
				    ICR_SELF | ICR_ASSERT | (word * 32 + lowest_bit(left)));
			let_in(cpu, 1);
		}
	}
}

static void restore_maps(struct cpu *cpu)
{
	u32 irr[MAP_WORDS], isr[MAP_WORDS], tmr[MAP_WORDS], pending = 0;

	lapic_read_maps(cpu, irr, isr, tmr);
	if (!bits_in(irr) && !bits_in(isr) && !bits_in(tmr))
		return;
	note_found(cpu, "lapic.maps", 0, bits_in(irr) | bits_in(isr) | bits_in(tmr));
	for (u32 word = 0; word < MAP_WORDS; word++) {
		cpu->entered_words |= (u32)!!(irr[word] | isr[word] | tmr[word]) << word;
		pending += bit_count(word ? irr[word] : irr[word] & ~0u << FIRST_VECTOR);
		for (u32 left = isr[word]; left; left &= left - 1)
			lapic_write(cpu, LAPIC_EOI, 0);
	}
	let_in(cpu, pending);
	clear_tmr(cpu, tmr);
	lapic_read_maps(cpu, irr, isr, tmr);
	if (bits_in(isr))
		log_dirty(cpu, "lapic.isr", 0, bits_in(isr));
	if (bits_in(tmr))
		log_dirty(cpu, "lapic.tmr", 0, bits_in(tmr));
	if (bits_in(irr))
		log_dirty(cpu, "lapic.irr", 0, bits_in(irr));
}

/* A HLT that is over before it begins, its interrupt dismissed, and with it what KVM kept for one. */
static void sleep_once(struct cpu *cpu)
{
	lapic_note_write(cpu, LAPIC_ICR);
	lapic_write(cpu, LAPIC_ICR, ICR_SELF | ICR_ASSERT | FIRST_USUAL_VECTOR);
	asm volatile("sti\n\thlt\n\tcli" : : : "memory");
}

/*
 * QEMU's INTR stays up where LINT0 was masked with a request of the PIC pending, and TCG would take
 * it as vector -1.  A write of TPR makes it look again (hw/intc/apic.c, apic_update_irq).
 */
static void drop_intr(const struct cpu *cpu)
{
	if (cpu->apic_touched & register_bit(LAPIC_LVT_LINT0))
		lapic_write(cpu, LAPIC_TPR, 0);
}

void lapic_reset(struct cpu *cpu)
{
	disable_interrupts();
	reset_base(cpu);
	for (u32 i = 0; i < ARRAY_SIZE(quiet); i++)
		restore(cpu, quiet[i].offset, quiet[i].value, quiet[i].name);
	drop_intr(cpu);
	restore(cpu, LAPIC_ID, cpu->id << 24, "lapic.id");
	restore(cpu, LAPIC_LDR, 1u << cpu->id << 24, "lapic.ldr");
	restore_maps(cpu);
	if (touched.unhalt)
		sleep_once(cpu);
	lapic_restore_command(cpu);
	cpu->apic_touched = 0;
	cpu->entered_words = 0;
}
