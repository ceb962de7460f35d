/* The master and the slave 8259A (datasheet, "Programming the 8259A"), and their ELCR. */
#include "devices.h"
#include "log.h"
#include "touched.h"

#define MASTER 0x20
#define SLAVE 0xa0
#define MASTER_ELCR 0x4d0
#define SLAVE_ELCR 0x4d1
#define MASTER_BASE 0x20
#define SLAVE_BASE 0x28
#define SLAVE_INPUT 2

#define ICW1_INIT_ICW4 0x11
#define ICW4_8086 0x01
#define OCW2_ROTATE_IN_AUTO_EOI_OFF 0x00
#define OCW2_SPECIFIC_EOI 0x60
#define OCW2_LOWEST_IS_7 0xc7
#define OCW3_READ_IRR 0x0a
#define OCW3_READ_ISR 0x0b
#define OCW3_SPECIAL_MASK_OFF 0x48
#define ALL 0xff

static u8 read_isr(u16 chip)
{
	u8 isr;

	out8(chip, OCW3_READ_ISR);
	isr = in8(chip);
	out8(chip, OCW3_READ_IRR);
	return isr;
}

/* KVM keeps ISR and the modes of OCW2 and OCW3 at ICW1 (arch/x86/kvm/i8259.c). */
static void initialise(u16 chip, u8 base, u8 wiring)
{
	u8 isr;

	in8(chip); /* a poll that was asked for is answered */
	out8(chip, ICW1_INIT_ICW4);
	out8(chip + 1, base);
	out8(chip + 1, wiring);
	out8(chip + 1, ICW4_8086);
	out8(chip + 1, ALL);
	out8(chip, OCW3_SPECIAL_MASK_OFF);
	out8(chip, OCW2_ROTATE_IN_AUTO_EOI_OFF);
	for (isr = read_isr(chip); isr; isr &= isr - 1)
		out8(chip, OCW2_SPECIFIC_EOI | lowest_bit(isr));
	out8(chip, OCW2_LOWEST_IS_7);
}

bool pic_find(void)
{
	out8(MASTER + 1, 0xa5);
	if (in8(MASTER + 1) != 0xa5)
		return false;
	out8(MASTER + 1, ALL);
	return in8(MASTER + 1) == ALL;
}

void pic_reset(void)
{
	if (!touched.pic)
		return;
	out8(MASTER_ELCR, 0);
	out8(SLAVE_ELCR, 0);
	/* A slave that lets go of the master's input first. */
	initialise(SLAVE, SLAVE_BASE, SLAVE_INPUT);
	initialise(MASTER, MASTER_BASE, 1 << SLAVE_INPUT);
}

static void expect(struct cpu *cpu, const char *what, u8 expected, u8 found)
{
	if (found != expected)
		log_dirty(cpu, what, expected, found);
}

void pic_prove(struct cpu *cpu)
{
	if (!touched.pic)
		return;
	expect(cpu, "pic.master.imr", ALL, in8(MASTER + 1));
	expect(cpu, "pic.slave.imr", ALL, in8(SLAVE + 1));
	expect(cpu, "pic.master.irr", 0, in8(MASTER));
	expect(cpu, "pic.slave.irr", 0, in8(SLAVE));
	expect(cpu, "pic.master.isr", 0, read_isr(MASTER));
	expect(cpu, "pic.slave.isr", 0, read_isr(SLAVE));
	expect(cpu, "pic.elcr", 0, in8(MASTER_ELCR) | in8(SLAVE_ELCR));
	touched.pic = false;
}
