/* The streamed pieces of a device: bytes of its pack that are read again in every pass, ahead of their use,
 * by a thread of its own into a cyclic buffer (ring.md 8.3).
 *
 * A window is used in passes: stream_begin, its pieces in rising order, stream_end. The reader runs ahead
 * across windows, rounds and token boundaries in the order in which passes are expected: window after window,
 * each as many times in a row as it was used last time. A pass of another window than the expected one is
 * right too; what was read for nothing is counted. Static places and a known order beat any cache on cyclic
 * reading.
 *
 * Places of the buffer are FREE -> READING -> READY (and in use) -> FREE. */
#ifndef PRIMA_MODEL_STREAM_H
#define PRIMA_MODEL_STREAM_H
#include "src/base/disk_read.h"
#include "src/base/err.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum {
    STREAM_READ, /* into a buffer of our own (disk_read.h) */
    STREAM_MAP   /* through the page cache: mapped, "will need" as far ahead as the buffer would hold, "don't
                  * need"   after use; the system may take pages away, and then using them waits without being
                  * counted */
} stream_kind;

typedef struct {
    uint64_t at; /* in the file */
    size_t n;    /* at least 1 */
} stream_piece;

typedef struct {
    stream_kind kind;
    size_t n_windows;
    const size_t *first;       /* [n_windows + 1]: window i has piece[first[i]] to piece[first[i + 1]) */
    const stream_piece *piece; /* in the order of use */
    size_t n_slots;            /* places of the buffer, at least 2 */
    disk_read_options disk;
} stream_options;

/* One finished read, for traces; they follow each other: it begins when the one before it had ended, or when
 * it was asked for. */
typedef void (*stream_note)(void *arg, uint64_t start_ns, uint64_t end_ns, size_t bytes);

typedef struct stream stream;

/* Starts reading at once, the first window first. The options' arrays are copied. PR_ERESOURCE: memory, or
 * the file. */
int stream_new(stream **out, const char *path, const stream_options *o, pr_err *err);
void stream_free(stream *s); /* NULL is fine */
/* Bytes of the buffer. */
size_t stream_need_bytes(const stream_options *o);
void stream_watch(stream *s, stream_note note, void *arg); /* called from the reader's thread */

/* One pass at a time; between begin and end any thread may wait for pieces and give them back, each piece is
 * given back once. */
void stream_begin(stream *s, size_t window);
/* The bytes of piece i of this pass, counted within its window; waits until they are there. NULL: reading has
 * failed (stream_failed). */
const uint8_t *stream_wait(stream *s, size_t i);
void stream_done(stream *s, size_t i);
void stream_end(stream *s, size_t window);
/* PR_OK, or why reading ended: it does not begin again. */
int stream_failed(stream *s, pr_err *err);

typedef struct {
    uint64_t read_bytes, wasted_bytes; /* from the file; of these, for passes that came in another order */
    uint64_t stalls;                   /* times that computing had to wait */
    double stall_ms; /* and for how long, all in all (several threads that wait count once) */
} stream_counts;
stream_counts stream_about(stream *s); /* any thread */
disk_read_facts stream_disk(const stream *s);

#endif
