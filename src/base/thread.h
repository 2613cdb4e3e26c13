/* Threads with room for what we do in them. The system's own choice is 8 MiB on most Linux, but 512 KiB on
 * macOS and 128 KiB with musl, and planning takes more than that. */
#ifndef PRIMA_BASE_THREAD_H
#define PRIMA_BASE_THREAD_H
#include <pthread.h>

/* As pthread_create: 0, or an errno. Memory is taken as it is used. */
int thread_start(pthread_t *out, void *(*fn)(void *), void *arg);

#endif
