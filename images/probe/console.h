/*
 * The way out: a port of virtio-serial, or where there is none isa-debugcon, a port that takes bytes.
 * Both raise nothing.
 */
#ifndef CONSOLE_H
#define CONSOLE_H

#include "x86.h"

/* Which of the two; before anything is said. */
void console_find(void);
void say_char(char c);
void say(const char *text);
void say_hex(u64 number);
void say_flush(void);

/* Ends QEMU through isa-debug-exit: its status is (value << 1) | 1. */
_Noreturn void leave(u8 value);

/* Says what is wrong, and ends QEMU. */
_Noreturn void give_up(const char *why, u32 number);

#endif
