/* A QEMU that misbehaves: how, its own name says (stub-segfaults). See tests/support/stub_qemu.py. */
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static const char *behaviour;
static int console = -1, monitor = -1;

static int is(const char *name) { return !strcmp(behaviour, name); }

static void say(const char *text) { if (write(console, text, strlen(text)) < 0) _exit(9); }

static void wait_for_ever(void) { for (;;) pause(); }

static void flood(int fd, int byte, long bytes)
{
	char block[65536];
	memset(block, byte, sizeof block);
	for (; bytes; bytes -= bytes > 0 ? (long)sizeof block : 0)
		if (write(fd, block, sizeof block) < 0)
			_exit(9);
}

static int fd_of(int argc, char **argv, const char *id)
{
	char start[64];
	snprintf(start, sizeof start, "socket,id=%s,", id);
	for (int i = 1; i < argc; i++) {
		char *fd = strstr(argv[i], "fd=");
		if (!strncmp(argv[i], start, strlen(start)) && fd)
			return atoi(fd + 3);
	}
	return -1;
}

static const char GREETING[] =
	"{\"QMP\": {\"version\": {\"qemu\": {\"micro\": 22, \"minor\": 2, \"major\": 7},"
	" \"package\": \"stub\"}, \"capabilities\": []}}\r\n";

/* Answers to every command, of which one comes at a time; to a query with `found`. */
static void serve(const char *found, int delay_us)
{
	static char line[1 << 16];
	ssize_t length;
	dprintf(monitor, "%s", GREETING);
	while ((length = read(monitor, line, sizeof line - 1)) > 0) {
		line[length] = 0;
		char *id = strstr(line, "__qmp#"), *end = id ? strchr(id, '"') : 0;
		const char *answer = strstr(line, "query-commands") ? "[]"
			: strstr(line, "query-cpus") ? (*found == '{' ? "[]" : found)
			: strstr(line, "query-status") ? found
			: strstr(line, "human-monitor") ? "\"\""
			: "{}";
		usleep(delay_us);
		if (end)
			dprintf(monitor, "{\"return\": %s, \"id\": \"%.*s\"}\r\n", answer,
				(int)(end - id), id);
		else
			dprintf(monitor, "{\"return\": %s}\r\n", answer);
	}
	wait_for_ever();
}

static int version(void)
{
	if (is("version-garbage")) { puts("hello"); return 0; }
	if (is("version-fails")) { fputs("no libraries\n", stderr); return 3; }
	if (is("version-never")) wait_for_ever();
	if (is("version-endless")) flood(1, 'Q', -1);
	if (is("version-not-utf8")) { puts("QEMU emulator version 7.2\xff\xfe"); return 0; }
	puts(is("version-huge") ? "QEMU emulator version 999999999999999999999.1"
				: "QEMU emulator version 7.2.22 (stub)");
	return 0;
}

static int guest(void)
{
	if (is("exits-0")) return 0;
	if (is("exits-1")) return 1;
	if (is("exits-77")) return 77;
	if (is("refuses")) { fputs("stub: -cpu: no such thing\n", stderr); return 1; }
	if (is("segfaults")) raise(SIGSEGV);
	if (is("aborts")) { fputs("stub: assertion failed\n", stderr); abort(); }
	if (is("passes-and-segfaults")) { say("PASS: a\nSUMMARY: 1 tests\n"); raise(SIGSEGV); }
	if (is("ignores-sigterm")) { signal(SIGTERM, SIG_IGN); wait_for_ever(); }
	if (is("stops-itself")) { say("PASS: a\n"); raise(SIGSTOP); }
	if (is("floods-stderr")) { flood(2, 'e', 64 << 20); return 1; }
	if (is("floods-console")) { flood(console, 'c', 4 << 20); return 1; }
	if (is("leaves-a-session")) { if (!fork()) { setsid(); wait_for_ever(); } wait_for_ever(); }
	if (is("leaves-a-reader")) {
		if (!fork()) { setsid(); wait_for_ever(); }
		say("PASS: a\nSUMMARY: 1 tests\n");
		return 1;
	}
	if (is("speaks-after-its-end")) {
		if (!fork()) { setsid(); usleep(300000); say("FAIL: late\n"); wait_for_ever(); }
		say("PASS: a\nSUMMARY: 1 tests\n");
		return 1;
	}
	if (is("daemonizes")) { if (!fork()) { setsid(); wait_for_ever(); } return 0; }
	if (is("prints-the-end-mark")) {
		say("PASS: a\n\004irqmatrix: end of console\nFAIL: b\n");
		usleep(100000);
		say("FAIL: c\n");
		return 1;
	}
	if (is("closes-its-console")) {
		say("PASS: a\n");
		shutdown(console, SHUT_WR);
		close(console);
		wait_for_ever();
	}
	if (is("splits-lines")) {
		for (const char *c = "PASS: a\r\nSUMMARY: 1 tests\r\n"; *c; c++) {
			if (write(console, c, 1) < 0) return 9;
			usleep(2000);
		}
		return 1;
	}
	if (is("checks-less")) { say("PASS: a\nSUMMARY: 5 tests\n"); return 1; }
	if (is("ends-oddly")) { say("PASS: a\nSUMMARY: 1 tests\n"); return 5; }
	if (is("monitor-garbage")) {
		if (write(monitor, "\0\377 {no json\r\n{\"QMP\": 5}\n", 25) < 0) return 9;
		wait_for_ever();
	}
	if (is("monitor-half")) { dprintf(monitor, "%.40s", GREETING); wait_for_ever(); }
	if (is("monitor-closes")) {
		char byte;
		dprintf(monitor, "%s", GREETING);
		if (read(monitor, &byte, 1) < 0) return 9;
		shutdown(monitor, SHUT_RDWR);
		wait_for_ever();
	}
	if (is("monitor-floods")) flood(monitor, '{', -1);
	if (is("monitor-slow")) serve("{\"status\": \"running\"}", 100000);
	if (is("monitor-paused")) serve("{\"status\": \"paused\"}", 0);
	if (is("monitor-lies")) serve("5", 0);
	wait_for_ever(); /* silent, and whatever concerned the version only */
	return 0;
}

int main(int argc, char **argv)
{
	signal(SIGPIPE, SIG_IGN);
	behaviour = strstr(argv[0], "stub-");
	behaviour = behaviour ? behaviour + 5 : "silent";
	for (int i = 1; i < argc; i++) {
		if (!strcmp(argv[i], "--version"))
			return version();
		if (!strcmp(argv[i], "-L") && i + 1 < argc && !strcmp(argv[i + 1], "help"))
			return 0;
	}
	console = fd_of(argc, argv, "console");
	monitor = fd_of(argc, argv, "monitor");
	return guest();
}
