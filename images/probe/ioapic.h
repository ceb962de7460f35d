/* IOAPICs (82093AA): one on every machine, microvm has a second one. */
#ifndef IOAPIC_H
#define IOAPIC_H

#include "cpu.h"

#define IOAPIC_PINS 24
#define IOAPIC_ID 0
#define IOAPIC_VERSION 1
#define IOAPIC_ENTRY(pin) (0x10 + 2 * (pin))

/* How many there are; to be called once. */
u32 ioapic_count(void);

u32 ioapic_read(u32 number, u32 index);
/* Both halves of a pin's entry. */
void ioapic_read_entry(u32 number, u32 pin, u32 *halves);
void ioapic_write(u32 number, u32 index, u32 value);

/* A store of the program: does it go to an IOAPIC? */
void ioapic_note_store(u32 address);

/* Nothing comes in any more; a level request still goes with its line. */
void ioapic_mask(void);
/* Masked, edge, nothing in service: what a scenario may have changed; logs where it is not so. */
void ioapic_reset(void);
/* Have the next reset look at everything. */
void ioapic_distrust(void);
void ioapic_unlock(void);

#endif
