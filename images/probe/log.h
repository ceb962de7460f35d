/* What a CPU saw, kept in memory until the scenario has ended (harness/scenario/log.py). */
#ifndef LOG_H
#define LOG_H

#include "cpu.h"

enum event {
	EVENT_READ,		/* low, high */
	EVENT_GP,
	EVENT_IRQ,		/* vector */
	EVENT_IRQ_STATE,	/* vector, 8 words of IRR, ISR and TMR each; (pin, low, high)... */
	EVENT_IRQ_APIC_OFF,	/* vector; (pin, low, high)... */
	EVENT_CUT,		/* vector, entries */
	EVENT_COUNT,		/* vector, entries */
	EVENT_NMI,
	EVENT_FAULT,		/* vector, error, eip, cs, eflags, cr2 */
	EVENT_TIMEOUT,		/* entries */
	EVENT_WOKE,
	EVENT_ASLEEP,
	EVENT_UP,		/* page */
	EVENT_DIRTY,		/* what (a string), expected, found */
	EVENT_SKIP,		/* feature (a string) */
	EVENT_UNSETTLED,
	EVENTS,
};

#define STATE_WORDS 24
#define STEP_RESET 0xff

extern volatile u8 current_step;

void log_words(struct cpu *cpu, enum event event, const u32 *words, u32 count);

#define log_event(cpu, event, ...)                                                      \
	log_words(cpu, event, (const u32[]){ __VA_ARGS__ },                             \
		  sizeof((const u32[]){ __VA_ARGS__ }) / sizeof(u32))

static inline void log_plain(struct cpu *cpu, enum event event)
{
	log_words(cpu, event, NULL, 0);
}

void log_dirty(struct cpu *cpu, const char *what, u32 expected, u32 found);

void log_clear(void);
bool log_has(enum event event);
/* All of it as text, CPU by CPU. */
void log_say(void);

#endif
