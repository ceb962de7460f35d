#include "trap.h"
#include "clock.h"
#include "console.h"
#include "ioapic.h"
#include "lapic.h"
#include "log.h"
#include "ops.h"

#define VECTORS 256
#define EXCEPTIONS 32
#define STUB_BYTES 16
#define INTERRUPT_GATE 0x8e00
#define NMI 2
#define GENERAL_PROTECTION 13
/* Vectors that push an error code as exceptions (SDM volume 3A, "Exception and Interrupt Reference"). */
#define WITH_ERROR_CODE (1u << 8 | 0x1fu << 10 | 1u << 17 | 1u << 21 | 3u << 29)
#define DEEPEST 200

/* As PUSHA and the stubs of entry.S leave it: words are an error code or none, EIP, CS, EFLAGS. */
struct trap_frame {
	u32 registers[8];
	u32 vector;
	u32 words[4];
};

enum return_word {
	RETURN_EIP,
	RETURN_CS,
	RETURN_EFLAGS,
};

extern const u8 vector_stubs[], read_msr_faults[], write_msr_faults[], msr_fault[];

bool returns_far;
volatile bool draining;

static u64 gates[VECTORS];

/* What a vector without a handler of its own gets; the block is none of the program's. */
static const struct handler spare = { .vector = ANY_VECTOR, .block = NO_BLOCK, .limit = DEFAULT_LIMIT };
static const struct op spare_ops[] = { { .opcode = OP_EOI, .flags = OP_IN_SERVICE } };
static const struct handler *handlers[VECTORS], *of_nmis;
static const struct program *running;

void make_vectors(void)
{
	for (u32 vector = 0; vector < VECTORS; vector++) {
		u32 stub = (u32)vector_stubs + vector * STUB_BYTES;

		gates[vector] = (u64)(stub & 0xffff0000u) << 32 | (u64)INTERRUPT_GATE << 32 |
				CODE_SEGMENT << 16 | (stub & 0xffff);
	}
}

void load_vectors(void)
{
	struct {
		u16 limit;
		const void *base;
	} __attribute__((packed)) table = { sizeof(gates) - 1, gates };

	asm volatile("lidt %0" : : "m"(table));
}

void set_handlers(const struct program *program)
{
	const struct handler *any = &spare, *own = handlers_of(program);

	running = program;
	of_nmis = NULL;
	for (u32 i = 0; i < program->handlers; i++) {
		if (own[i].vector == ANY_VECTOR)
			any = &own[i];
		if (own[i].vector == NMI_ENTRY)
			of_nmis = &own[i];
	}
	for (u32 vector = 0; vector < VECTORS; vector++)
		handlers[vector] = any;
	for (u32 i = 0; i < program->handlers; i++)
		if (own[i].vector < VECTORS)
			handlers[own[i].vector] = &own[i];
}

const struct handler *handler_of(u32 vector)
{
	return handlers[vector];
}

static void log_entry(struct cpu *cpu, u32 vector, u32 pins)
{
	u32 words[1 + STATE_WORDS + 3 * 32], count = 0;
	bool is_off = cpu->apic_mode == APIC_OFF;

	words[count++] = vector;
	if (!is_off)
		lapic_read_maps(cpu, words + 1, words + 1 + MAP_WORDS, words + 1 + 2 * MAP_WORDS);
	count += is_off ? 0 : STATE_WORDS;
	for (; pins; pins &= pins - 1) {
		u32 pin = lowest_bit(pins);

		words[count++] = pin;
		ioapic_read_entry(0, pin, words + count);
		count += 2;
	}
	log_words(cpu, is_off ? EVENT_IRQ_APIC_OFF : EVENT_IRQ_STATE, words, count);
}

static void run_handler(struct cpu *cpu, const struct handler *handler, u32 entries)
{
	u32 index = handler->block;
	const struct block *block;

	if (handler == &spare) {
		execute(cpu, spare_ops, ARRAY_SIZE(spare_ops));
		return;
	}
	if (handler->first_block != NO_BLOCK && entries <= handler->first_times)
		index = handler->first_block;
	block = &blocks_of(running)[index];
	execute(cpu, ops_of(running) + block->first, block->count);
}

static void interrupt(struct cpu *cpu, u32 vector, u32 *frame)
{
	const struct handler *handler = handlers[vector];
	u32 entries = ++cpu->entries[vector], outer = cpu->handling;

	cpu->entries[ANY_VECTOR]++;
	cpu->entered_words |= 1u << vector / 32;
	if (entries > handler->limit || cpu->depth == DEEPEST) {
		if (entries == handler->limit + 1 || cpu->depth == DEEPEST)
			log_event(cpu, EVENT_CUT, vector, entries);
		frame[RETURN_EFLAGS] &= ~EFLAGS_IF;
		return;
	}
	if (handler->detail == DETAIL_FULL)
		log_entry(cpu, vector, handler->pins);
	else if (handler->detail == DETAIL_SHORT)
		log_event(cpu, EVENT_IRQ, vector);
	cpu->handling = vector;
	cpu->depth++;
	run_handler(cpu, handler, entries);
	disable_interrupts();
	cpu->depth--;
	cpu->handling = outer;
}

static bool overslept(const struct cpu *cpu)
{
	return cpu->asleep && !cpu->pinned && is_past(cpu->wakes_at);
}

/* Until the IRET at its end, or one before, the CPU takes no other NMI. */
static void handle_nmi(struct cpu *cpu)
{
	u32 entries = ++cpu->entries[NMI_ENTRY];

	if (entries > of_nmis->limit)
		return;
	run_handler(cpu, of_nmis, entries);
	disable_interrupts();
}

/* The one that wakes a CPU which slept too long, or an NMI like any other. */
static void nmi(struct cpu *cpu)
{
	if (overslept(cpu))
		cpu->overslept = true;
	else if (overslept(&cpus[0]))
		cpu->disturbed = true;
	else {
		log_plain(cpu, EVENT_NMI);
		if (of_nmis)
			handle_nmi(cpu);
	}
}

static void exception(struct cpu *cpu, u32 vector, u32 error, const u32 *frame)
{
	if (cpu->faulted)
		give_up("an exception at", frame[RETURN_EIP]);
	log_event(cpu, EVENT_FAULT, vector, error, frame[RETURN_EIP], frame[RETURN_CS],
		  frame[RETURN_EFLAGS], cr2());
	cpu->faulted = true;
	cpu->depth = 0;
	cpu->handling = NOT_HANDLING;
	go_back(&cpu->before_fault);
}

static void dismiss(struct cpu *cpu)
{
	cpu->dismissed++;
	lapic_write(cpu, LAPIC_EOI, 0);
}

/* An interrupt may have any vector: below 32 it is one if somebody asked for it. */
static bool is_exception(const struct cpu *cpu, u32 vector)
{
	bool is_awaited = running && handlers[vector]->vector == vector;

	return vector < EXCEPTIONS && !(WITH_ERROR_CODE >> vector & 1) && !is_awaited &&
	       !(cpu->apic_mode != APIC_OFF && lapic_has(cpu, LAPIC_ISR, vector));
}

/* From entry.S: where EIP, CS and EFLAGS of the frame lie. */
u32 *trap(struct trap_frame *frame)
{
	struct cpu *cpu = this_cpu();
	u32 vector = frame->vector;
	bool has_error = frame->words[RETURN_CS] != CODE_SEGMENT;
	u32 *back = frame->words + has_error;
	u32 eip = back[RETURN_EIP];

	if (has_error && vector == GENERAL_PROTECTION &&
	    (eip == (u32)read_msr_faults || eip == (u32)write_msr_faults))
		back[RETURN_EIP] = (u32)msr_fault;
	else if (has_error)
		exception(cpu, vector, frame->words[0], back);
	else if (draining)
		dismiss(cpu);
	else if (!is_exception(cpu, vector))
		interrupt(cpu, vector, back);
	else if (vector == NMI)
		nmi(cpu);
	else
		exception(cpu, vector, 0, back);
	return back;
}
