/* Starting threads; see thread.h. */
#include "src/base/thread.h"

enum { STACK_BYTES = 8 << 20 };

int thread_start(pthread_t *out, void *(*fn)(void *), void *arg)
{
    pthread_attr_t attr;
    int e = pthread_attr_init(&attr);

    if (e) return e;
    pthread_attr_setstacksize(&attr, STACK_BYTES);
    e = pthread_create(out, &attr, fn, arg);
    pthread_attr_destroy(&attr);
    return e;
}
