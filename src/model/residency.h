/* Windows that do not fit into memory whole: pieces (pieces.h) that are resident beside pieces that a stream
 * reads again in every pass. The windows of a device share one stream, since they share a disk and a buffer.
 */
#ifndef PRIMA_MODEL_RESIDENCY_H
#define PRIMA_MODEL_RESIDENCY_H
#include "src/model/model.h"
#include "src/model/pack_file.h"
#include "src/model/stream.h"
#include "src/model/weights.h"

typedef struct {
    uint32_t n_windows;
    const uint32_t *first, *end; /* [n_windows] layers */
    const uint32_t *streamed;    /* [n_windows] pieces of LAYER_PIECES x layers; 0: this window is not ours */
    uint32_t buffer_pieces;      /* places of the buffer, at least 2 */
    stream_kind kind;
    disk_read_options disk;
    const char *pack_dir; /* NULL: CACHE/packs */
} residency_options;

/* Bytes that it takes: of the resident parts of the windows that stream, and of the buffer. */
typedef struct {
    uint64_t weights, buffer;
    uint64_t streamed; /* read in every pass */
} residency_bytes;
int residency_need(residency_bytes *out, const hparams *hp, const residency_options *o, pr_err *err);

typedef struct residency residency;

/* Builds what is missing of the pack (pack_file.h) and reads what is resident; streaming begins. m is only
 * needed meanwhile. Errors: those of pack_file_open and stream_new. */
int residency_new(residency **out, const model *m, const residency_options *o, pool *p,
                  const volatile int *stop, pr_err *err);
void residency_free(residency *r); /* after its windows' weights */

/* The weights of window i (streamed > 0). The caller frees them. */
weights *residency_take_weights(residency *r, uint32_t i);

/* Between passes: about so many bytes of resident pieces are streamed from here on (bytes > 0), spread over
 * the windows, and their memory is the system's again; or (bytes < 0) so many of those given back are read
 * again and stay. *changed: bytes. The next pass begins with an empty buffer. Errors end the residency, as a
 * failed read does. */
int residency_adjust(residency *r, int64_t bytes, int64_t *changed, pr_err *err);

/* Reads are noted (stream.h) from here on; NULL: no more. */
void residency_watch(residency *r, stream_note note, void *arg);

/* Since the beginning; any thread. */
typedef struct {
    stream_counts stream;
    double busy_s;        /* reading */
    uint64_t pass_bytes;  /* read in every pass, as things are */
    uint64_t given_bytes; /* of resident pieces, as things are */
} residency_counts;
residency_counts residency_about(residency *r);
/* How reading is done. */
disk_read_facts residency_disk(residency *r);

#endif
