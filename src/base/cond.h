/* Condition variables that wait until a moment of clock_ns(), on systems with and without a choice of clocks.
 */
#ifndef PRIMA_BASE_COND_H
#define PRIMA_BASE_COND_H
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#define COND_FOREVER UINT64_MAX

void cond_init(pthread_cond_t *c);
/* One wait under the mutex, which may end early; false, without waiting, when the deadline has passed. */
bool cond_wait_until(pthread_cond_t *c, pthread_mutex_t *mutex, uint64_t deadline_ns);

#endif
