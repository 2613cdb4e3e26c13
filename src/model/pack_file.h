/* Packed layers on disk: what a device streams or maps, built once.
 *
 * DIR/HEADER_SHA256-LAYOUT/ (DIR: --pack-dir, else CACHE/packs) with
 *
 *   layers.pack   sparse: layer i's record (layer_pack.h) at a place that depends on the model alone, layer
 *                 after layer in ring order, so that every window is one sequential extent whatever the plan
 *                 is; holes where no device of this machine needs a layer
 *   layers        text, which layers are there: digest of each record, and a mark of the tensors that it was
 *                 made from (pack_file_journal.h)
 *
 * Several processes of one machine share it: who builds holds a lock, layer by layer. A layer counts as there
 * when it has been written, is on the disk and its line is there too; a torn one is built again. What was
 * there before is believed when the file is as it was when it was sealed (modification time), otherwise its
 * digest is compared, once. A damaged layer is built again. One that was made from other tensors (another
 * model with the same header) makes the whole pack begin anew, unless another process uses it. LAYOUT is
 * LAYER_LAYOUT. */
#ifndef PRIMA_MODEL_PACK_FILE_H
#define PRIMA_MODEL_PACK_FILE_H
#include "src/model/layer_pack.h"
#include "src/model/model.h"

typedef struct pack_file pack_file;

typedef struct {
    const char *dir;   /* NULL: CACHE/packs */
    const char *label; /* of the progress line and the log; NULL: "packing" */
    bool verify;       /* read and compare all that is there in any case */
} pack_file_options;

/* What pack_file_open would find for layers [first[i], end[i]). */
typedef struct {
    uint64_t wanted_bytes; /* of all these layers */
    uint64_t here_bytes;   /* of these, what is there already, as the journal says */
    uint64_t free_bytes;
} pack_file_room;

/* Open, and build what is missing of these layers (rising, disjoint ranges). Only their tensors are touched,
 * and some MB of memory taken. Interruptible (`stop` becomes non-zero; NULL: never): what is built stays.
 * While another process builds a layer of this pack, waits for it. A folder that cannot be written to is used
 * when all is there. m and p are not used after return. PR_ERESOURCE: not enough room (says how much is
 * missing, before anything is written), disk full, I/O error; PR_EINTEGRITY: built, and read back otherwise;
 * PR_EINTERRUPTED. */
int pack_file_open(pack_file **out, const model *m, const uint32_t *first, const uint32_t *end, size_t n,
                   const pack_file_options *o, pool *p, const volatile int *stop, pr_err *err);
void pack_file_close(pack_file *f);

const char *pack_file_path(const pack_file *f); /* of layers.pack */
/* Where a layer's record begins, a multiple of LAYER_ALIGN, and how it is laid out. */
uint64_t pack_file_at(const pack_file *f, uint32_t layer);
const layer_layout *pack_file_layout(const pack_file *f, uint32_t layer);

/* Bytes [at, at + n) of the record of a layer that was asked for, through the page cache, which is emptied
 * behind it. PR_ERESOURCE: I/O error; PR_EINTEGRITY: the file has become shorter. Any thread. */
int pack_file_read(const pack_file *f, uint32_t layer, size_t at, size_t n, void *dst, pr_err *err);

/* Reads the journal only and makes nothing. *out is filled also when it fails: PR_ERESOURCE, not enough room,
 * as pack_file_open would say. */
int pack_file_check_room(pack_file_room *out, const model *m, const uint32_t *first, const uint32_t *end,
                         size_t n, const pack_file_options *o, pr_err *err);

/* For `prima inspect`: the text file of a pack. */
typedef struct {
    char header_sha256[65];
    uint32_t layout; /* LAYER_LAYOUT of who built it */
    uint32_t n_layers, n_here;
    uint64_t bytes_here;
    uint8_t *here; /* [n_layers] */
    bool sealed;   /* nobody has written to the records since they were read or written last */
} pack_file_facts;
/* path: the folder, or the file `layers` in it. PR_EINTEGRITY: it is not the journal of a pack. */
int pack_file_about(pack_file_facts *out, const char *path, pr_err *err);
void pack_file_facts_clear(pack_file_facts *x);

#endif
