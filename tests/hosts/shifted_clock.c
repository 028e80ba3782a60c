/* Shifts the wall clock of a process by SHIFTED_CLOCK seconds, and no other clock: LD_PRELOAD it.
 *
 * Debian's libfaketime shifts what is slept, too, where a program sleeps until a time of the monotonic clock, as
 * Python does: such a sleep ends at once, or fails. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <linux/futex.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static long shift(void) {
    const char *text = getenv("SHIFTED_CLOCK");
    return text ? atol(text) : 0;
}

typedef long (*System)(long, long, long, long, long, long, long);
typedef int (*TimedWait)(pthread_cond_t *, pthread_mutex_t *, const struct timespec *);

/* The kernel's clock isn't shifted, so neither may be what it is asked to wait until. */
static long call(long number, long a, long b, long c, long d, long e, long f) {
    static System real;
    if (!real) real = (System)dlsym(RTLD_NEXT, "syscall");
    return real(number, a, b, c, d, e, f);
}

long syscall(long number, ...) {
    va_list list;
    long a[6];
    va_start(list, number);
    for (int i = 0; i < 6; i++) a[i] = va_arg(list, long);
    va_end(list);
    if (number == SYS_futex && (a[1] & FUTEX_CLOCK_REALTIME) && a[3]) {
        struct timespec until = *(struct timespec *)a[3];
        until.tv_sec -= shift();
        return call(number, a[0], a[1], a[2], (long)&until, a[4], a[5]);
    }
    return call(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

int pthread_cond_timedwait(pthread_cond_t *condition, pthread_mutex_t *mutex, const struct timespec *when) {
    static TimedWait real;
    if (!real) real = (TimedWait)dlsym(RTLD_NEXT, "pthread_cond_timedwait");
    struct timespec until = *when, now;
    call(SYS_clock_gettime, CLOCK_REALTIME, (long)&now, 0, 0, 0, 0);
    if (labs(until.tv_sec - shift() - now.tv_sec) < labs(shift()) / 2) until.tv_sec -= shift(); /* not monotonic */
    return real(condition, mutex, &until);
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    int failed = call(SYS_clock_gettime, clock, (long)now, 0, 0, 0, 0);
    if (!failed && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) now->tv_sec += shift();
    return failed;
}

int gettimeofday(struct timeval *now, void *zone) {
    struct timespec precise;
    (void)zone;
    int failed = clock_gettime(CLOCK_REALTIME, &precise);
    now->tv_sec = precise.tv_sec;
    now->tv_usec = precise.tv_nsec / 1000;
    return failed;
}

time_t time(time_t *now) {
    struct timespec precise;
    clock_gettime(CLOCK_REALTIME, &precise);
    if (now) *now = precise.tv_sec;
    return precise.tv_sec;
}
