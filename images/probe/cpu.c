#include "cpu.h"
#include "accesses.h"
#include "clock.h"
#include "console.h"
#include "lapic.h"
#include "log.h"
#include "trap.h"

/* QEMU's fw_cfg (docs/specs/fw_cfg.rst): how many CPUs there are. */
#define FW_CFG_SELECT 0x510
#define FW_CFG_DATA 0x511
#define FW_CFG_CPUS 0x05

/* What a PC's firmware does after an INIT of CPU 0: go on where this far pointer says. */
#define CMOS_INDEX 0x70
#define CMOS_DATA 0x71
#define CMOS_SHUTDOWN 0x8f
#define SHUTDOWN_JUMP 0x0a
#define SHUTDOWN_POINTER 0x467

#define CPUID_HYPERVISOR 0x40000000
/* "KVMKVMKVM" and "Genu"; KVM_HC_SCHED_YIELD takes an APIC ID. */
#define KVM_SIGNATURE_B 0x4b4d564b
#define KVM_SIGNATURE_C 0x564b4d56
#define KVM_SIGNATURE_D 0x4d
/* "Microsoft Hv", the middle of it; HV_APIC_ACCESS_AVAILABLE (TLFS, "Feature Identification"). */
#define HYPERV_SIGNATURE_C 0x666f736f
#define HYPERV_HAS_APIC_MSRS (1u << 4)
#define VENDOR_B_INTEL 0x756e6547
#define KVM_HC_SEND_IPI 10
#define KVM_HC_SCHED_YIELD 11

/* The live chips' VMM: who waits leaves its guest (userspace_chip/kvm/devices/turns.py). */
#define TURN_PORT 0x2104
#define LATE_PORT 0x2105
#define NO_TURNS 0xff
/* KVM has no local APICs there, and does not know for whom its hypercall is. */
#define TURNS_AT_ONCE 1

#define PAGE_SHIFT 12
/* The host may have a lot to do. */
#define START_TIMEOUT_US 5000000
/* Of a timer that is always late. */
#define CATCH_UP_ROUNDS 200
/* Every operation has a bound of its own; what takes longer than this is lost. */
#define ANSWER_TIMEOUT_US 20000000

extern u8 stacks[];
extern const u8 sipi_start[], sipi_end[];

struct cpu cpus[MAX_CPUS];
u32 cpu_count = 1;

struct cpu *this_cpu(void)
{
	u32 stack;

	asm volatile("movl %%esp, %0" : "=r"(stack));
	return &cpus[(stack - (u32)stacks) >> STACK_SHIFT];
}

/*
 * Where the host has fewer CPUs than we, a loop that waits takes the time of the CPU that it waits
 * for, and not every KVM notices PAUSE.  The hypercall (Documentation/virt/kvm/x86/hypercalls.rst,
 * KVM_HC_SCHED_YIELD) is a hint to the scheduler and nothing else.
 */
static enum { NO_HYPERCALL, VMCALL, VMMCALL } hypercall;
static bool yields;

/* After so many looks in vain by that port; 0 without it. */
static u32 looks;

bool each_access_exits;
static bool has_turns;

/* It has the call then; asked with an IPI to no CPU at all. */
static bool kvm_has_apics;

static void find_hypervisor(void)
{
	u32 found = in8(TURN_PORT);
	struct cpuid is = cpuid(CPUID_HYPERVISOR);
	bool is_kvm = is.b == KVM_SIGNATURE_B && is.c == KVM_SIGNATURE_C && is.d == KVM_SIGNATURE_D;

	/* One that emulates its guests has other troubles. */
	if (is_kvm && !returns_far)
		hypercall = cpuid(0).b == VENDOR_B_INTEL ? VMCALL : VMMCALL;
	yields = hypercall && cpu_count > 1;
	has_turns = found != NO_TURNS;
	looks = cpu_count > 1 && has_turns ? found : 0;
	each_access_exits = found == TURNS_AT_ONCE;
	accesses_find();
	kvm_has_apics = hypercall && send_pv_ipi(0, 0, 0) == 0;
}

static u32 call_kvm(u32 number, u32 b, u32 c, u32 d, u32 s)
{
	if (hypercall == VMMCALL)
		asm volatile("vmmcall" : "+a"(number) : "b"(b), "c"(c), "d"(d), "S"(s) : "memory");
	else
		asm volatile("vmcall" : "+a"(number) : "b"(b), "c"(c), "d"(d), "S"(s) : "memory");
	return number;
}

void give_turn(u32 id)
{
	struct cpu *self = this_cpu();

	if (looks && id == self->id) {
		self->given = (self->given + 1) % cpu_count;
		id = self->given;
	}
	if (looks && ++self->looked >= looks) {
		self->looked = 0;
		out8(TURN_PORT, id);
	} else if (yields) {
		call_kvm(KVM_HC_SCHED_YIELD, id, 0, 0, 0);
	}
}

u32 send_pv_ipi(u32 bitmap, u32 first, u32 icr)
{
	return call_kvm(KVM_HC_SEND_IPI, bitmap, 0, first, icr);
}

bool has_pv_ipi(void)
{
	return kvm_has_apics;
}

void leave_guest(void)
{
	if (kvm_has_apics)
		cpuid(0);
	else
		in8(TURN_PORT);
}

bool has_hyperv(void)
{
	return cpuid(CPUID_HYPERVISOR).c == HYPERV_SIGNATURE_C &&
	       cpuid(CPUID_HYPERVISOR + 3).a & HYPERV_HAS_APIC_MSRS;
}

void catch_up(void)
{
	for (u32 round = 0; has_turns && round < CATCH_UP_ROUNDS && in8(LATE_PORT); round++)
		cpuid(0);
}

static void write_start_code(void)
{
	for (u32 page = FIRST_SIPI_PAGE; page <= LAST_SIPI_PAGE; page++)
		memcpy((void *)(page << PAGE_SHIFT), sipi_start, sipi_end - sipi_start);
}

void find_cpus(void)
{
	u32 count;

	out16(FW_CFG_SELECT, FW_CFG_CPUS);
	count = in8(FW_CFG_DATA);
	count |= in8(FW_CFG_DATA) << 8;
	cpu_count = count < 1 ? 1 : count > MAX_CPUS ? MAX_CPUS : count;
	write_start_code();
	for (u32 id = 0; id < cpu_count; id++)
		cpus[id].id = id;
	find_hypervisor();
	for (u32 id = 1; id < cpu_count; id++)
		if (!restart_cpu(&cpus[id]))
			give_up("a CPU does not start", id);
}

static void start_up(u32 destination, u32 shorthand)
{
	struct cpu *self = this_cpu();

	lapic_note_write(self, LAPIC_ICR);
	lapic_send(self, destination, shorthand | ICR_ASSERT | ICR_INIT);
	lapic_send(self, destination, shorthand | ICR_ASSERT | ICR_SIPI | FIRST_SIPI_PAGE);
}

static bool is_up(const struct cpu *cpu)
{
	u64 end = in_us(START_TIMEOUT_US);

	while (cpu->offline) {
		if (is_past(end))
			return false;
		give_turn(cpu->id);
		relax();
	}
	return true;
}

bool restart_cpu(struct cpu *cpu)
{
	cpu->offline = true;
	start_up(cpu->id, 0);
	return is_up(cpu);
}

bool restart_others(void)
{
	bool all = true;

	for (u32 id = 1; id < cpu_count; id++)
		cpus[id].offline = true;
	start_up(0, ICR_OTHERS);
	for (u32 id = 1; id < cpu_count; id++)
		all &= is_up(&cpus[id]);
	return all;
}

bool restart_self(void)
{
	struct cpu *cpu = &cpus[0];

	out8(CMOS_INDEX, CMOS_SHUTDOWN);
	out8(CMOS_DATA, SHUTDOWN_JUMP);
	out8(CMOS_INDEX, CMOS_SHUTDOWN);
	if (in8(CMOS_DATA) != SHUTDOWN_JUMP)
		return false;
	store32(SHUTDOWN_POINTER, FIRST_SIPI_PAGE << (PAGE_SHIFT - 4 + 16));
	if (mark(&cpu->before_fault))
		return true;
	lapic_send(cpu, cpu->id, ICR_ASSERT | ICR_INIT);
	for (;;)
		relax();
}

void ask(struct cpu *cpu, void (*errand)(struct cpu *cpu))
{
	cpu->errand = errand;
	cpu->asked++;
}

bool answered(struct cpu *cpu)
{
	u64 end = in_us(ANSWER_TIMEOUT_US);

	while (cpu->answered != cpu->asked) {
		if (cpu->offline || (cpu->asleep && cpu->pinned))
			return false;
		if (is_past(end)) {
			cpu->faulted = true;
			return false;
		}
		give_turn(cpu->id);
		stay_awake();
	}
	return true;
}

bool is_there(const struct cpu *cpu)
{
	return !cpu->faulted && !cpu->offline && !(cpu->asleep && cpu->pinned);
}

void stay_awake(void)
{
	struct cpu *self = this_cpu();

	for (u32 id = 0; id < cpu_count; id++) {
		struct cpu *cpu = &cpus[id];

		/* One NMI: the others see a time that lies ahead. */
		if (cpu->asleep && !cpu->pinned && is_past(cpu->wakes_at) && cpu != self &&
		    self->apic_mode != APIC_OFF && !exchange(&cpu->rung, 1)) {
			lapic_note_write(self, LAPIC_ICR);
			lapic_send(self, id, ICR_ASSERT | ICR_NMI);
		}
	}
	relax();
}

/* The life of every CPU but the first: do what one is asked to. */
static _Noreturn void serve(struct cpu *cpu)
{
	if (mark(&cpu->before_fault))
		cpu->answered = cpu->asked;
	for (;;) {
		while (cpu->answered == cpu->asked) {
			stay_awake();
			give_turn(0);
		}
		cpu->errand(cpu);
		cpu->answered = cpu->asked;
	}
}

/* From boot.S, after a SIPI or from the firmware. */
_Noreturn void start_again(u32 id, u32 page)
{
	struct cpu *cpu = &cpus[id];

	load_vectors();
	cpu->answered = cpu->asked;
	cpu->asleep = false;
	cpu->handling = NOT_HANDLING;
	cpu->depth = 0;
	lapic_find_mode(cpu);
	lapic_distrust(cpu);
	if (!id)
		go_back(&cpu->before_fault);
	log_event(cpu, EVENT_UP, page);
	cpu->offline = false;
	serve(cpu);
}
