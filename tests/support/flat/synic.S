/* A multiboot image for a CPU with Hyper-V's SynIC: twenty messages of a periodic timer, as an
 * interrupt with auto-EOI.  Hyper-V TLFS, "Synthetic Interrupt Controller", "Synthetic Timers". */
#define VECTOR 0x50
#define SINT 2
    .macro wrmsr_to msr, value
    mov $\msr, %ecx
    mov $\value, %eax
    xor %edx, %edx
    wrmsr
    .endm
#include "multiboot.h"
    mov $stack, %esp
    lgdt gdt_pointer
    ljmp $8, $1f
1:  mov $16, %ax
    mov %ax, %ds
    mov %ax, %es
    mov %ax, %ss
    mov $handler, %eax
    movw %ax, idt + VECTOR * 8
    movw $8, idt + VECTOR * 8 + 2
    movw $0x8e00, idt + VECTOR * 8 + 4
    shr $16, %eax
    movw %ax, idt + VECTOR * 8 + 6
    lidt idt_pointer
    movb $0xff, %al /* both PICs masked */
    out %al, $0x21
    out %al, $0xa1
    movl $0x1ff, 0xfee000f0 /* the local APIC is on */
    wrmsr_to 0x40000000, 0x1234 /* HV_X64_MSR_GUEST_OS_ID */
    wrmsr_to 0x40000080, 1 /* SCONTROL */
    wrmsr_to 0x40000083, messages + 1 /* SIMP */
    wrmsr_to 0x40000090 + SINT, (1 << 17) + VECTOR
    wrmsr_to 0x400000b1, 20000 /* STIMER0_COUNT: 2 ms */
    wrmsr_to 0x400000b0, (SINT << 16) + 3 /* STIMER0_CONFIG: periodic, on */
2:  sti
    hlt
    cli
    cmpl $20, ticks
    jb 2b
    wrmsr_to 0x400000b0, 0
    mov $text, %esi
3:  lodsb
    test %al, %al
    jz 4f
    mov $0x3f8, %dx
    out %al, %dx
    jmp 3b
4:  xor %eax, %eax
    mov $0xf4, %dx
    out %al, %dx
5:  hlt
    jmp 5b
handler:
    incl ticks
    movl $0, messages + SINT * 256 /* the slot is free */
    push %eax
    push %ecx
    push %edx
    wrmsr_to 0x40000084, 0 /* EOM */
    pop %edx
    pop %ecx
    pop %eax
    iret
    .data
    .align 8
gdt:
    .quad 0, 0x00cf9b000000ffff, 0x00cf93000000ffff
gdt_pointer:
    .word 23
    .long gdt
idt_pointer:
    .word 256 * 8 - 1
    .long idt
ticks:
    .long 0
text:
    .asciz "PASS: twenty messages\nSUMMARY: 1 tests\n"
    .bss
    .align 4096
messages:
    .skip 4096
idt:
    .skip 256 * 8
    .skip 4096
stack:
