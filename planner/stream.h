/* What a device waits for that streams: in how many pieces of read buffer, how long. Of problem.h's model the
 * part that depends on nothing but the figures below, so that it can be remembered: the search asks for the
 * same ones again and again, for another ring, another head, a faster link. */
#ifndef PRIMA_PLANNER_STREAM_H
#define PRIMA_PLANNER_STREAM_H
#include <stdint.h>

typedef struct {
    uint32_t pieces;     /* of a layer, at least 1 */
    uint32_t cpu_layers; /* more of their pieces than room */
    uint32_t rounds;
    uint32_t room;  /* pieces that RAM holds, at least STREAM_LEAST_BUFFER */
    double read_ms; /* of a piece from disk */
    double hide_ms; /* reading that computing a piece hides: theta of its time */
} stream;

enum { STREAM_LEAST_BUFFER = 2 }; /* pieces */

/* Pieces that a pass reads with this buffer. */
uint32_t stream_reads(const stream *s, uint32_t buffer);
/* All of room; with one window the least: a larger one would read more and hide nothing. */
uint32_t stream_largest_buffer(const stream *s);
/* The stall of a pass (problem.h) with a buffer of STREAM_LEAST_BUFFER .. stream_largest_buffer. */
double stream_stall_ms(const stream *s, uint32_t buffer);

/* The smallest buffer without a stall, or the largest there is; its stall. */
typedef struct {
    uint32_t buffer;
    double stall_ms;
} stream_choice;

/* Remembers choices; NULL remembers nothing. The answers are the same. One thread at a time. */
typedef struct stream_memo stream_memo;
stream_memo *stream_memo_new(void); /* NULL: no memory, which only costs time */
void stream_memo_free(stream_memo *m);
stream_choice stream_choose(stream_memo *m, const stream *s);

#endif
