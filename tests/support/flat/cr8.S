/* A multiboot image that writes CR8 while an interrupt waits for the guest to let it in: the
 * hypervisor has a window requested then.  It passes on hardware; see configs/known/lab.yaml.
 * CR8 in 32-bit code: LOCK MOV CR0 (AMD64 APM volume 3, "MOV CRn"; CPUID feature cr8_legacy). */
#define LAPIC 0xfee00000
#define SVR 0xf0
#define ICR 0x300
#include "multiboot.h"
    movl $0x1ff, LAPIC + SVR
    movl $0x40051, LAPIC + ICR /* vector 0x51, to itself: pending, as interrupts are off */
    xor %eax, %eax
    .byte 0xf0, 0x0f, 0x22, 0xc0 /* lock mov %eax, %cr0 */
    mov $text, %esi
next:
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
    jmp next
end:
    xor %eax, %eax
    mov $0xf4, %dx
    out %al, %dx
hang:
    hlt
    jmp hang
    .section .rodata
text:
    .asciz "PASS: CR8 written while an interrupt waits\n"
