/*
 * The question leaves by the console; the answer comes by pc-testdev's port that keeps what was last
 * written (hw/misc/pc-testdev.c: test_ioport_ops), from QEMU's monitor (HMP "o").  It raises nothing,
 * and a machine that was moved has a new one, which is 0.
 */
#include "monitor.h"
#include "clock.h"
#include "console.h"
#include "cpu.h"
#include "devices.h"

#define ANSWER_PORT 0xe0
#define NO_ANSWER 0
#define MOVED 2
#define BETWEEN_LOOKS_US 1000

static u32 answer(void)
{
	for (;;) {
		u64 next = in_us(BETWEEN_LOOKS_US);
		u32 found = in32(ANSWER_PORT);

		if (found != NO_ANSWER)
			return found;
		while (!is_past(next))
			stay_awake();
	}
}

void monitor_ask(u32 request)
{
	out32(ANSWER_PORT, NO_ANSWER);
	say("! ");
	say_hex(request);
	say_char('\n');
	say_flush();
	if (answer() == MOVED)
		edu_replaced();
}
