#include "log.h"
#include "console.h"

#define LOG_SHIFT 20
#define LOG_WORDS (1u << (LOG_SHIFT - 2))

extern u32 log_buffers[MAX_CPUS][LOG_WORDS];

volatile u8 current_step;

static const char *const names[EVENTS] = {
	[EVENT_READ] = "read",
	[EVENT_GP] = "gp",
	[EVENT_IRQ] = "irq",
	[EVENT_IRQ_STATE] = "irq",
	[EVENT_IRQ_APIC_OFF] = "irq",
	[EVENT_CUT] = "cut",
	[EVENT_COUNT] = "count",
	[EVENT_NMI] = "nmi",
	[EVENT_FAULT] = "fault",
	[EVENT_TIMEOUT] = "timeout",
	[EVENT_WOKE] = "woke",
	[EVENT_ASLEEP] = "asleep",
	[EVENT_UP] = "up",
	[EVENT_DIRTY] = "dirty",
	[EVENT_SKIP] = "skip",
	[EVENT_UNSETTLED] = "unsettled",
};

/* An event's first word. */
static u32 head(enum event event, u8 step, u32 count)
{
	return event | step << 8 | count << 16;
}

void log_words(struct cpu *cpu, enum event event, const u32 *words, u32 count)
{
	u8 step = cpu->pinned ? cpu->pinned_step : current_step;
	u32 at;

	if (cpu->log_full || cpu->log_used + count + 1 > LOG_WORDS) {
		cpu->log_full = true;
		return;
	}
	/* Its place first: an NMI may come in between. */
	at = fetch_and_add(&cpu->log_used, count + 1);
	log_buffers[cpu->id][at] = head(event, step, count);
	for (u32 word = 0; word < count; word++)
		log_buffers[cpu->id][at + 1 + word] = words[word];
}

void log_dirty(struct cpu *cpu, const char *what, u32 expected, u32 found)
{
	log_event(cpu, EVENT_DIRTY, (u32)what, expected, found);
}

void log_clear(void)
{
	for (u32 id = 0; id < cpu_count; id++) {
		cpus[id].log_used = 0;
		cpus[id].log_full = false;
	}
}

bool log_has(enum event event)
{
	for (u32 id = 0; id < cpu_count; id++) {
		const u32 *at = log_buffers[id], *end = at + cpus[id].log_used;

		for (; at < end; at += (*at >> 16) + 1)
			if ((*at & 0xff) == event)
				return true;
	}
	return false;
}

static void say_word(u64 number)
{
	say_char(' ');
	say_hex(number);
}

static void say_words(const u32 *words, const u32 *end)
{
	while (words < end)
		say_word(*words++);
}

/* The vectors of 256 bits, the highest first. */
static void say_vectors(const u32 *map)
{
	const char *before = "";

	say_char(' ');
	for (int word = 7; word >= 0; word--) {
		for (u32 left = map[word]; left;) {
			u32 bit = highest_bit(left);

			say(before);
			say_hex(word * 32 + bit);
			before = ",";
			left &= ~(1u << bit);
		}
	}
	if (!*before)
		say_char('-');
}

static void say_entries(const u32 *words, const u32 *end)
{
	for (; words < end; words += 3) {
		say_word(words[0]);
		say_char('=');
		say_hex((u64)words[2] << 32 | words[1]);
	}
}

static void say_arguments(enum event event, const u32 *words, const u32 *end)
{
	switch (event) {
	case EVENT_READ:
		say_word((u64)words[1] << 32 | words[0]);
		break;
	case EVENT_IRQ_STATE:
		say_word(words[0]);
		for (u32 map = 0; map < 3; map++)
			say_vectors(words + 1 + 8 * map);
		say_entries(words + 1 + STATE_WORDS, end);
		break;
	case EVENT_IRQ_APIC_OFF:
		say_word(words[0]);
		say(" ? ? ?");
		say_entries(words + 1, end);
		break;
	case EVENT_DIRTY:
	case EVENT_SKIP:
		say_char(' ');
		say((const char *)words[0]);
		say_words(words + 1, end);
		break;
	default:
		say_words(words, end);
	}
}

static void say_event(const struct cpu *cpu, const u32 *words)
{
	say_hex(words[0] >> 8 & 0xff);
	say_word(cpu->id);
	say_char(' ');
	say(names[words[0] & 0xff]);
	say_arguments(words[0] & 0xff, words + 1, words + 1 + (words[0] >> 16));
	say_char('\n');
}

void log_say(void)
{
	for (u32 id = 0; id < cpu_count; id++) {
		const u32 *at = log_buffers[id], *end = at + cpus[id].log_used;

		for (; at < end; at += (*at >> 16) + 1)
			say_event(&cpus[id], at);
		if (cpus[id].log_full) {
			say_hex(current_step);
			say_word(id);
			say(" full\n");
		}
	}
}
