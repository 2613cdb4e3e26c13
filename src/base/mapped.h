/* Files that are mapped into memory can become shorter under us (somebody copies another over it, a download
 * is begun anew), or their disk can fail: then a read of the map is the signal SIGBUS, at any moment and in
 * any thread. There is nothing to go on with; but the user is told which file it was, and the exit status is
 * right.
 */
#ifndef PRIMA_BASE_MAPPED_H
#define PRIMA_BASE_MAPPED_H
#include <stddef.h>

/* From now on a read of p[0, n), a map of the file `path`, that fails ends the process: with a message and
 * exit status 8 when the file has become shorter, else 9. Out of memory: without message, as before. Any
 * thread. */
void mapped_watch(const void *p, size_t n, const char *path);
/* Before it is unmapped. */
void mapped_forget(const void *p);

#endif
