#include "accesses.h"
#include "log.h"

#define BATCH_PORT 0x2106
#define BATCH_OFFERED 1
#define MOST_LATER 64

static bool has_batch;
static struct access later[MOST_LATER];
static u32 later_count;

void accesses_find(void)
{
	has_batch = in8(BATCH_PORT) == BATCH_OFFERED;
}

static void do_access(struct access *access)
{
	switch (access->kind) {
	case LOAD32:
		access->value = load32(access->at);
		break;
	case STORE32:
		store32(access->at, access->value);
		break;
	case IN8:
		access->value = in8(access->at);
		break;
	case OUT8:
		out8(access->at, access->value);
		break;
	default:
		out32(access->at, access->value);
	}
}

void do_accesses(struct access *accesses, u32 count)
{
	const struct {
		struct access *accesses;
		u32 count;
	} request = { accesses, count };

	if (has_batch && count > 1) {
		out32(BATCH_PORT, (u32)&request);
		return;
	}
	for (u32 i = 0; i < count; i++)
		do_access(&accesses[i]);
}

static void add(struct access access)
{
	if (later_count == MOST_LATER)
		finish_accesses();
	later[later_count++] = access;
}

void later_store(u32 at, u32 value)
{
	add((struct access){ .kind = STORE32, .at = at, .value = value });
}

void later_out(u16 port, u8 value)
{
	add((struct access){ .kind = OUT8, .at = port, .value = value });
}

void later_expect_load(const char *what, u32 at, u32 expected)
{
	add((struct access){ .kind = LOAD32, .at = at, .expected = expected, .what = what });
}

void later_expect_in(const char *what, u16 port, u8 expected)
{
	add((struct access){ .kind = IN8, .at = port, .expected = expected, .what = what });
}

void later_in(u16 port)
{
	add((struct access){ .kind = IN8, .at = port });
}

void finish_accesses(void)
{
	u32 count = later_count;

	later_count = 0;
	do_accesses(later, count);
	for (u32 i = 0; i < count; i++)
		if (later[i].what && later[i].value != later[i].expected)
			log_dirty(&cpus[0], later[i].what, later[i].expected, later[i].value);
}

u8 finish_with_in(u16 port)
{
	u32 last;

	later_in(port);
	last = later_count - 1;
	finish_accesses();
	return later[last].value;
}
