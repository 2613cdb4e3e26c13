/* prima inspect: a part of a model; see inspect_shard.h. */
#include "src/inspect_shard.h"
#include "src/model/gguf_holes.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

static int look(shard_facts *x, const gguf *g, gguf_holes *h, pr_err *err)
{
    size_t n = gguf_n_tensors(g);

    x->is_listed = gguf_holes_is_listed(h);
    x->layers = gguf_holes_layers(h);
    x->there = calloc(n + 1, sizeof *x->there);
    if (!x->layers || !x->there) return pr_fail(err, PR_ERESOURCE, "out of memory");
    for (size_t i = 0; i < n; i++) {
        uint64_t n_bytes = gguf_tensor_at(g, i)->n_bytes;
        x->there[i] = gguf_holes_has(h, i);
        x->n_there += x->there[i];
        x->there_bytes += x->there[i] ? n_bytes : 0;
        x->all_bytes += n_bytes;
    }
    x->is_whole = x->n_there == n;
    return PR_OK;
}

int shard_facts_read(shard_facts *x, const gguf *g, pr_err *err)
{
    gguf_holes *h;
    int rc = gguf_holes_open(&h, g, err);

    *x = (shard_facts){0};
    if (rc) return rc;
    rc = look(x, g, h, err);
    gguf_holes_close(h);
    return rc;
}

void shard_facts_clear(shard_facts *x)
{
    free(x->there);
    free(x->layers);
    *x = (shard_facts){0};
}

static double there_pct(const shard_facts *x)
{
    return x->all_bytes ? 100.0 * (double)x->there_bytes / (double)x->all_bytes : 0;
}

void shard_facts_print(const shard_facts *x)
{
    if (x->is_whole) return;
    printf("%-16sa part of the model: layers %s; %" PRIu64 " of %" PRIu64 " bytes of tensors (%.1f%%)%s\n",
           "", x->layers, x->there_bytes, x->all_bytes, there_pct(x),
           x->is_listed ? "" : "; no list of tensors beside it");
}

json_t *shard_facts_json(const shard_facts *x)
{
    if (x->is_whole) return json_null();
    return json_pack("{s:s, s:I, s:I, s:I, s:b}", "layers", x->layers, "tensors", (json_int_t)x->n_there,
                     "there_bytes", (json_int_t)x->there_bytes, "tensor_bytes", (json_int_t)x->all_bytes,
                     "listed", x->is_listed);
}
