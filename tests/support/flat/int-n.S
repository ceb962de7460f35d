/* A multiboot image that executes INT 33 through a code segment that is not present, with the
 * descriptor in a page that the host has unmapped: KVM has a nested page fault to serve in
 * the middle of the delivery.  #NP's handler puts that right and returns to the INT, which has to be
 * executed again.  It fails in labs that TCG runs: svm-int-n-again in configs/known/lab.yaml. */
#define CODE 8
#define DATA 16
#define ABSENT 0x1000 /* the first descriptor of the table's second page */
#define GATE 0x8e00
#define NP 11
#include "multiboot.h"
    lgdt gdt_pointer
    ljmp $CODE, $1f
1:  mov $DATA, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
    mov $stack_end, %esp
    mov $NP, %ebx
    mov $not_present, %eax
    mov $CODE, %ecx
    call set_gate
    mov $33, %ebx
    mov $interrupted, %eax
    mov $ABSENT, %ecx
    call set_gate
    lidt idt_pointer
    mov $gdt + ABSENT, %eax
    mov $0xe4, %dx
    out %eax, %dx /* pc-testdev: the host unmaps the page, with what is in it kept */
    int $33
    cmpl $2, count
    mov $good, %esi
    je say
    mov $bad, %esi
say:
    lodsb
    test %al, %al
    jz end
    mov %al, %bl
wait:
    mov $0x3fd, %dx
    in %dx, %al
    test $0x20, %al
    jz wait
    mov $0x3f8, %dx
    mov %bl, %al
    out %al, %dx
    jmp say
end:
    mov count, %eax
    sub $2, %eax
    neg %eax
    mov $0xf4, %dx
    out %al, %dx
hang:
    hlt
    jmp hang

/* Gate ebx of the IDT to eax, in segment ecx. */
set_gate:
    lea idt(, %ebx, 8), %edi
    mov %ax, (%edi)
    mov %cx, 2(%edi)
    movw $GATE, 4(%edi)
    shr $16, %eax
    mov %ax, 6(%edi)
    ret

not_present:
    incl count
    movw $CODE, idt + 33 * 8 + 2
    add $4, %esp /* the error code */
    iret

interrupted:
    incl count
    iret

    .data
    .align 4096
gdt:
    .quad 0, 0x00cf9a000000ffff, 0x00cf92000000ffff
    .org gdt + ABSENT
    .quad 0x00cf1a000000ffff /* as CODE, not present */
    .align 4096
idt:
    .skip 64 * 8
idt_pointer:
    .word 64 * 8 - 1
    .long idt
gdt_pointer:
    .word ABSENT + 7
    .long gdt
count:
    .long 0
    .skip 4096
stack_end:
good:
    .asciz "PASS: NP exception\nSUMMARY: 1 tests\n"
bad:
    .asciz "FAIL: NP exception\nSUMMARY: 1 tests, 1 unexpected failures\n"
