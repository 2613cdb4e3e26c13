/* Which bytes of a model a device needs; see shard.h. */
#include "src/pull/shard.h"
#include "src/model/tensor_use.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int shard_device(size_t *device, const plan *p, const char *name, pr_err *err)
{
    char names[256] = "";

    for (size_t i = 0; i < p->n_devices; i++) {
        size_t n = strlen(names);
        if (!strcmp(p->device[i].name, name)) {
            *device = i;
            return PR_OK;
        }
        snprintf(names + n, sizeof names - n, "%s%s", i ? ", " : "", p->device[i].name);
    }
    for (size_t i = 0; i < p->n_unused; i++)
        if (!strcmp(p->unused[i].name, name))
            return pr_fail(err, PR_EUSAGE,
                           "device %s has no layers in this plan (%s): it needs nothing of the model", name,
                           p->unused[i].reason);
    return pr_fail(err, PR_EUSAGE, "the plan has no device %s, but %s", name, names);
}

static bool has_layer(const plan_device *d, uint32_t layer)
{
    for (size_t i = 0; i < d->n_windows; i++)
        if (layer >= d->window[i].first_layer && layer <= d->window[i].last_layer) return true;
    return false;
}

bool shard_wants(const plan_device *d, const gguf *g, size_t tensor)
{
    uint32_t layer;
    tensor_use use = tensor_use_of(gguf_tensor_at(g, tensor)->name, &layer);

    if (use == USE_EVERYWHERE) return true;
    if (!d) return false;
    if (use == USE_LAYER) return has_layer(d, layer);
    if (use == USE_OUTPUT) return d->owns_output;
    return d->owns_embedding || (d->owns_output && !gguf_tensor_find(g, "output.weight"));
}

static int by_first(const void *a, const void *b)
{
    const fetch_range *x = a, *y = b;

    return (x->first > y->first) - (x->first < y->first);
}

int shard_ranges(fetch_range **out, size_t *n, const plan_device *d, const gguf *g, size_t part, uint64_t gap,
                 pr_err *err)
{
    size_t n_tensors = gguf_n_tensors(g), n_header, count = 1, joined = 1;
    fetch_range *r = malloc((n_tensors + 1) * sizeof *r);

    if (!r) return pr_fail(err, PR_ERESOURCE, "out of memory");
    gguf_header(g, part, &n_header);
    r[0] = (fetch_range){0, n_header};
    for (size_t i = 0; i < n_tensors; i++) {
        const gguf_tensor *t = gguf_tensor_at(g, i);
        if (t->part == part && shard_wants(d, g, i))
            r[count++] = (fetch_range){t->file_offset, t->file_offset + t->n_bytes};
    }
    qsort(r, count, sizeof *r, by_first);
    for (size_t i = 1; i < count; i++) { /* tensors do not overlap (gguf.h) */
        fetch_range *last = &r[joined - 1];
        if (r[i].first - last->end < gap || r[i].first == last->end) last->end = r[i].end;
        else r[joined++] = r[i];
    }
    *out = r;
    *n = joined;
    return PR_OK;
}
