/* Holds the line of QEMU's edu device high, a tenth of a second at a time, for a while.
 *
 *     storm BAR MILLISECONDS
 *
 * Prints how often it raised the line.  Nobody but the device can be relied on to lower it: in a
 * storm every return from the interrupt is the next one's entry, and user space may not get to run
 * for minutes.  So the device is told beforehand to write into its own acknowledge register, as a
 * DMA transfer, which takes 100 ms (QEMU 7.2 hw/misc/edu.c:edu_dma_timer).  Ends early when the
 * kernel has disabled the line.
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum { ALIVE = 0x04, IRQ_STATUS = 0x24, RAISE = 0x60, ACKNOWLEDGE = 0x64 };
enum { DMA_SOURCE = 0x80, DMA_TARGET = 0x88, DMA_COUNT = 0x90, DMA_COMMAND = 0x98 };
enum { DMA_RUN = 1, DMA_FROM_BUFFER = 2, DMA_BUFFER = 0x40000 };
enum { BIT = 1, POLL_MS = 5, LATE_MS = 20 };

static volatile char *device;
static uint32_t device_address;

static uint32_t get(int offset) { return *(volatile uint32_t *)(device + offset); }
static void set(int offset, uint32_t value) { *(volatile uint32_t *)(device + offset) = value; }

static long now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void start_dma(uint32_t source, uint32_t target, uint32_t direction)
{
    set(DMA_SOURCE, source);
    set(DMA_TARGET, target);
    set(DMA_COUNT, 4);
    set(DMA_COMMAND, DMA_RUN | direction);
}

static void finish_dma(void)
{
    while (get(DMA_COMMAND) & DMA_RUN)
        usleep(POLL_MS * 1000);
}

/* One assertion of the line; none if this process was held up before it. */
static int assertion(void)
{
    long start_ms = now_ms();

    start_dma(DMA_BUFFER, device_address + ACKNOWLEDGE, DMA_FROM_BUFFER);
    if (now_ms() - start_ms > LATE_MS) {
        finish_dma();
        return 0;
    }
    set(RAISE, BIT);
    finish_dma();
    /* A transfer that came before the line was raised has acknowledged nothing. */
    set(ACKNOWLEDGE, BIT);
    return 1;
}

static int nobody_cared(int messages)
{
    char record[1024];
    ssize_t size;

    while ((size = read(messages, record, sizeof(record) - 1)) > 0) {
        record[size] = '\0';
        if (strstr(record, "nobody cared") != NULL)
            return 1;
    }
    return 0;
}

int main(int argc, char **argv)
{
    int memory = open("/dev/mem", O_RDWR | O_SYNC);
    int messages = open("/dev/kmsg", O_RDONLY | O_NONBLOCK);
    int assertions = 0;
    long end_ms;

    if (argc != 3) {
        fprintf(stderr, "usage: storm BAR MILLISECONDS\n");
        return 2;
    }
    device_address = strtoul(argv[1], NULL, 0);
    device = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, memory, device_address);
    if (device == MAP_FAILED || messages < 0 || lseek(messages, 0, SEEK_END) < 0) {
        perror("storm");
        return 1;
    }
    /* The device can also read the bit to acknowledge from itself: "alive" answers inverted. */
    set(ALIVE, ~(uint32_t)BIT);
    start_dma(device_address + ALIVE, DMA_BUFFER, 0);
    finish_dma();

    end_ms = now_ms() + strtol(argv[2], NULL, 0);
    do
        assertions += assertion();
    while (!nobody_cared(messages) && now_ms() < end_ms);
    printf("%d\n", assertions);
    return 0;
}
