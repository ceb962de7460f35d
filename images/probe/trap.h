/* Vectors: interrupts, exceptions and NMIs. */
#ifndef TRAP_H
#define TRAP_H

#include "cpu.h"

/* Fill the interrupt descriptor table, once. */
void make_vectors(void);
/* Have this CPU use it. */
void load_vectors(void);

/* The handlers of a scenario; `execute` runs a block on a CPU. */
void set_handlers(const struct program *program);
const struct handler *handler_of(u32 vector);

/* While set, what comes in is dismissed with an EOI, unlogged. */
extern volatile bool draining;

#endif
