/* Preloaded: after some readings the wall clock jumps, first ahead and then back. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <time.h>

int clock_gettime(clockid_t id, struct timespec *now)
{
    static int (*real)(clockid_t, struct timespec *);
    static unsigned readings;
    if (!real)
        real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int status = real(id, now);
    if (status == 0 && id == CLOCK_REALTIME) {
        readings++;
        if (readings > 200)
            now->tv_sec -= 7200;
        else if (readings > 50)
            now->tv_sec += 7200;
    }
    return status;
}
