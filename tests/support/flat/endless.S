/* Multiboot images that never end: -DWHAT says what they do instead. */
#define NMIS 0
#define SLEEPS_OFF 1
#define SPINS_OFF 2
#define SPINS_ON 3
#define SLEEPS_ON 4
#define COUNTS 5
#define TALKS 6
#define SLEEPS_BEHIND_PPR 7
#include "multiboot.h"
    mov $stack_top, %esp
    mov $0xff, %al /* no PIC: nothing wakes it */
    out %al, $0x21
    out %al, $0xa1
    mov $'\n', %al
    mov $0x3f8, %dx
    out %al, %dx
#if WHAT == NMIS
    mov $on_nmi, %eax
    mov %ax, idt + 2 * 8
    mov %cs, idt + 2 * 8 + 2
    movw $0x8e00, idt + 2 * 8 + 4
    shr $16, %eax
    mov %ax, idt + 2 * 8 + 6
    lidt idtr
again:
    mov sent, %eax
    movl $0x44400, 0xfee00300 /* to itself, assert, NMI */
wait:
    cmp sent, %eax
    je wait
    jmp again
on_nmi:
    incl sent
    iret
#elif WHAT == SLEEPS_OFF
    hlt
    jmp _start
#elif WHAT == SPINS_OFF
    jmp .
#elif WHAT == SPINS_ON
    sti
    jmp .
#elif WHAT == SLEEPS_ON
    sti
    hlt
    jmp .
#elif WHAT == COUNTS
count:
    inc %eax
    jmp count
#elif WHAT == TALKS
talk:
    mov $0x3f8 + 5, %dx
    in %dx, %al
    test $0x20, %al
    jz talk
    mov $0x3f8, %dx
    mov $'x', %al
    out %al, %dx
    jmp talk
#elif WHAT == SLEEPS_BEHIND_PPR
    movl $0x1ff, 0xfee000f0 /* the LAPIC is on */
    movl $0x60, 0xfee00080 /* TPR */
    movl $0x44051, 0xfee00300 /* to itself, vector 0x51 */
    sti
    hlt
    jmp .
#endif
    .data
    .align 8
idt:
    .fill 256, 8, 0
idtr:
    .word 256 * 8 - 1
    .long idt
sent:
    .long 0
    .fill 1024, 4, 0
stack_top:
