/*
 * How a vector is entered and left, and the few other things that C cannot say.
 *
 * A KVM that emulates guests may know no IRET in protected mode; then handlers end with POPF and a
 * far return, and STI's shadow keeps the next interrupt out until the return is done.
 */
#include "segments.h"

#define EFLAGS_IF 0x200

	.text
	.globl vector_stubs
	.align 16
vector_stubs:				/* 16 bytes each */
	.set	vector, 0
	.rept	256
	.align	16
	push	$vector
	jmp	enter
	.set	vector, vector + 1
	.endr

/* trap() says where EIP, CS and EFLAGS lie: behind an error code or not. */
enter:
	pusha
	cld
	push	%esp
	call	trap
	add	$4, %esp
	mov	%eax, 32(%esp)		/* over the vector: the stack to return with */
	cmpb	$0, returns_far
	jne	1f
	popa
	pop	%esp
	iret

1:	mov	8(%eax), %ecx		/* EIP, CS, EFLAGS -> EFLAGS without IF, EIP, CS */
	mov	4(%eax), %edx
	mov	%edx, 8(%eax)
	mov	(%eax), %edx
	mov	%edx, 4(%eax)
	mov	%ecx, %edx
	and	$~EFLAGS_IF, %edx
	mov	%edx, (%eax)
	test	$EFLAGS_IF, %ecx
	jnz	2f
	popa
	pop	%esp
	popf
	lret
2:	popa
	pop	%esp
	popf
	sti
	lret

/* bool read_msr(u32 index, u64 *value) and bool write_msr(u32 index, u64 value): false for #GP. */
	.globl read_msr, write_msr, read_msr_faults, write_msr_faults, msr_fault
read_msr:
	mov	4(%esp), %ecx
read_msr_faults:
	rdmsr
	mov	8(%esp), %ecx
	mov	%eax, (%ecx)
	mov	%edx, 4(%ecx)
	mov	$1, %eax
	ret
write_msr:
	mov	4(%esp), %ecx
	mov	8(%esp), %eax
	mov	12(%esp), %edx
write_msr_faults:
	wrmsr
	mov	$1, %eax
	ret
msr_fault:				/* trap() goes on here after a #GP in one of them */
	xor	%eax, %eax
	ret

/* int mark(struct mark *) returns 0, and 1 once again after go_back(struct mark *). */
	.globl mark, go_back
mark:
	mov	4(%esp), %ecx
	mov	(%esp), %edx
	mov	%ebx, (%ecx)
	mov	%esi, 4(%ecx)
	mov	%edi, 8(%ecx)
	mov	%ebp, 12(%ecx)
	mov	%esp, 16(%ecx)
	mov	%edx, 20(%ecx)
	xor	%eax, %eax
	ret
go_back:
	mov	4(%esp), %ecx
	mov	(%ecx), %ebx
	mov	4(%ecx), %esi
	mov	8(%ecx), %edi
	mov	12(%ecx), %ebp
	mov	16(%ecx), %esp
	mov	20(%ecx), %edx
	mov	%edx, (%esp)
	mov	$1, %eax
	ret

	.section .note.GNU-stack, "", @progbits
