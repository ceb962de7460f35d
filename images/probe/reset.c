/*
 * Restores what a scenario has changed, and reads back that it worked.  A CPU that does not answer
 * any more, or whose local APIC keeps something, gets an INIT.
 */
#include "reset.h"
#include "devices.h"
#include "ioapic.h"
#include "lapic.h"
#include "log.h"
#include "ops.h"
#include "touched.h"
#include "trap.h"

#define PROOF_VECTOR 0x20

static void forget(struct cpu *cpu)
{
	cpu->pinned = cpu->asleep = cpu->faulted = false;
	cpu->handling = NOT_HANDLING;
	cpu->depth = 0;
	memset((void *)cpu->entries, 0, sizeof(cpu->entries));
}

/* Those that do not answer: each by its ID, or where that may be another one all of them. */
static void bring_back_others(void)
{
	bool is_lost = false;

	for (u32 id = 1; id < cpu_count; id++) {
		struct cpu *cpu = &cpus[id];

		if (!is_there(cpu) || !answered(cpu))
			is_lost |= lapic_is_renamed(cpu) || !restart_cpu(cpu);
	}
	if (is_lost)
		restart_others();
}

/* False where a local APIC keeps something, or a CPU does not come back. */
static bool ask_others(void)
{
	bool are_clean = true;

	for (u32 id = 1; id < cpu_count; id++) {
		forget(&cpus[id]);
		cpus[id].log_used = 0;
		ask(&cpus[id], lapic_reset);
	}
	for (u32 id = 1; id < cpu_count; id++) {
		if (cpus[id].offline || !answered(&cpus[id]))
			log_dirty(&cpus[id], "cpu", id, 0);
		are_clean &= !cpus[id].log_used;
	}
	return are_clean;
}

static void reset_others(void)
{
	bring_back_others();
	if (!ask_others() && !proving && restart_others())
		ask_others();
}

/*
 * KVM gives the RTC's pin nothing while it takes its last interrupt as not ended, and counts some
 * that no EOI will be for (arch/x86/kvm/ioapic.c, rtc_irq_check_coalesced).  Only a reset of the
 * machine brings the pin back: that is for those who need it.  Everything else is at rest by now.
 */
static void prove_rtc(struct cpu *cpu)
{
	if (!touched.rtc)
		return;
	ioapic_write(0, IOAPIC_ENTRY(RTC_GSI), PROOF_VECTOR);
	lines_drive(RTC_GSI, true);
	if (touched.lines && !lapic_has(cpu, LAPIC_IRR, PROOF_VECTOR))
		log_dirty(cpu, "rtc.pin", true, false);
	lines_reset();
	ioapic_reset();
	pic_reset();
	cpu->entered_words |= 1u << PROOF_VECTOR / 32;
	lapic_reset(cpu);
	touched.rtc = false;
}

bool reset_all(const struct program *next)
{
	struct cpu *cpu = &cpus[0];
	u32 so_far;

	disable_interrupts();
	draining = true;
	current_step = STEP_RESET;
	log_clear();
	forget(cpu);
	ioapic_unlock();
	if (proving)
		pic_prove();
	hpet_reset();
	rtc_reset();
	lines_reset();
	edu_reset();
	/* The timer's line has to fall before its entry becomes an edge: QEMU's would be taken. */
	if (touched.pit)
		ioapic_mask();
	pit_reset();
	ioapic_reset();
	pic_reset();
	so_far = cpu->log_used;
	lapic_reset(cpu);
	if (cpu->log_used != so_far && !proving && !is_microvm && restart_self()) {
		cpu->log_used = so_far;
		lapic_reset(cpu);
	}
	reset_others();
	lapic_restore_command(cpu);
	if (next && drives_rtc(next))
		prove_rtc(cpu);
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
