/*
 * A compiled scenario, as the multiboot module holds it: little-endian words.
 * harness/scenario/program.py is the same in Python, and says what each operation does.
 */
#ifndef PROGRAM_H
#define PROGRAM_H

#include "x86.h"

#define PROGRAM_MAGIC 0x50515249u
#define PROGRAM_FORMAT 1u

enum opcode {
	OP_MMIO_WRITE = 1,
	OP_MMIO_READ,
	OP_PIO_WRITE,
	OP_PIO_READ,
	OP_MSR_WRITE,
	OP_MSR_READ,
	OP_LAPIC_WRITE,
	OP_LAPIC_READ,
	OP_IOAPIC_WRITE,
	OP_IOAPIC_READ,
	OP_LINE,
	OP_MSI,
	OP_STI,
	OP_CLI,
	OP_HLT,
	OP_EOI,
	OP_WAIT,
	OP_DELAY,
	OP_AWAIT,
	OP_OFFLINE,
	OP_PARALLEL,
	OP_CR8_WRITE,
	OP_PV_IPI,
	OP_MONITOR,
	OPCODES,
};

enum op_flag {
	OP_SETTLE = 1,
	OP_IN_SERVICE = 2,
	OP_BY_RESET = 4,
	OP_UNLOGGED = 8,
};

#define ANY_VECTOR 0x100u
/* A handler of NMIs: no vector of an interrupt. */
#define NMI_ENTRY 0x101u

struct op {
	u8 opcode, cpu, target, flags;
	u8 size, step;
	u16 unused;
	u32 a, b, c;
};

enum block_index {
	PROLOGUE,
	MAIN,
};

struct block {
	u32 first, count;
};

enum detail {
	DETAIL_FULL,
	DETAIL_SHORT,
	DETAIL_COUNT,
	DETAIL_NONE,
};

#define NO_BLOCK 0xffffffffu
#define DEFAULT_LIMIT 32u

struct handler {
	u32 vector, block, detail, pins, limit, first_times, first_block, unused;
};

/* In the order of harness.scenario.program.Feature's bits. */
enum feature {
	FEATURE_X2APIC,
	FEATURE_TSC_DEADLINE,
	FEATURE_MSI,
	FEATURE_LINES,
	FEATURE_IOAPIC2,
	FEATURE_PIC,
	FEATURE_PIT,
	FEATURE_CR8,
	FEATURE_HPET,
	FEATURE_RTC,
	FEATURE_KVM_APIC,
	FEATURE_HYPERV,
	FEATURE_MONITOR,
	FEATURE_LINES2,
	FEATURES,
};

/* blocks, handlers and operations follow in this order. */
struct program {
	u32 words, cpus, needs, blocks, handlers, ops;
};

struct program_file {
	u32 magic, format, programs, words;
	struct program first[];
};

static inline const struct block *blocks_of(const struct program *program)
{
	return (const struct block *)(program + 1);
}

static inline const struct handler *handlers_of(const struct program *program)
{
	return (const struct handler *)(blocks_of(program) + program->blocks);
}

static inline const struct op *ops_of(const struct program *program)
{
	return (const struct op *)(handlers_of(program) + program->handlers);
}

static inline const struct program *program_after(const struct program *program)
{
	return (const struct program *)((const u32 *)program + program->words);
}

#endif
