/*
 * Text is collected, and leaves as one: KVM makes an exit of each byte that goes to a port, a tenth
 * of a millisecond in a nested guest.
 */
#include "console.h"
#include "virtio.h"

#define CONSOLE_PORT 0x2100
#define EXIT_PORT 0xf4
#define STATUS_BROKEN 2

static char buffer[1 << 14];
static u32 used;
static bool has_virtio;

void console_find(void)
{
	has_virtio = virtio_port_find();
}

void say_flush(void)
{
	const char *from = buffer;
	u32 count = used;

	if (has_virtio)
		virtio_port_write(buffer, used);
	else
		asm volatile("rep outsb" : "+S"(from), "+c"(count) : "d"(CONSOLE_PORT) : "memory");
	used = 0;
}

void say_char(char c)
{
	if (used == sizeof(buffer))
		say_flush();
	buffer[used++] = c;
}

void say(const char *text)
{
	while (*text)
		say_char(*text++);
}

void say_hex(u64 number)
{
	u32 high = number >> 32, low = number;
	int digit = high ? highest_bit(high) / 4 + 8 : low ? highest_bit(low) / 4 : 0;

	for (; digit >= 0; digit--)
		say_char("0123456789abcdef"[number >> 4 * digit & 15]);
}

void leave(u8 value)
{
	say_flush();
	out32(EXIT_PORT, value);
	disable_interrupts();
	for (;;)
		halt();
}

void give_up(const char *why, u32 number)
{
	say("broken ");
	say_hex(number);
	say_char(' ');
	say(why);
	say_char('\n');
	leave(STATUS_BROKEN);
}
