/* The local APIC of the CPU that calls, in whichever mode it is (SDM volume 3A, "APIC"). */
#ifndef LAPIC_H
#define LAPIC_H

#include "cpu.h"

/* Where the local APICs are after a reset, and where messages go (SDM volume 3A, "Message Signalled Interrupts"). */
#define LAPIC_WINDOW 0xfee00000u

enum lapic_register {
	LAPIC_ID = 0x20,
	LAPIC_VERSION = 0x30,
	LAPIC_TPR = 0x80,
	LAPIC_EOI = 0xb0,
	LAPIC_LDR = 0xd0,
	LAPIC_DFR = 0xe0,
	LAPIC_SVR = 0xf0,
	LAPIC_ISR = 0x100,
	LAPIC_TMR = 0x180,
	LAPIC_IRR = 0x200,
	LAPIC_ESR = 0x280,
	LAPIC_LVT_CMCI = 0x2f0,
	LAPIC_ICR = 0x300,
	LAPIC_ICR2 = 0x310,
	LAPIC_LVT_TIMER = 0x320,
	LAPIC_LVT_THERMAL = 0x330,
	LAPIC_LVT_PMC = 0x340,
	LAPIC_LVT_LINT0 = 0x350,
	LAPIC_LVT_LINT1 = 0x360,
	LAPIC_LVT_ERROR = 0x370,
	LAPIC_TIMER_INITIAL = 0x380,
	LAPIC_TIMER_CURRENT = 0x390,
	LAPIC_TIMER_DIVIDE = 0x3e0,
};

#define MSR_APIC_BASE 0x1b
#define MSR_TSC_DEADLINE 0x6e0
#define MSR_X2APIC 0x800

#define ICR_NMI (4 << 8)
#define ICR_INIT (5 << 8)
#define ICR_SIPI (6 << 8)
#define ICR_ASSERT (1 << 14)
#define ICR_SELF (1 << 18)
#define ICR_OTHERS (3 << 18)

/* What mode it is in: to be called after whatever may have changed it. */
void lapic_find_mode(struct cpu *cpu);

/* False: a general protection fault, which only x2APIC mode has. */
bool lapic_try_read(const struct cpu *cpu, u32 offset, u64 *value);
bool lapic_try_write(const struct cpu *cpu, u32 offset, u32 low, u32 high);

u32 lapic_read(const struct cpu *cpu, u32 offset);
void lapic_write(const struct cpu *cpu, u32 offset, u32 value);
/* A bit of ISR, TMR or IRR. */
bool lapic_has(const struct cpu *cpu, u32 offset, u32 vector);
void lapic_send(const struct cpu *cpu, u32 destination, u32 command);

/* What the program does: which registers will have to be looked at. */
void lapic_note_write(struct cpu *cpu, u32 offset);
void lapic_note_read(struct cpu *cpu);
void lapic_distrust(struct cpu *cpu);
/* Whether it may have another ID than the CPU's number. */
bool lapic_is_renamed(const struct cpu *cpu);

/*
 * IRR, ISR and TMR, of each the words that may have a bit set: an access is dear, and vectors come
 * from somewhere.  `vector_words` are those that the program names.
 */
#define MAP_WORDS 8
#define ALL_WORDS 0xffu
extern u32 vector_words;
void lapic_read_maps(const struct cpu *cpu, u32 *irr, u32 *isr, u32 *tmr);

/* After a scenario: as at its start, each CPU for itself; logs what cannot be brought back. */
void lapic_reset(struct cpu *cpu);
/* Again, where something was sent since. */
void lapic_restore_command(struct cpu *cpu);

#endif
