/* Put before a server's C library (LD_PRELOAD): makes flushes slow and the wall clock wrong, as a shared page says.
 *
 * The page is a file of three 64-bit numbers, named by QUINTET_TORTURE_PAGE: how many microseconds longer a flush
 * takes, and how many microseconds the wall clock is ahead, both written by the torture; and how many flushes were
 * slowed, written here. No file, or one that can't be mapped: nothing is changed.
 *
 * The monotonic clock is left alone, as a jump of the wall clock on a real machine leaves it. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#ifndef RWF_DSYNC
#define RWF_DSYNC 0x2
#endif
#define MICROSECONDS 1000000

struct page {
    _Atomic uint64_t flush_delay_us;
    _Atomic int64_t clock_ahead_us;
    _Atomic uint64_t slowed;
};

static struct page *page;

__attribute__((constructor)) static void map_page(void) {
    const char *path = getenv("QUINTET_TORTURE_PAGE");
    int file = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (file < 0)
        return;
    void *mapped = mmap(NULL, sizeof(struct page), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    if (mapped != MAP_FAILED)
        page = mapped;
}

/* ---- flushes */

static void take_time(void) {
    uint64_t delay_us = page ? page->flush_delay_us : 0;
    if (!delay_us)
        return;
    struct timespec left = {delay_us / MICROSECONDS, (delay_us % MICROSECONDS) * 1000};
    while (nanosleep(&left, &left))
        ;
    page->slowed++;
}

int fsync(int file) {
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
    take_time();
    return real(file);
}

int fdatasync(int file) {
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
    take_time();
    return real(file);
}

static ssize_t write_vector(const char *name, int file, const struct iovec *parts, int count, off_t at, int flags) {
    ssize_t (*real)(int, const struct iovec *, int, off_t, int) =
        (ssize_t(*)(int, const struct iovec *, int, off_t, int))dlsym(RTLD_NEXT, name);
    if (flags & RWF_DSYNC)
        take_time();
    return real(file, parts, count, at, flags);
}

ssize_t pwritev2(int file, const struct iovec *parts, int count, off_t at, int flags) {
    return write_vector("pwritev2", file, parts, count, at, flags);
}

ssize_t pwritev64v2(int file, const struct iovec *parts, int count, off_t at, int flags) {
    return write_vector("pwritev64v2", file, parts, count, at, flags);
}

/* ---- the wall clock */

static int64_t ahead_us(void) { return page ? page->clock_ahead_us : 0; }

int clock_gettime(clockid_t which, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real)
        real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(which, now);
    int64_t ahead = which == CLOCK_REALTIME || which == CLOCK_REALTIME_COARSE ? ahead_us() : 0;
    if (!result && ahead) {
        int64_t us = (int64_t)now->tv_sec * MICROSECONDS + now->tv_nsec / 1000 + ahead;
        now->tv_sec = us / MICROSECONDS;
        now->tv_nsec = (us % MICROSECONDS) * 1000;
    }
    return result;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    struct timespec found;
    (void)zone;
    if (clock_gettime(CLOCK_REALTIME, &found))
        return -1;
    now->tv_sec = found.tv_sec;
    now->tv_usec = found.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *now) {
    struct timespec found;
    if (clock_gettime(CLOCK_REALTIME, &found))
        return -1;
    if (now)
        *now = found.tv_sec;
    return found.tv_sec;
}
