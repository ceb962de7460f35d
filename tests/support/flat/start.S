/* A minimal multiboot image: prints a script on COM1 and ends as told.
 * Built by tests/support/flat_image.py with -DTEXT=... -DEND=... */
#define MAGIC 0x1badb002 /* its header has to be in the first 8 KiB: it leads the code */
    .text
    .align 4
    .long MAGIC, 0, -MAGIC
    .globl _start
_start:
    cli
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
    mov $END, %eax
    cmp $-1, %eax
    je hang
    mov $0xf4, %dx
    out %al, %dx
hang:
    hlt
    jmp hang
    .section .rodata
text:
    .incbin TEXT
    .byte 0
