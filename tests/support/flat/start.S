/* A minimal multiboot image: prints a script on COM1 or a debug console, and ends as it has to.
 * Built by tests/support/flat_image.py with -DTEXT=... -DEND=... -DPORT=... */
#define COM1 0x3f8
#define HANG -1
#define RESET -2
#define POWER_OFF -3
#define SPIN -4
#include "multiboot.h"
    mov $text, %esi
next:
    lodsb
    test %al, %al
    jz end
    mov %al, %bl
#if PORT == COM1
wait:
    mov $COM1 + 5, %dx
    in %dx, %al
    test $0x20, %al
    jz wait
#endif
    mov $PORT, %dx
    mov %bl, %al
    out %al, %dx
    jmp next
end:
#if END == RESET
    lidt nothing /* no handler for anything: a triple fault */
    int3
#elif END == POWER_OFF
    mov $0x604, %dx /* PM1a_CNT where SeaBIOS puts it on q35 and pc */
    mov $0x2000, %ax
    out %ax, %dx
#elif END == SPIN
spin:
    jmp spin
#elif END != HANG
    mov $END, %eax
    mov $0xf4, %dx
    out %al, %dx
#endif
hang:
    hlt
    jmp hang
    .section .rodata
text:
    .incbin TEXT
    .byte 0
nothing:
    .skip 10
