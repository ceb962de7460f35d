/* The master and the slave 8259A (datasheet, "Programming the 8259A"), and their ELCR. */
#include "accesses.h"
#include "devices.h"
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
	enum pic_part part;
	u16 port;
	u8 base, wiring;
	const char *imr_name, *irr_name, *isr_name;
} chips[] = {
	{ PIC_SLAVE, SLAVE, SLAVE_BASE, SLAVE_INPUT, "pic.slave.imr", "pic.slave.irr",
	  "pic.slave.isr" },
	{ PIC_MASTER, MASTER, MASTER_BASE, 1 << SLAVE_INPUT, "pic.master.imr", "pic.master.irr",
	  "pic.master.isr" },
};

/* Forgets what was requested; the port then reads IRR. */
static void initialise(const struct chip *chip)
{
	later_out(chip->port, ICW1_INIT_ICW4);
	later_out(chip->port + 1, chip->base);
	later_out(chip->port + 1, chip->wiring);
	later_out(chip->port + 1, ICW4_8086);
	later_out(chip->port + 1, ALL);
}

static void expect_no_isr(const struct chip *chip)
{
	later_out(chip->port, OCW3_READ_ISR);
	later_expect_in(chip->isr_name, chip->port, 0);
	later_out(chip->port, OCW3_READ_IRR);
}

/* KVM keeps ISR and the modes of OCW2 and OCW3 at ICW1 (arch/x86/kvm/i8259.c). */
static void restore_modes(const struct chip *chip)
{
	u8 isr;

	later_out(chip->port, OCW3_SPECIAL_MASK_OFF | OCW3_READ_ISR);
	isr = finish_with_in(chip->port);
	later_out(chip->port, OCW3_READ_IRR);
	for (u8 left = isr; left; left &= left - 1)
		later_out(chip->port, OCW2_SPECIFIC_EOI | lowest_bit(left));
	if (isr)
		expect_no_isr(chip);
	later_out(chip->port, OCW2_ROTATE_IN_AUTO_EOI_OFF);
	later_out(chip->port, OCW2_LOWEST_IS_7);
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
static void forget_requests(const struct chip *chip)
{
	initialise(chip);
	later_expect_in(chip->irr_name, chip->port, 0);
}

static void expect_initial(const struct chip *chip)
{
	later_expect_in(chip->imr_name, chip->port + 1, ALL);
	later_expect_in(chip->irr_name, chip->port, 0);
}

static void restore(const struct chip *chip)
{
	initialise(chip);
	restore_modes(chip);
	expect_initial(chip);
}

static void expect_elcr(void)
{
	later_expect_in("pic.elcr", MASTER_ELCR, 0);
	later_expect_in("pic.elcr", SLAVE_ELCR, 0);
}

static void restore_elcr(void)
{
	later_out(MASTER_ELCR, 0);
	later_out(SLAVE_ELCR, 0);
	expect_elcr();
}

void pic_prove(void)
{
	for (u32 i = 0; i < ARRAY_SIZE(chips); i++) {
		expect_initial(&chips[i]);
		expect_no_isr(&chips[i]);
	}
	expect_elcr();
	finish_accesses();
}

/*
 * Whether there may be a request at a chip; the slave's output is an input of the master, who does
 * not hear of it while all of the slave's inputs are masked.
 */
static bool is_requested(const struct chip *chip)
{
	if (chip->part == PIC_SLAVE)
		return touched.pic_requests >> 8;
	return (u8)touched.pic_requests || touched.pic & PIC_SLAVE;
}

void pic_reset(void)
{
	const struct chip *chip;

	/* A poll that was asked for is answered. */
	for (chip = chips; chip < chips + ARRAY_SIZE(chips); chip++)
		if (touched.pic & chip->part)
			later_in(chip->port);
	if (touched.pic & PIC_ELCR)
		restore_elcr();
	/* A slave that lets go of the master's input first. */
	for (chip = chips; chip < chips + ARRAY_SIZE(chips); chip++)
		if (touched.pic & chip->part)
			restore(chip);
		else if (is_requested(chip))
			forget_requests(chip);
	finish_accesses();
	touched.pic = 0;
	touched.pic_requests = 0;
}
