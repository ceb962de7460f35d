/*
 * Accesses of chips that belong together, in their order.  The VMM of the live chips has a port by
 * which it does all of them at one exit (userspace_chip/kvm/devices/batch.py): under it an exit is
 * what takes the time.
 */
#ifndef ACCESSES_H
#define ACCESSES_H

#include "cpu.h"

enum access_kind {
	LOAD32,
	STORE32,
	IN8,
	OUT8,
	OUT32,
};

/* `what`: the name of a register that has to read as `expected`; else NULL. */
struct access {
	u32 kind, at, value, expected;
	const char *what;
};

/* Once. */
void accesses_find(void);
/* Whatever is read is in `value` afterwards. */
void do_accesses(struct access *accesses, u32 count);

/* For CPU 0: what is done by finish_accesses(), or before it. */
void later_store(u32 at, u32 value);
void later_out(u16 port, u8 value);
void later_expect_load(const char *what, u32 at, u32 expected);
void later_expect_in(const char *what, u16 port, u8 expected);
/* Whatever it reads. */
void later_in(u16 port);
/* The last of all, and what it reads. */
u8 finish_with_in(u16 port);
/* Logs what did not read as expected. */
void finish_accesses(void);

#endif
