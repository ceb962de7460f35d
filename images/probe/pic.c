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

static const struct chip {
	u16 port;
	u8 base, wiring;
	const char *imr_name, *irr_name, *isr_name;
} chips[] = {
	{ SLAVE, SLAVE_BASE, SLAVE_INPUT, "pic.slave.imr", "pic.slave.irr", "pic.slave.isr" },
	{ MASTER, MASTER_BASE, 1 << SLAVE_INPUT, "pic.master.imr", "pic.master.irr",
	  "pic.master.isr" },
};

static u8 read_isr(u16 chip)
{
	u8 isr;

	out8(chip, OCW3_READ_ISR);
	isr = in8(chip);
	out8(chip, OCW3_READ_IRR);
	return isr;
}

static void expect(struct cpu *cpu, const char *what, u8 expected, u8 found)
{
	if (found != expected)
		log_dirty(cpu, what, expected, found);
}

/* Forgets what was requested; the port then reads IRR. */
static void initialise(const struct chip *chip)
{
	out8(chip->port, ICW1_INIT_ICW4);
	out8(chip->port + 1, chip->base);
	out8(chip->port + 1, chip->wiring);
	out8(chip->port + 1, ICW4_8086);
	out8(chip->port + 1, ALL);
}

/* KVM keeps ISR and the modes of OCW2 and OCW3 at ICW1 (arch/x86/kvm/i8259.c). */
static void restore_modes(const struct chip *chip)
{
	u8 isr;

	out8(chip->port, OCW3_SPECIAL_MASK_OFF);
	out8(chip->port, OCW2_ROTATE_IN_AUTO_EOI_OFF);
	for (isr = read_isr(chip->port); isr; isr &= isr - 1)
		out8(chip->port, OCW2_SPECIFIC_EOI | lowest_bit(isr));
	out8(chip->port, OCW2_LOWEST_IS_7);
}

bool pic_find(void)
{
	out8(MASTER + 1, 0xa5);
	if (in8(MASTER + 1) != 0xa5)
		return false;
	out8(MASTER + 1, ALL);
	return in8(MASTER + 1) == ALL;
}

/* Nobody programmed it: all that may be there are requests, of lines that were driven. */
static void forget_requests(struct cpu *cpu, const struct chip *chip)
{
	initialise(chip);
	expect(cpu, chip->irr_name, 0, in8(chip->port));
}

void pic_prove(struct cpu *cpu)
{
	for (u32 i = 0; i < ARRAY_SIZE(chips); i++) {
		expect(cpu, chips[i].imr_name, ALL, in8(chips[i].port + 1));
		expect(cpu, chips[i].irr_name, 0, in8(chips[i].port));
		expect(cpu, chips[i].isr_name, 0, read_isr(chips[i].port));
	}
	expect(cpu, "pic.elcr", 0, in8(MASTER_ELCR) | in8(SLAVE_ELCR));
}

static void restore_all(struct cpu *cpu)
{
	/* A poll that was asked for is answered. */
	in8(SLAVE);
	in8(MASTER);
	out8(MASTER_ELCR, 0);
	out8(SLAVE_ELCR, 0);
	/* A slave that lets go of the master's input first. */
	for (u32 i = 0; i < ARRAY_SIZE(chips); i++) {
		initialise(&chips[i]);
		restore_modes(&chips[i]);
	}
	pic_prove(cpu);
}

void pic_reset(struct cpu *cpu)
{
	if (touched.pic) {
		restore_all(cpu);
	} else if (touched.pic_requests) {
		if (touched.pic_requests >> 8)
			forget_requests(cpu, &chips[0]);
		forget_requests(cpu, &chips[1]);
	}
	touched.pic = false;
	touched.pic_requests = 0;
}
