/* The interpreter: operations of harness/scenario/program.py on the CPU that calls. */
#ifndef OPS_H
#define OPS_H

#include "cpu.h"

void execute(struct cpu *cpu, const struct op *ops, u32 count);

/* Whether it may drive the line of the RTC, itself or by a device that is not known here. */
bool drives_rtc(const struct program *program);
/* A whole scenario, after the reset: prologue and main block, on CPU 0. */
void run_program(const struct program *program);

#endif
