/* A model for a worker: its own file, or a cached one that the head fills with the tensors of its layers.
 *
 * The cached model is a sparse copy of the head's: as long as the whole, with the header and only the tensors
 * of this device's layers at their own places, so everything reads it like any model (ship_cache.h). Either
 * way the head looks at samples of the data: another model may have the same header. An own file in which a
 * wanted tensor is missing (a part of the model, gguf_holes.h) counts as none, with a warning; what the
 * head's own file does not have is not shipped.
 *
 *   worker -> head                                      head -> worker
 *   need {header, tensors: [index, ...],                have {tensor, bytes, sha256} and its bulk, for each
 *         held: [[index, mark], ...]}                   had  {differs: [index, ...]}: that was all
 *
 * tensor -1 is the header: what header_sha256 covers, of all files of a split model in order. An index counts
 * in the directory; a mark is gguf_mark of what the worker has. When marks differ nothing is sent but `had`.
 * The worker asks for some hundred MB at a time, so that other messages come through in between.
 *
 * The worker believes sizes and places from the header alone, whose digest the plan gives; a tensor counts as
 * there when its digest is the one announced and it is on the disk. */
#ifndef PRIMA_RUN_SHIP_H
#define PRIMA_RUN_SHIP_H
#include "src/model/model.h"
#include "src/run/control.h"
#include "src/run/engine.h"

enum { SHIP_HEADER = -1 };

/* --- worker -------------------------------------------------------------------------------------------- */
typedef struct {
    const char *path;          /* this device's own file; NULL or "": the cache */
    const char *header_sha256; /* the plan's */
    uint64_t file_bytes;       /* of the whole model, as the plan says: no header is longer */
    const layer_range *window; /* [n_windows] the layers that are wanted */
    size_t n_windows;
    uint64_t batch_bytes; /* asked for at once; 0 = 128 MiB */
    bool verify;          /* read and verify all that is cached, also when nobody has touched it */
} ship_wish;

typedef struct {
    uint64_t wanted_bytes;   /* header and tensors */
    uint64_t here_bytes;     /* of these, what was here already */
    uint64_t received_bytes; /* what came damaged and was sent again counts twice */
    size_t wanted, received; /* tensors */
    bool from_cache;
} ship_counts;

/* Opens the model that engine_new can then read the wanted layers from. Speaks to the head through k, which
 * nobody else reads meanwhile; beats are for the caller to send. counts may be NULL.
 *
 * PR_EMISMATCH: the own file is of another model (names both). PR_ERESOURCE: disk full (how much is missing),
 * or the file cannot be read. PR_EINTEGRITY: what came is not what was announced, three times. PR_EPEER: the
 * head is lost or says what does not belong here. PR_EINTERRUPTED: the head has ended the run. */
int ship_model(model *m, const ship_wish *w, control *k, ship_counts *counts, pr_err *err);

/* --- head ---------------------------------------------------------------------------------------------- */
/* The head's model with the digests of what has been sent, shared by all workers' conversations. */
typedef struct ship_source ship_source;
int ship_source_new(ship_source **out, const model *m, pr_err *err); /* m is borrowed */
void ship_source_free(ship_source *s);

/* Answers one `need`; several threads may, each on its own control. PR_EPEER: it asks for what does not
 * exist, or the worker is lost. PR_EINTEGRITY: it asks for what our own file does not have (names the
 * tensor). Nothing has been sent unless it is lost. */
int ship_answer(ship_source *s, control *k, const json_t *need, pr_err *err);

#endif
