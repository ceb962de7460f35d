/*
 * How the CPUs come here.  CPU 0: from a multiboot loader, without paging; QEMU has one for all its
 * machines.  The others: from real mode, at the page that a SIPI names.
 *
 * Sources: Multiboot Specification 0.6.96; SDM volume 3A, "MP
 * Initialization Protocol Algorithm for MP Systems".
 */
#include "segments.h"

#define MULTIBOOT_MAGIC 0x1badb002
#define MULTIBOOT_FLAGS 3		/* modules on page boundaries, memory sizes */
#define FLAT_ACCESS(type) ((type) << 8 | 0xcf << 16)
#define CR0_PE 1
#define RESTART_STACK 1024
#define CR0_CACHE_OFF (1 << 30 | 1 << 29)	/* CD and NW, set by INIT */

	.macro flat_segments
	mov	$DATA_SEGMENT, %eax
	mov	%eax, %ds
	mov	%eax, %es
	mov	%eax, %fs
	mov	%eax, %gs
	mov	%eax, %ss
	.endm

	.section .multiboot, "ax"
	.align 4
	.long MULTIBOOT_MAGIC, MULTIBOOT_FLAGS, -(MULTIBOOT_MAGIC + MULTIBOOT_FLAGS)

	.text
	.code32
	.globl multiboot_entry
multiboot_entry:
	cli
	cld
	lgdt	gdt_pointer
	ljmp	$CODE_SEGMENT, $1f
1:	flat_segments
	/* The top is for when this CPU comes back from an INIT. */
	mov	$stacks + (1 << STACK_SHIFT) - RESTART_STACK, %esp
	push	%ebx
	call	multiboot_program	/* what the loader gave, before anything is written */
	call	start			/* does not return */

/* Copied to each of the SIPI pages: all addresses are absolute or relative to CS. */
	.globl sipi_start, sipi_end
	.code16
sipi_start:
	cli
	mov	%cs, %bx		/* the page, shifted by 8 */
	lgdtl	%cs:(sipi_gdt_pointer - sipi_start)
	mov	%cr0, %eax
	and	$~CR0_CACHE_OFF, %eax
	or	$CR0_PE, %al
	mov	%eax, %cr0
	ljmpl	$CODE_SEGMENT, $ap_entry
	.align 4
sipi_gdt_pointer:
	.word	gdt_end - gdt - 1
	.long	gdt
sipi_end:

	.code32
ap_entry:
	flat_segments
	movzwl	%bx, %edi
	/* Which CPU: the initial APIC ID, which nothing changes. */
	mov	$1, %eax
	cpuid
	shr	$24, %ebx
	mov	%ebx, %eax
	inc	%ebx
	shl	$STACK_SHIFT, %ebx
	lea	stacks(%ebx), %esp
	shr	$8, %edi
	push	%edi
	push	%eax
	call	start_again		/* does not return */

	.section .data
	.align 8
gdt:
	.quad	0
	.long	0x0000ffff, FLAT_ACCESS(0x9b)
	.long	0x0000ffff, FLAT_ACCESS(0x93)
gdt_end:
gdt_pointer:
	.word	gdt_end - gdt - 1
	.long	gdt

	.section .note.GNU-stack, "", @progbits
