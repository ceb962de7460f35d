/* I/O ports and device memory for the workloads: distribution kernels have no /dev/port, and a
 * shell that is starved by an interrupt storm cannot end it.
 *
 *     poke out PORT VALUE | in PORT ...     port accesses, one after the other; prints what is
 *                                           read, a decimal number a line
 *     poke hold RAISE LOWER VALUE MS        writes VALUE to the physical address RAISE, and MS
 *                                           milliseconds later, or when told to end, to LOWER
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/io.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

static unsigned long number(const char *text) { return strtoul(text, NULL, 0); }

static int ports(int argc, char **argv)
{
    if (iopl(3) != 0) {
        perror("poke: iopl");
        return 1;
    }
    for (int i = 0; i < argc;) {
        if (strcmp(argv[i], "out") == 0 && i + 2 < argc) {
            outb(number(argv[i + 2]), number(argv[i + 1]));
            i += 3;
        } else if (strcmp(argv[i], "in") == 0 && i + 1 < argc) {
            printf("%u\n", inb(number(argv[i + 1])));
            i += 2;
        } else {
            return 2;
        }
    }
    return 0;
}

static volatile uint32_t *reg(int memory, unsigned long address)
{
    unsigned long page = address & ~4095UL;
    char *window = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, memory, page);

    if (window == MAP_FAILED) {
        perror("poke: mmap");
        exit(1);
    }
    return (volatile uint32_t *)(window + (address - page));
}

static int hold(char **argv)
{
    int memory = open("/dev/mem", O_RDWR | O_SYNC);
    volatile uint32_t *raise_at = reg(memory, number(argv[0]));
    volatile uint32_t *lower_at = reg(memory, number(argv[1]));
    uint32_t value = number(argv[2]);
    unsigned long ms = number(argv[3]);
    struct timespec time = { ms / 1000, ms % 1000 * 1000000 };
    sigset_t ends;

    /* Everything is in memory before the storm: there will be little time in it. */
    sigemptyset(&ends);
    sigaddset(&ends, SIGTERM);
    sigprocmask(SIG_BLOCK, &ends, NULL);
    mlockall(MCL_CURRENT);
    *raise_at = value;
    sigtimedwait(&ends, NULL, &time);
    *lower_at = value;
    return 0;
}

int main(int argc, char **argv)
{
    int status = 2;

    if (argc == 6 && strcmp(argv[1], "hold") == 0)
        status = hold(argv + 2);
    else if (argc > 2)
        status = ports(argc - 1, argv + 1);
    if (status == 2)
        fprintf(stderr, "usage: poke out PORT VALUE | in PORT ... | hold RAISE LOWER VALUE MS\n");
    return status;
}
