/* The text file of a pack, `layers`: which layers are there (inside pack_file*.c, its tests, and `prima
 * inspect` through pack_file_about).
 *
 *   prima/pack/1 HEADER_SHA256 LAYOUT N_LAYERS
 *   layer INDEX BYTES SHA256 MARK   the record is on the disk; its digest, and gguf_mark_all of its tensors
 *   doubt INDEX                     it was there, and somebody has touched the file since
 *   lost INDEX                      it was found damaged, and is not there any more
 *   seal SECONDS                    layers.pack has had this modification time since
 *
 * Lines are only ever appended, after the disk has what they speak of. The last seal counts: while
 * layers.pack carries its time nobody has written to the records. That time lies in the past, so whoever
 * writes later changes it. Any text is taken; it is believed up to the first line that is not as above. */
#ifndef PRIMA_MODEL_PACK_FILE_JOURNAL_H
#define PRIMA_MODEL_PACK_FILE_JOURNAL_H
#include "src/base/hash.h"
#include "src/model/gguf_mark.h"
#include <stdbool.h>

enum { PACK_MAX_LAYERS = 4096, PACK_LINE_BYTES = 160, PACK_JOURNAL_MAX_BYTES = 64 << 20 };
/* Of one record; so no sum over layers overflows. */
#define PACK_MAX_RECORD_BYTES ((uint64_t)1 << 48)
extern const char pack_magic[]; /* the first word of the first line */

typedef enum { PACK_ABSENT, PACK_DOUBTED, PACK_HERE } pack_state;

typedef struct {
    pack_state state;
    uint64_t bytes;
    char sha256[HASH_HEX_BYTES];
    char mark[GGUF_MARK_BYTES];
} pack_entry;

typedef struct {
    char header_sha256[HASH_HEX_BYTES];
    uint32_t layout, n_layers;
    pack_entry *layer; /* [n_layers] */
    int64_t sealed;    /* of the last seal; 0: none */
    size_t n_read;     /* bytes of the lines that were believed */
} pack_journal;

/* PR_EINTEGRITY: the first line is not ours. */
int pack_journal_parse(pack_journal *out, const char *text, size_t n, pr_err *err);
void pack_journal_clear(pack_journal *j);

/* One line each, with its newline; returns its length. */
size_t pack_line_first(char out[PACK_LINE_BYTES], const char *header_sha256, uint32_t layout,
                       uint32_t n_layers);
size_t pack_line_layer(char out[PACK_LINE_BYTES], uint32_t layer, const pack_entry *e);
size_t pack_line_doubt(char out[PACK_LINE_BYTES], uint32_t layer);
size_t pack_line_lost(char out[PACK_LINE_BYTES], uint32_t layer);
size_t pack_line_seal(char out[PACK_LINE_BYTES], int64_t seconds);

#endif
