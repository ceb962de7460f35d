/* Words, and the instructions that C has no words for. */
#ifndef X86_H
#define X86_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;

#define ARRAY_SIZE(array) (sizeof(array) / sizeof((array)[0]))
#define EFLAGS_IF 0x200u

static inline void out8(u16 port, u8 value)
{
	asm volatile("outb %0, %1" : : "a"(value), "Nd"(port) : "memory");
}

static inline void out16(u16 port, u16 value)
{
	asm volatile("outw %0, %1" : : "a"(value), "Nd"(port) : "memory");
}

static inline void out32(u16 port, u32 value)
{
	asm volatile("outl %0, %1" : : "a"(value), "Nd"(port) : "memory");
}

static inline u8 in8(u16 port)
{
	u8 value;

	asm volatile("inb %1, %0" : "=a"(value) : "Nd"(port) : "memory");
	return value;
}

static inline u16 in16(u16 port)
{
	u16 value;

	asm volatile("inw %1, %0" : "=a"(value) : "Nd"(port) : "memory");
	return value;
}

static inline u32 in32(u16 port)
{
	u32 value;

	asm volatile("inl %1, %0" : "=a"(value) : "Nd"(port) : "memory");
	return value;
}

/* One instruction of exactly that size: a hypervisor's emulator has to understand it. */
static inline u8 load8(u32 address)
{
	u8 value;

	asm volatile("movb (%1), %0" : "=q"(value) : "r"(address) : "memory");
	return value;
}

static inline u16 load16(u32 address)
{
	u16 value;

	asm volatile("movw (%1), %0" : "=r"(value) : "r"(address) : "memory");
	return value;
}

static inline u32 load32(u32 address)
{
	u32 value;

	asm volatile("movl (%1), %0" : "=r"(value) : "r"(address) : "memory");
	return value;
}

/* One instruction for all. */
static inline void load32s(u32 *to, u32 address, u32 count)
{
	asm volatile("rep movsl" : "+D"(to), "+S"(address), "+c"(count) : : "memory");
}

static inline u64 load64(u32 address)
{
	u64 value;

	/* Without EMMS, which not every KVM that emulates its guests knows: nothing here uses x87. */
	asm volatile("movq (%1), %%mm0\n\tmovq %%mm0, (%0)"
		     : : "r"(&value), "r"(address) : "memory");
	return value;
}

static inline void store8(u32 address, u8 value)
{
	asm volatile("movb %0, (%1)" : : "q"(value), "r"(address) : "memory");
}

static inline void store16(u32 address, u16 value)
{
	asm volatile("movw %0, (%1)" : : "r"(value), "r"(address) : "memory");
}

static inline void store32(u32 address, u32 value)
{
	asm volatile("movl %0, (%1)" : : "r"(value), "r"(address) : "memory");
}

static inline void store64(u32 address, u64 value)
{
	asm volatile("movq (%0), %%mm0\n\tmovq %%mm0, (%1)"
		     : : "r"(&value), "r"(address) : "memory");
}

struct cpuid {
	u32 a, b, c, d;
};

static inline struct cpuid cpuid(u32 leaf)
{
	struct cpuid is;

	asm volatile("cpuid"
		     : "=a"(is.a), "=b"(is.b), "=c"(is.c), "=d"(is.d)
		     : "a"(leaf), "c"(0)
		     : "memory");
	return is;
}

/* CR8 in 32-bit code: LOCK MOV CR0 (AMD64 APM volume 3, "MOV CRn"; CPUID 0x80000001, ECX bit 4). */
static inline bool has_cr8(void)
{
	return cpuid(0x80000000u).a > 0x80000000u && cpuid(0x80000001u).c & 1 << 4;
}

static inline void write_cr8(u32 value)
{
	asm volatile(".byte 0xf0, 0x0f, 0x22, 0xc0" : : "a"(value) : "memory");
}

static inline u64 tsc(void)
{
	u64 value;

	asm volatile("rdtsc" : "=A"(value) : : "memory");
	return value;
}

static inline void relax(void)
{
	asm volatile("pause" : : : "memory");
}

static inline void disable_interrupts(void)
{
	asm volatile("cli" : : : "memory");
}

/* STI, and the one instruction after it for which interrupts are still held off. */
static inline void enable_interrupts(void)
{
	asm volatile("sti\n\tnop" : : : "memory");
}

static inline bool interrupts_enabled(void)
{
	u32 flags;

	asm volatile("pushf\n\tpop %0" : "=r"(flags) : : "memory");
	return flags & EFLAGS_IF;
}

/* Interrupts off; true where they were on. */
static inline bool hold_interrupts(void)
{
	bool were_on = interrupts_enabled();

	disable_interrupts();
	return were_on;
}

static inline void release_interrupts(bool were_on)
{
	if (were_on)
		enable_interrupts();
}

static inline void halt(void)
{
	asm volatile("hlt" : : : "memory");
}

static inline u32 fetch_and_add(u32 *counter, u32 amount)
{
	asm volatile("lock xaddl %0, %1" : "+r"(amount), "+m"(*counter) : : "memory");
	return amount;
}

static inline u32 exchange(u32 *word, u32 value)
{
	asm volatile("xchgl %0, %1" : "+r"(value), "+m"(*word) : : "memory");
	return value;
}

static inline u32 cr2(void)
{
	u32 value;

	asm volatile("movl %%cr2, %0" : "=r"(value));
	return value;
}

static inline u32 highest_bit(u32 word)
{
	u32 bit;

	asm("bsrl %1, %0" : "=r"(bit) : "rm"(word));
	return bit;
}

static inline u32 lowest_bit(u32 word)
{
	u32 bit;

	asm("bsfl %1, %0" : "=r"(bit) : "rm"(word));
	return bit;
}

/* memory.c */
void *memset(void *to, int value, size_t count);
void *memcpy(void *to, const void *from, size_t count);

/* entry.S */
bool read_msr(u32 index, u64 *value);
bool write_msr(u32 index, u64 value);

#endif
