/* Moves the clocks of one process (LD_PRELOAD): the wall clock by the seconds that the file CLOCK_OFFSET holds, as when it
   is set; and every clock by those that the file CLOCK_PASSED holds, as when time passes. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>

static long seconds_in(const char *variable)
{
    const char *path = getenv(variable);
    FILE *file = path ? fopen(path, "r") : NULL;
    long seconds = 0;
    if (file) {
        if (fscanf(file, "%ld", &seconds) != 1)
            seconds = 0;
        fclose(file);
    }
    return seconds;
}

int gettimeofday(struct timeval *restrict time, void *restrict zone)
{
    static int (*real)(struct timeval *, void *);
    if (!real)
        real = (int (*)(struct timeval *, void *))dlsym(RTLD_NEXT, "gettimeofday");
    int failed = real(time, zone);
    if (!failed && time)
        time->tv_sec += seconds_in("CLOCK_OFFSET") + seconds_in("CLOCK_PASSED");
    return failed;
}

int clock_gettime(clockid_t clock, struct timespec *time)
{
    static int (*real)(clockid_t, struct timespec *);
    if (!real)
        real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int failed = real(clock, time);
    if (!failed && clock == CLOCK_REALTIME)
        time->tv_sec += seconds_in("CLOCK_OFFSET");
    if (!failed && (clock == CLOCK_REALTIME || clock == CLOCK_MONOTONIC || clock == CLOCK_BOOTTIME))
        time->tv_sec += seconds_in("CLOCK_PASSED");
    return failed;
}
