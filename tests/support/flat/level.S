/* A multiboot image whose level-triggered line is raised, taken, lowered and ended ROUNDS times:
 * pc-testdev's line 6 (QEMU hw/misc/pc-testdev.c), through the IOAPIC.  Its handler ends with a far
 * return, as not every KVM that emulates its guests knows IRET. */
#define LAPIC 0xfee00000
#define SVR 0xf0
#define TPR 0x80
#define EOI 0xb0
#define IOREGSEL 0xfec00000
#define IOWIN 0xfec00010
#define LINE 6
#define LOW (0x10 + 2 * LINE)
#define LEVEL 0x8000
#define VECTOR 0x51
#define CODE 8
#define DATA 16
#include "multiboot.h"
    mov $stack, %esp
    lgdt gdt_register
    ljmp $CODE, $loaded
loaded:
    mov $DATA, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
    mov $handler, %eax
    mov %ax, gate
    shr $16, %eax
    mov %ax, gate + 6
    lidt idt_register
    mov $0xff, %al
    out %al, $0x21
    out %al, $0xa1
    movl $0x1ff, LAPIC + SVR
    movl $0, LAPIC + TPR
    movl $LOW + 1, IOREGSEL
    movl $0, IOWIN
    movl $LOW, IOREGSEL
    movl $(LEVEL | VECTOR), IOWIN
    sti
again:
    mov left, %ecx
    mov $(0x2000 + LINE), %dx
    mov $1, %al
    out %al, %dx
taken:
    cmp left, %ecx
    je taken
    cmpl $0, left
    jne again
    xor %eax, %eax
    mov $0xf4, %dx
    out %al, %dx
hang:
    hlt
    jmp hang

handler:
    push %eax
    push %edx
    mov $(0x2000 + LINE), %dx
    xor %eax, %eax
    out %al, %dx
    movl $0, LAPIC + EOI
    decl left
    pop %edx
    pop %eax
    pushl 8(%esp)
    popf
    lret $4

    .data
    .align 8
left:
    .long ROUNDS
gdt_register:
    .word 8 * 3 - 1
    .long gdt
    .align 8
gdt:
    .quad 0, 0x00cf9b000000ffff, 0x00cf93000000ffff /* flat, of 32 bits */
idt_register:
    .word 8 * (VECTOR + 1) - 1
    .long idt
    .align 8
idt:
    .skip 8 * VECTOR
gate:
    .word 0, CODE, 0x8e00, 0
    .skip 4096
stack:
