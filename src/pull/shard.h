/* Only what one device of a plan needs of a model (NOTES.md, Shards).
 *
 * A shard is a sparse copy of the file, all parts of a split one: as long as the whole, with the header, the
 * tensors of the device's layers (and for the head embedding and output) and the small ones that belong to
 * the whole model at their own places, and holes for the rest. So header digest, shape, marks and offsets are
 * those of the model, and everything that reads a model reads it; nobody computes with a hole
 * (src/model/gguf_holes.h). MODEL.gguf.tensors beside it says which tensors are there and with which digests
 * (src/model/tensor_list.h). */
#ifndef PRIMA_PULL_SHARD_H
#define PRIMA_PULL_SHARD_H
#include "net/fetch.h"
#include "planner/plan.h"
#include "src/model/gguf.h"
#include "src/pull/pull.h"

/* Ranges closer than this are fetched as one: a request costs more than these bytes. */
enum { SHARD_GAP_BYTES = 256 << 10 };

/* The index of the device of this name. PR_EUSAGE names those that the plan has. */
int shard_device(size_t *device, const plan *p, const char *name, pr_err *err);
/* Whether a device of a plan for this model needs a tensor; NULL: whether every device does. */
bool shard_wants(const plan_device *d, const gguf *g, size_t tensor);
/* Ranges of part `part` of the model (the header first) that a device needs: rising, disjoint, neighbours
 * closer than gap bytes joined. Caller frees. */
int shard_ranges(fetch_range **out, size_t *n, const plan_device *d, const gguf *g, size_t part, uint64_t gap,
                 pr_err *err);

/* --- pulling: what pull_model asks --------------------------------------------------------------------- */
typedef struct shard shard;
int shard_new(shard **out, const plan *p, const char *device, pr_err *err); /* p must outlive it */
/* The header, and what every device needs: for planning where nobody has the model. */
int shard_header_new(shard **out, pr_err *err);
void shard_free(shard *s); /* NULL is fine */
/* choose: reads the headers, PR_EMISMATCH when they are not the plan's (names both digests); refuses servers
 * without ranges (PR_ENETWORK). A final file that has what the device needs is left alone, another one is
 * PR_EMISMATCH. check: writes the list. Valid as long as s. */
pull_selection shard_selection(shard *s);

/* --- verifying ----------------------------------------------------------------------------------------- */
/* There is a list beside the model that this file is (a part of). */
bool shard_is(const char *path);
/* Every tensor in the list against its digest. PR_EINTEGRITY: the header is another one, or names
 * the first tensor that differs. Logs what was compared. */
int shard_verify(const char *path, pr_err *err);

#endif
