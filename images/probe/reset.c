/*
 * Restores what a scenario has changed, and reads back that it worked.  A CPU that does not answer
 * any more, or whose local APIC keeps something, gets an INIT.
 */
#include "reset.h"
#include "devices.h"
#include "ioapic.h"
#include "lapic.h"
#include "log.h"
#include "touched.h"
#include "trap.h"

static void forget(struct cpu *cpu)
{
	cpu->pinned = cpu->asleep = cpu->faulted = false;
	cpu->handling = NOT_HANDLING;
	cpu->depth = 0;
	memset((void *)cpu->entries, 0, sizeof(cpu->entries));
}

static void reset_others(void)
{
	for (u32 id = 1; id < cpu_count; id++) {
		struct cpu *cpu = &cpus[id];

		if (!is_there(cpu) || !answered(cpu))
			restart_cpu(cpu);
		forget(cpu);
		cpu->log_used = 0;
		ask(cpu, lapic_reset);
	}
	for (u32 id = 1; id < cpu_count; id++) {
		struct cpu *cpu = &cpus[id];

		answered(cpu);
		if (!cpu->log_used || !restart_cpu(cpu))
			continue;
		cpu->log_used = 0;
		ask(cpu, lapic_reset);
		answered(cpu);
	}
}

bool reset_all(void)
{
	struct cpu *cpu = &cpus[0];

	disable_interrupts();
	draining = true;
	current_step = STEP_RESET;
	log_clear();
	forget(cpu);
	ioapic_unlock();
	lines_reset();
	edu_reset();
	ioapic_reset(cpu);
	pit_reset();
	pic_reset(cpu);
	lapic_reset(cpu);
	if (log_has(EVENT_DIRTY) && restart_self()) {
		log_clear();
		lapic_reset(cpu);
	}
	reset_others();
	draining = false;
	touched.unhalt = false;
	return !log_has(EVENT_DIRTY);
}

void reset_distrust(void)
{
	devices_distrust();
	ioapic_distrust();
	vector_words = ALL_WORDS;
	for (u32 id = 0; id < cpu_count; id++)
		lapic_distrust(&cpus[id]);
}
