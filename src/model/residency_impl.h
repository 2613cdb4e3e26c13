/* What residency*.c share; nobody else includes it. */
#ifndef PRIMA_MODEL_RESIDENCY_IMPL_H
#define PRIMA_MODEL_RESIDENCY_IMPL_H
#include "src/model/pieces.h"
#include "src/model/residency.h"
#include "src/model/weights_impl.h"
#include <pthread.h>
#include <stdatomic.h>

/* A window in pieces. */
struct weight_pieces {
    residency *r;
    uint32_t window;
    size_t n;
    piece *piece;        /* [n] */
    uint8_t **home;      /* [n] place in the region; NULL: always streamed, or empty */
    uint8_t **data;      /* [n] the same while it is resident; NULL: streamed, or empty */
    size_t *use;         /* [n] of streamed ones: number in a pass */
    atomic_size_t *left; /* [n] of streamed ones: groups that are not used yet in this pass */
    matrix_run *run;     /* of all matrices of all layers */
};

struct residency {
    pack_file *pack;
    stream_options so; /* but the order */
    uint32_t n_windows;
    weight_pieces **x; /* [n_windows] NULL: not ours. Owned by their weights */
    weights **w;       /* [n_windows] until taken */

    pthread_mutex_t mutex;   /* of all below, which other threads look at */
    stream *s;               /* made anew when pieces are given back; NULL: could not be */
    pr_err ended;            /* then: why */
    residency_counts before; /* of streams that are gone */
    stream_note note;
    void *note_arg;
};

/* --- residency_window.c */
static inline size_t residency_pieces(const residency_options *o, uint32_t i)
{
    return (size_t)(o->end[i] - o->first[i]) * LAYER_PIECES;
}
/* The pieces of window i (out: [residency_pieces]), and the bytes of its region. */
size_t residency_cut(piece *out, const hparams *hp, const residency_options *o, uint32_t i);
/* Its weights, with what is resident read. */
int residency_make_window(residency *r, const hparams *hp, const residency_options *o, uint32_t i,
                          pr_err *err);

/* --- residency.c: a stream in the order of what is not resident now. None runs; and its end. */
int residency_start(residency *r, pr_err *err);
void residency_stop(residency *r);

#endif
