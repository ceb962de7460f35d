/* How each image begins: its multiboot header, which has to be in its first 8 KiB, and its entry.
 * Multiboot enters an image of a 64-bit ELF file in 32-bit mode too. */
#define MAGIC 0x1badb002
    .text
    .code32
    .align 4
    .long MAGIC, 0, -MAGIC
    .globl _start
_start:
    cli
