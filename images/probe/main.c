/* From the loader to the last scenario. */
#include "clock.h"
#include "console.h"
#include "cpu.h"
#include "devices.h"
#include "ioapic.h"
#include "lapic.h"
#include "log.h"
#include "ops.h"
#include "reset.h"
#include "touched.h"
#include "trap.h"

#define VERSION 1
#define STATUS_DONE 0
#define STATUS_DIRTY 1
/* So often the reset looks at all there is, and not only at what was touched. */
#define FULL_RESET_EVERY 256

#define CPUID_FEATURES 1
#define CPUID_C_X2APIC (1u << 21)
#define CPUID_C_TSC_DEADLINE (1u << 24)

/* Multiboot Specification 0.6.96, "Boot information format". */
#define MULTIBOOT_HAS_COMMAND_LINE (1u << 2)
#define MULTIBOOT_HAS_MODULES (1u << 3)

struct multiboot_module {
	u32 start, end, text, reserved;
};

struct multiboot_info {
	u32 flags, memory_low, memory_high, boot_device, command_line;
	u32 module_count;
	const struct multiboot_module *modules;
};

static const struct program_file *file;
static char command_line[256];

static void copy_command_line(const char *text)
{
	for (u32 i = 0; text && text[i] && i < sizeof(command_line) - 1; i++)
		command_line[i] = text[i];
}

/* From boot.S, before anything is written. */
void multiboot_program(const struct multiboot_info *info)
{
	if (info->flags & MULTIBOOT_HAS_COMMAND_LINE)
		copy_command_line((const char *)info->command_line);
	if (info->flags & MULTIBOOT_HAS_MODULES && info->module_count)
		file = (const struct program_file *)info->modules->start;
}

/* A word of the command line, or what follows it; NULL where it is not there. */
static const char *option(const char *name)
{
	for (const char *at = command_line; *at; at++) {
		u32 length = 0;

		if (at != command_line && at[-1] != ' ')
			continue;
		while (name[length] && at[length] == name[length])
			length++;
		if (!name[length])
			return at + length;
	}
	return NULL;
}

static u32 number_option(const char *name)
{
	const char *at = option(name);
	u32 number = 0;

	for (; at && *at >= '0' && *at <= '9'; at++)
		number = number * 10 + (*at - '0');
	return number;
}

static const char *const feature_names[FEATURES] = {
	[FEATURE_X2APIC] = "x2apic",
	[FEATURE_TSC_DEADLINE] = "tsc_deadline",
	[FEATURE_MSI] = "msi",
	[FEATURE_LINES] = "lines",
	[FEATURE_IOAPIC2] = "ioapic2",
	[FEATURE_PIC] = "pic",
	[FEATURE_PIT] = "pit",
	[FEATURE_CR8] = "cr8",
	[FEATURE_HPET] = "hpet",
	[FEATURE_RTC] = "rtc",
	[FEATURE_KVM_APIC] = "kvm_apic",
	[FEATURE_HYPERV] = "hyperv",
	[FEATURE_MONITOR] = "monitor",
	[FEATURE_LINES2] = "lines2",
};

static u32 find_features(void)
{
	u32 c = cpuid(CPUID_FEATURES).c, found = 0;
	bool has[FEATURES] = {
		[FEATURE_X2APIC] = c & CPUID_C_X2APIC,
		[FEATURE_TSC_DEADLINE] = c & CPUID_C_TSC_DEADLINE,
		[FEATURE_MSI] = edu_find(),
		[FEATURE_LINES] = lines_find(),
		[FEATURE_IOAPIC2] = is_microvm,
		[FEATURE_PIC] = pic_find(),
		[FEATURE_PIT] = pit_find(),
		[FEATURE_CR8] = has_cr8(),
		[FEATURE_HPET] = hpet_find(),
		[FEATURE_RTC] = rtc_find(),
		[FEATURE_KVM_APIC] = has_pv_ipi(),
		[FEATURE_HYPERV] = has_hyperv(),
		[FEATURE_MONITOR] = option("monitor"),
		[FEATURE_LINES2] = is_microvm && virtio_lines_find(),
	};

	for (u32 feature = 0; feature < FEATURES; feature++)
		found |= (u32)has[feature] << feature;
	return found;
}

static void say_number(const char *name, u32 number)
{
	say_char(' ');
	say(name);
	say_char('=');
	say_hex(number);
}

static void say_features(u32 features)
{
	say("probe ");
	say_hex(VERSION);
	say_number("cpus", cpu_count);
	for (u32 feature = 0; feature < FEATURES; feature++)
		say_number(feature_names[feature], features >> feature & 1);
	say_number("tsc_per_us", tsc_per_us);
	say_char('\n');
	say_flush();
}

static const char *missing(const struct program *program, u32 features)
{
	u32 lacks = program->needs & ~features;

	if (program->cpus > cpu_count)
		return "cpus";
	return lacks ? feature_names[lowest_bit(lacks)] : NULL;
}

static bool prove_reset(void)
{
	bool is_clean;

	reset_distrust();
	proving = true;
	is_clean = reset_all(NULL);
	proving = false;
	return is_clean;
}

/* False: what came before has left something behind, and this one was not run. */
static bool run(const struct program *program, u32 features)
{
	const char *lacks = missing(program, features);
	bool is_clean = true;

	log_clear();
	current_step = 0;
	if (lacks) {
		log_event(&cpus[0], EVENT_SKIP, (u32)lacks);
	} else {
		is_clean = reset_all(program) && (!option("prove") || prove_reset());
		if (is_clean)
			run_program(program);
		disable_interrupts();
	}
	log_say();
	return is_clean;
}

static void run_all(u32 features, u32 from)
{
	const struct program *program = file->first;

	for (u32 number = 0; number < file->programs; number++, program = program_after(program)) {
		if (number < from)
			continue;
		if ((number - from) % FULL_RESET_EVERY == 0)
			reset_distrust();
		say("= ");
		say_hex(number);
		say_char('\n');
		if (!run(program, features))
			leave(STATUS_DIRTY);
		say(". ");
		say_hex(number);
		say_char('\n');
		say_flush();
	}
}

/* From boot.S, with interrupts off. */
_Noreturn void start(void)
{
	struct cpu *cpu = &cpus[0];
	u32 features;

	cpu->handling = NOT_HANDLING;
	cpu->faulted = true; /* an exception would have nowhere to go back to */
	returns_far = option("lret");
	console_find();
	make_vectors();
	load_vectors();
	lapic_find_mode(cpu);
	clock_start();
	find_cpus();
	is_microvm = ioapic_count() > 1;
	features = find_features();
	say_features(features);
	if (!file || file->magic != PROGRAM_MAGIC || file->format != PROGRAM_FORMAT)
		give_up("no program", file ? file->format : 0);
	run_all(features, number_option("from="));
	reset_distrust();
	if (!reset_all(NULL))
		log_say();
	say("done\n");
	leave(STATUS_DONE);
}
