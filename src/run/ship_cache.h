/* The cached copy of a model (inside ship_*.c and its test): CACHE/models/HEADER_SHA256/ with
 *
 *   model.gguf      or model-00001-of-0000N.gguf ...: sparse, as long as the whole
 *   parts           which tensors are there; also the lock
 *
 * `parts` is text, only ever appended to; a line that a crash has torn is cut off:
 *   prima/parts/1 HEADER_SHA256
 *   part INDEX SHA256      this tensor is on the disk (written after fsync)
 *   lost INDEX             it was found damaged
 *   seal SECONDS           all of the above is so, and the files carry this modification time
 * The time of a seal lies in the past, so whoever writes to the files later changes it. When the last line is
 * a seal that fits, the tensors are believed; otherwise (a crash, a stranger's hand) they are read and their
 * digests compared. The header is always verified. */
#ifndef PRIMA_RUN_SHIP_CACHE_H
#define PRIMA_RUN_SHIP_CACHE_H
#include "src/model/gguf.h"
#include <stdbool.h>

typedef struct ship_cache ship_cache;

/* The folder of this model; nothing is read yet. */
int ship_cache_open(ship_cache **out, const char *header_sha256, pr_err *err);
void ship_cache_close(ship_cache *c); /* gives the lock back; NULL is fine */

/* One process at a time fills a cache: false (PR_OK) while another one does. */
int ship_cache_lock(ship_cache *c, bool *locked, pr_err *err);
/* Look at what is there; with `verify` digests are compared in any case. Locked. */
int ship_cache_load(ship_cache *c, bool verify, pr_err *err);
/* Nothing is there any more. Who has the files mapped keeps them as they were. */
int ship_cache_reset(ship_cache *c, pr_err *err);
/* Make the files from the header of all parts. PR_EINTEGRITY: it is not the one of header_sha256. */
int ship_cache_make(ship_cache *c, const void *header, size_t n, uint64_t max_file_bytes, pr_err *err);

const char *ship_cache_path(const ship_cache *c); /* of the first file */
const gguf *ship_cache_gguf(const ship_cache *c); /* NULL: no header is there */
bool ship_cache_has(const ship_cache *c, size_t tensor);
/* PR_ERESOURCE with what is missing when n bytes do not fit on the disk. */
int ship_cache_check_room(const ship_cache *c, uint64_t n, pr_err *err);

/* n bytes of a tensor from byte `at` on. */
int ship_cache_write(ship_cache *c, size_t tensor, uint64_t at, const void *data, size_t n, pr_err *err);
/* All of it is written: *same says whether its digest is this one; if so it is kept. */
int ship_cache_keep(ship_cache *c, size_t tensor, const char *sha256, bool *same, pr_err *err);
/* What was kept is on the disk. */
int ship_cache_settle(ship_cache *c, pr_err *err);
int ship_cache_seal(ship_cache *c, pr_err *err);

#endif
