/* macOS has neither pthread_condattr_setclock nor monotonic deadlines: there a deadline becomes a wait. */
#include "src/base/cond.h"
#include "src/base/clock.h"
#include <time.h>

void cond_init(pthread_cond_t *c)
{
    pthread_condattr_t attr;

    pthread_condattr_init(&attr);
#ifndef __APPLE__
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
#endif
    pthread_cond_init(c, &attr);
    pthread_condattr_destroy(&attr);
}

bool cond_wait_until(pthread_cond_t *c, pthread_mutex_t *mutex, uint64_t deadline_ns)
{
    uint64_t now;

    if (deadline_ns == COND_FOREVER) {
        pthread_cond_wait(c, mutex);
        return true;
    }
    if ((now = clock_ns()) >= deadline_ns) return false;
#ifdef __APPLE__
    uint64_t left = deadline_ns - now;
    struct timespec t = {(time_t)(left / 1000000000), (long)(left % 1000000000)};
    pthread_cond_timedwait_relative_np(c, mutex, &t);
#else
    struct timespec t = {(time_t)(deadline_ns / 1000000000), (long)(deadline_ns % 1000000000)};
    pthread_cond_timedwait(c, mutex, &t);
#endif
    return true;
}
