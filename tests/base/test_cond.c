/* Waits end at their deadline, at a signal, and not before. */
#include "src/base/clock.h"
#include "src/base/cond.h"
#include <criterion/criterion.h>

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed;
static bool done;

Test(cond, a_deadline_ends_the_wait, .timeout = 20)
{
    uint64_t start = clock_ns(), until = start + 50000000;

    cond_init(&changed);
    pthread_mutex_lock(&mutex);
    while (cond_wait_until(&changed, &mutex, until)) {}
    pthread_mutex_unlock(&mutex);
    cr_assert_geq(clock_ns(), until);
    cr_assert_lt(clock_ms_since(start), 10000);
    cr_assert_not(cond_wait_until(&changed, &mutex, until), "it has passed: no wait");
}

static void *set_done(void *arg)
{
    (void)arg;
    pthread_mutex_lock(&mutex);
    done = true;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&mutex);
    return NULL;
}

Test(cond, a_signal_ends_the_wait, .timeout = 20)
{
    const uint64_t deadlines[] = {COND_FOREVER, clock_ns() + 15000000000u};

    for (int i = 0; i < 2; i++) {
        pthread_t t;
        cond_init(&changed);
        done = false;
        pthread_mutex_lock(&mutex);
        cr_assert_eq(pthread_create(&t, NULL, set_done, NULL), 0);
        while (!done) cr_assert(cond_wait_until(&changed, &mutex, deadlines[i]));
        pthread_mutex_unlock(&mutex);
        pthread_join(t, NULL);
        pthread_cond_destroy(&changed);
    }
}
