#include "ops.h"
#include "clock.h"
#include "devices.h"
#include "ioapic.h"
#include "lapic.h"
#include "log.h"
#include "monitor.h"
#include "pci.h"
#include "touched.h"
#include "trap.h"

#define SLEEP_LIMIT_US 1000000
#define SETTLE_LIMIT_US 1000000
#define SETTLE_ROUNDS 1000
#define APIC_BYTES 0x1000
#define FIRST_DEVICE 0xfed00000u
#define LAST_DEVICE 0xfedfffffu

static void log_read(struct cpu *cpu, const struct op *op, u64 value)
{
	if (op->flags & OP_UNLOGGED)
		return;
	log_event(cpu, EVENT_READ, value, value >> 32);
}

/* Anywhere in the page of a local APIC, or beyond the chips. */
static void note_access(struct cpu *cpu, u32 address)
{
	if (address - cpu->apic_base < APIC_BYTES)
		lapic_distrust(cpu);
	else if (address >= FIRST_DEVICE)
		devices_note_other();
	touched.hpet |= address - HPET_BASE < HPET_BYTES;
}

static void mmio_write(struct cpu *cpu, const struct op *op)
{
	note_access(cpu, op->a);
	ioapic_note_store(op->a);
	if (op->a - HPET_BASE < HPET_BYTES)
		touched.hpet_routes |= 1u << (op->b >> 9 & 31);
	switch (op->size) {
	case 1:
		store8(op->a, op->b);
		break;
	case 2:
		store16(op->a, op->b);
		break;
	case 4:
		store32(op->a, op->b);
		break;
	default:
		store64(op->a, (u64)op->c << 32 | op->b);
	}
}

static void mmio_read(struct cpu *cpu, const struct op *op)
{
	note_access(cpu, op->a);
	switch (op->size) {
	case 1:
		log_read(cpu, op, load8(op->a));
		break;
	case 2:
		log_read(cpu, op, load16(op->a));
		break;
	case 4:
		log_read(cpu, op, load32(op->a));
		break;
	default:
		log_read(cpu, op, load64(op->a));
	}
}

static void pio_write(struct cpu *cpu, const struct op *op)
{
	(void)cpu;
	devices_note_port(op->a);
	switch (op->size) {
	case 1:
		out8(op->a, op->b);
		break;
	case 2:
		out16(op->a, op->b);
		break;
	default:
		out32(op->a, op->b);
	}
}

static void pio_read(struct cpu *cpu, const struct op *op)
{
	devices_note_port(op->a);
	switch (op->size) {
	case 1:
		log_read(cpu, op, in8(op->a));
		break;
	case 2:
		log_read(cpu, op, in16(op->a));
		break;
	default:
		log_read(cpu, op, in32(op->a));
	}
}

/* KVM keeps one in delivery mode 3 for the next HLT (arch/x86/kvm/lapic.c, pv_unhalted). */
static void note_message(u32 word)
{
	if ((word >> 8 & 7) == 3)
		touched.unhalt = true;
}

static void msr_write(struct cpu *cpu, const struct op *op)
{
	/* A handler must not see the local APIC's new mode before lapic_find_mode() has. */
	bool were_on = op->a == MSR_APIC_BASE && hold_interrupts();

	lapic_distrust(cpu);
	note_message(op->b);
	if (!write_msr(op->a, (u64)op->c << 32 | op->b))
		log_plain(cpu, EVENT_GP);
	if (op->a == MSR_APIC_BASE)
		lapic_find_mode(cpu);
	release_interrupts(were_on);
}

static void msr_read(struct cpu *cpu, const struct op *op)
{
	u64 value;

	if (read_msr(op->a, &value))
		log_read(cpu, op, value);
	else
		log_plain(cpu, EVENT_GP);
}

/* The priority in the local APIC's TPR, by another way. */
static void cr8_write(struct cpu *cpu, const struct op *op)
{
	lapic_distrust(cpu);
	write_cr8(op->b);
}

static void local_apic_write(struct cpu *cpu, const struct op *op)
{
	lapic_note_write(cpu, op->a);
	note_message(op->b);
	if (!lapic_try_write(cpu, op->a, op->b, op->a == LAPIC_ICR ? op->c : 0))
		log_plain(cpu, EVENT_GP);
}

static void local_apic_read(struct cpu *cpu, const struct op *op)
{
	u64 value;

	lapic_note_read(cpu);
	if (lapic_try_read(cpu, op->a, &value))
		log_read(cpu, op, value);
	else
		log_plain(cpu, EVENT_GP);
}

static void io_apic_write(struct cpu *cpu, const struct op *op)
{
	(void)cpu;
	note_message(op->b);
	ioapic_write(op->c, op->a, op->b);
}

static void io_apic_read(struct cpu *cpu, const struct op *op)
{
	log_read(cpu, op, ioapic_read(op->c, op->a));
}

static void pv_ipi(struct cpu *cpu, const struct op *op)
{
	note_message(op->b);
	log_read(cpu, op, send_pv_ipi(op->a, op->c, op->b));
}

static void line(struct cpu *cpu, const struct op *op)
{
	(void)cpu;
	lines_drive(op->a, op->b);
}

/* A message to where QEMU's local APIC has its registers is a write of one (hw/intc/apic.c, apic_mem_write). */
static void msi(struct cpu *cpu, const struct op *op)
{
	if (op->a - LAPIC_WINDOW < APIC_BYTES && op->a & ~0xfu & (APIC_BYTES - 1))
		lapic_distrust(cpu);
	note_message(op->b);
	edu_send((u64)op->c << 32 | op->a, op->b);
}

static void sti(struct cpu *cpu, const struct op *op)
{
	(void)cpu, (void)op;
	enable_interrupts();
}

static void cli(struct cpu *cpu, const struct op *op)
{
	(void)cpu, (void)op;
	disable_interrupts();
}

static void eoi(struct cpu *cpu, const struct op *op)
{
	if (op->flags & OP_IN_SERVICE &&
	    (cpu->handling == NOT_HANDLING || !lapic_has(cpu, LAPIC_ISR, cpu->handling)))
		return;
	lapic_write(cpu, LAPIC_EOI, 0);
}

/* The shadow of STI covers HLT: what comes in before it cannot be lost. */
static void sleep(bool interruptible)
{
	if (interruptible)
		asm volatile("sti\n\thlt" : : : "memory");
	else
		halt();
}

static void hlt(struct cpu *cpu, const struct op *op)
{
	bool interruptible = hold_interrupts();

	(void)op;
	cpu->wakes_at = in_us(SLEEP_LIMIT_US);
	cpu->rung = 0;
	cpu->overslept = false;
	cpu->asleep = true;
	do {
		cpu->disturbed = false;
		sleep(interruptible);
	} while (cpu->disturbed);
	cpu->asleep = false;
	log_plain(cpu, cpu->overslept ? EVENT_ASLEEP : EVENT_WOKE);
}

static void wait(struct cpu *cpu, const struct op *op)
{
	const volatile u32 *entries = &cpus[op->target].entries[op->a];
	u64 end = in_us(op->c);

	while (*entries < op->b) {
		if (is_past(end)) {
			catch_up();
			if (*entries >= op->b)
				return;
			log_event(cpu, EVENT_TIMEOUT, *entries);
			return;
		}
		give_turn(op->target);
		stay_awake();
	}
}

static void delay(struct cpu *cpu, const struct op *op)
{
	u64 end = in_us(op->a);

	while (!is_past(end)) {
		give_turn(cpu->id);
		stay_awake();
	}
	catch_up();
}

static void await(struct cpu *cpu, const struct op *op)
{
	struct cpu *target = &cpus[op->target];
	u64 end = in_us(op->a);

	while (target->offline || target->asleep || target->answered != target->asked) {
		if (is_past(end)) {
			log_plain(cpu, EVENT_ASLEEP);
			return;
		}
		give_turn(op->target);
		stay_awake();
	}
	target->pinned = false;
}

static void pin(struct cpu *cpu)
{
	cpu->pinned_step = current_step;
	cpu->pinned = true;
}

static void offline(struct cpu *cpu, const struct op *op)
{
	(void)cpu;
	for (u32 mask = op->a & ((1u << cpu_count) - 1) & ~1u; mask; mask &= mask - 1) {
		struct cpu *other = &cpus[lowest_bit(mask)];

		pin(other);
		other->offline = true;
	}
}

static void monitor(struct cpu *cpu, const struct op *op)
{
	(void)cpu;
	monitor_ask(op->a);
}

static void (*const perform[OPCODES])(struct cpu *cpu, const struct op *op) = {
	[OP_MMIO_WRITE] = mmio_write,
	[OP_MMIO_READ] = mmio_read,
	[OP_PIO_WRITE] = pio_write,
	[OP_PIO_READ] = pio_read,
	[OP_MSR_WRITE] = msr_write,
	[OP_MSR_READ] = msr_read,
	[OP_LAPIC_WRITE] = local_apic_write,
	[OP_LAPIC_READ] = local_apic_read,
	[OP_IOAPIC_WRITE] = io_apic_write,
	[OP_IOAPIC_READ] = io_apic_read,
	[OP_LINE] = line,
	[OP_MSI] = msi,
	[OP_STI] = sti,
	[OP_CLI] = cli,
	[OP_HLT] = hlt,
	[OP_EOI] = eoi,
	[OP_WAIT] = wait,
	[OP_DELAY] = delay,
	[OP_AWAIT] = await,
	[OP_OFFLINE] = offline,
	[OP_CR8_WRITE] = cr8_write,
	[OP_PV_IPI] = pv_ipi,
	[OP_MONITOR] = monitor,
};

void execute(struct cpu *cpu, const struct op *ops, u32 count)
{
	for (; count; ops++, count--)
		perform[ops->opcode](cpu, ops);
}

/* ---- CPU 0 conducts ---- */

static void do_ops(struct cpu *cpu)
{
	execute(cpu, cpu->ops, cpu->op_count);
}

static void visit(struct cpu *cpu)
{
	(void)cpu;
	leave_guest();
}

/* What counts up with everything that happens. */
static u32 events_so_far(void)
{
	u32 sum = 0;

	for (u32 id = 0; id < cpu_count; id++)
		sum += cpus[id].entries[ANY_VECTOR] + cpus[id].log_used;
	return sum;
}

static void settle(void)
{
	u64 end = in_us(SETTLE_LIMIT_US);
	u32 before, rounds = 0;

	do {
		rounds++;
		before = events_so_far();
		for (u32 id = 1; id < cpu_count; id++)
			if (is_there(&cpus[id]))
				ask(&cpus[id], visit);
		visit(&cpus[0]);
		for (u32 id = 1; id < cpu_count; id++)
			answered(&cpus[id]);
		/* Time alone says little: the host may have stopped us. */
		if (rounds > SETTLE_ROUNDS && is_past(end)) {
			log_plain(&cpus[0], EVENT_UNSETTLED);
			return;
		}
	} while (events_so_far() != before);
}

static volatile u32 at_the_start;
static volatile bool started;

static void do_ops_together(struct cpu *cpu)
{
	fetch_and_add((u32 *)&at_the_start, 1);
	while (!started) {
		give_turn(0);
		relax();
	}
	do_ops(cpu);
}

static void assign(struct cpu *cpu, const struct program *program, u32 index)
{
	const struct block *block = &blocks_of(program)[index];

	cpu->ops = ops_of(program) + block->first;
	cpu->op_count = block->count;
}

static void parallel(const struct program *program, const struct op *op)
{
	u32 others = 0, block = op->b;
	bool with_self = op->a & 1 && !cpus[0].faulted;

	at_the_start = 0;
	started = false;
	for (u32 id = 0; id < cpu_count; id++) {
		if (!(op->a >> id & 1))
			continue;
		assign(&cpus[id], program, block++);
		if (id && is_there(&cpus[id])) {
			ask(&cpus[id], do_ops_together);
			others++;
		}
	}
	while (at_the_start != others) {
		give_turn(0);
		relax();
	}
	started = true;
	if (with_self)
		do_ops(&cpus[0]);
	for (u32 id = 1; id < cpu_count; id++)
		answered(&cpus[id]);
}

static void elsewhere(struct cpu *cpu, const struct op *op)
{
	if (!is_there(cpu)) {
		if (!cpu->faulted)
			log_plain(&cpus[0], EVENT_ASLEEP);
		return;
	}
	cpu->ops = op;
	cpu->op_count = 1;
	if (op->opcode == OP_HLT)
		pin(cpu);
	ask(cpu, do_ops);
	answered(cpu);
}

static void conduct(const struct program *program, const struct op *op)
{
	if (op->opcode == OP_PARALLEL)
		parallel(program, op);
	else if (op->cpu)
		elsewhere(&cpus[op->cpu], op);
	else if (!cpus[0].faulted)
		execute(&cpus[0], op, 1);
	if (op->flags & OP_SETTLE)
		settle();
}

static void conduct_block(const struct program *program, u32 index)
{
	const struct block *block = &blocks_of(program)[index];
	const struct op *ops = ops_of(program) + block->first;
	volatile u32 next = 0;

	/* After an exception of CPU 0 the others go on. */
	if (mark(&cpus[0].before_fault))
		for (u32 id = 1; id < cpu_count; id++)
			answered(&cpus[id]);
	while (next < block->count) {
		const struct op *op = &ops[next++];

		current_step = op->step;
		if (!(op->flags & OP_BY_RESET))
			conduct(program, op);
	}
}

static void log_counts(struct cpu *cpu)
{
	for (u32 vector = 0; vector < ANY_VECTOR; vector++)
		if (cpu->entries[vector] && handler_of(vector)->detail == DETAIL_COUNT)
			log_event(cpu, EVENT_COUNT, vector, cpu->entries[vector]);
}

/* Of the ports only those of PCI configuration space take vectors of a local APIC. */
static bool may_name_vector(const struct op *op)
{
	return op->opcode != OP_PIO_WRITE || op->a - PCI_CONFIG < PCI_CONFIG_PORTS;
}

/* Whatever is written may be, or hold, a vector: in its lowest byte. */
static u32 words_named(const struct program *program)
{
	const struct op *ops = ops_of(program);
	u32 words = 1; /* also for what nobody named: entries and routes that are 0 */

	for (u32 i = 0; i < program->ops; i++)
		if (may_name_vector(&ops[i]))
			words |= 1u << (ops[i].b & 0xff) / 32;
	return words;
}

static bool may_drive_rtc(const struct op *op)
{
	switch (op->opcode) {
	case OP_LINE:
		return op->a == RTC_GSI;
	case OP_PIO_WRITE:
	case OP_PIO_READ:
		return devices_is_other(op->a);
	case OP_MMIO_WRITE:
	case OP_MMIO_READ:
		return op->a >= FIRST_DEVICE && op->a <= LAST_DEVICE;
	default:
		return false;
	}
}

bool drives_rtc(const struct program *program)
{
	const struct op *ops = ops_of(program);

	for (u32 i = 0; i < program->ops; i++)
		if (may_drive_rtc(&ops[i]))
			return true;
	return false;
}

void run_program(const struct program *program)
{
	vector_words = words_named(program);
	set_handlers(program);
	conduct_block(program, PROLOGUE);
	log_clear();
	conduct_block(program, MAIN);
	for (u32 id = 0; id < cpu_count; id++)
		log_counts(&cpus[id]);
}
