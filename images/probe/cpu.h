/* The CPUs: what is known of each, and how CPU 0 has the others do something. */
#ifndef CPU_H
#define CPU_H

#include "program.h"
#include "segments.h"

enum apic_mode {
	APIC_OFF,
	APIC_XAPIC,
	APIC_X2APIC,
};

#define NOT_HANDLING ANY_VECTOR

/* Where go_back() goes back to. */
struct mark {
	u32 registers[6];
};

struct cpu {
	u32 id;

	/* The mailbox: CPU 0 counts `asked` up, the CPU does the errand and makes `answered` equal. */
	volatile u32 asked, answered;
	void (*errand)(struct cpu *cpu);
	const struct op *ops;
	u32 op_count;

	/* In HLT; after `wakes_at` (on the time stamp counter) somebody has to wake it. */
	volatile bool asleep;
	volatile u64 wakes_at;
	u32 rung;
	bool overslept;
	bool disturbed;
	/* About to get an INIT, until it has come up again. */
	volatile bool offline;
	/* It had an exception, or does not answer any more. */
	volatile bool faulted;

	/* While it sleeps or is offline its events are those of the step that sent it there. */
	bool pinned;
	u8 pinned_step;

	/* Handlers under way: the innermost one's vector, and how many there are. */
	u32 handling;
	u32 depth;
	/* Vectors that came in while they are only let in (`draining`). */
	volatile u32 dismissed;
	/* Entries since the scenario began; the last one is the sum. */
	volatile u32 entries[NMI_ENTRY + 1];
	struct mark before_fault;

	enum apic_mode apic_mode;
	u32 apic_base;
	/* Registers of its local APIC that may have changed: bit n for offset 16 n, 0 for its base. */
	u64 apic_touched;
	/* Words of ISR in which vectors were entered. */
	u32 entered_words;

	/* Turns given in vain (give_turn()). */
	u32 looked, given;

	u32 log_used;
	bool log_full;
};

extern struct cpu cpus[MAX_CPUS];
extern u32 cpu_count;
extern bool returns_far;
/* Whether an access of a local APIC is an exit to user space, and a string instruction many. */
extern bool each_access_exits;

int mark(struct mark *mark) __attribute__((returns_twice));
_Noreturn void go_back(struct mark *mark);

struct cpu *this_cpu(void);

/* Once, on CPU 0: count the CPUs, see whether KVM runs them, and start the others. */
void find_cpus(void);
/* INIT and SIPI for one that does not answer any more; true once it is up. */
bool restart_cpu(struct cpu *cpu);
/* The same for all but CPU 0, whatever their APIC IDs are by now. */
bool restart_others(void);

/* INIT for CPU 0 itself, which comes back by way of the firmware; false where it does not know how. */
bool restart_self(void);

/* Have a CPU do something, and go on. */
void ask(struct cpu *cpu, void (*errand)(struct cpu *cpu));
/* Until it has done so; false where it went to sleep, is offline, or takes too long. */
bool answered(struct cpu *cpu);
/* Whether it can be asked at all. */
bool is_there(const struct cpu *cpu);

/* For all loops that wait: wakes CPUs that overslept. */
void stay_awake(void);
/* A hint that it is that CPU which is waited for; oneself: all others, in turn. */
void give_turn(u32 id);
/* The live chips' timers expire late where their host is busy, but no later than at an exit. */
void catch_up(void);

/* KVM_HC_SEND_IPI: an ICR's low word to a bitmap of APIC IDs from first on; what it returns. */
u32 send_pv_ipi(u32 bitmap, u32 first, u32 icr);
bool has_pv_ipi(void);

/* And enter it again: what is pending is taken then.  Without KVM's local APIC QEMU has to see it. */
void leave_guest(void);

/* The MSRs of the local APIC as Hyper-V has them. */
bool has_hyperv(void);

#endif
