/* I/O ports for the workloads, because distribution kernels come without /dev/port.
 *
 *     portio out PORT VALUE ... in PORT ...
 *
 * does one access after the other and prints what was read, a decimal number a line.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/io.h>

int main(int argc, char **argv)
{
    if (iopl(3) != 0) {
        perror("portio: iopl");
        return 1;
    }
    for (int i = 1; i < argc;) {
        if (strcmp(argv[i], "out") == 0 && i + 2 < argc) {
            outb(strtoul(argv[i + 2], NULL, 0), strtoul(argv[i + 1], NULL, 0));
            i += 3;
        } else if (strcmp(argv[i], "in") == 0 && i + 1 < argc) {
            printf("%u\n", inb(strtoul(argv[i + 1], NULL, 0)));
            i += 2;
        } else {
            fprintf(stderr, "usage: portio out PORT VALUE | in PORT ...\n");
            return 2;
        }
    }
    return 0;
}
