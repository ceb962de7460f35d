/* Flat segments, and what memory the probe divides up by hand; for C and assembly. */
#ifndef SEGMENTS_H
#define SEGMENTS_H

#define CODE_SEGMENT 0x08
#define DATA_SEGMENT 0x10

#define MAX_CPUS 8
#define STACK_SHIFT 17

/* A SIPI may send a CPU to any of these pages: each holds the start-up code. */
#define FIRST_SIPI_PAGE 0x10
#define LAST_SIPI_PAGE 0x7f

#endif
