/* Moves the wall clock of one process (LD_PRELOAD) by the seconds that the file CLOCK_OFFSET holds;
   clocks that only count on are left alone. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

int clock_gettime(clockid_t clock, struct timespec *time)
{
    static int (*real)(clockid_t, struct timespec *);
    if (!real)
        real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int failed = real(clock, time);
    const char *path = getenv("CLOCK_OFFSET");
    if (failed || clock != CLOCK_REALTIME || !path)
        return failed;
    FILE *file = fopen(path, "r");
    long offset = 0;
    if (file) {
        if (fscanf(file, "%ld", &offset) == 1)
            time->tv_sec += offset;
        fclose(file);
    }
    return 0;
}
