/* Any bytes as the header of a model of which a device wants its part: refused, or the ranges to fetch are
 * rising, disjoint, within what the header says the file has, and hold every tensor that is wanted. */
#include "src/pull/shard.h"
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void must(bool ok)
{
    if (!ok) abort();
}

static bool is_within(const fetch_range *r, size_t n, const gguf_tensor *t)
{
    for (size_t i = 0; i < n; i++)
        if (t->file_offset >= r[i].first && t->file_offset + t->n_bytes <= r[i].end) return true;
    return false;
}

static void check_ranges(const gguf *g, const plan_device *d, uint64_t gap, uint64_t header, uint64_t file)
{
    fetch_range *r;
    size_t n;

    must(!shard_ranges(&r, &n, d, g, 0, gap, NULL));
    must(n && r[0].first == 0 && r[0].end >= header && r[n - 1].end <= file);
    for (size_t i = 0; i < n; i++) {
        must(r[i].first < r[i].end);
        if (i) must(r[i].first > r[i - 1].end && r[i].first - r[i - 1].end >= gap);
    }
    for (size_t i = 0; i < gguf_n_tensors(g); i++)
        if (shard_wants(d, g, i)) must(is_within(r, n, gguf_tensor_at(g, i)));
    free(r);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    plan_window layers[2] = {{.first_layer = 1, .last_layer = 1}, {.first_layer = 3, .last_layer = 7}};
    const plan_device head = {.owns_embedding = true, .owns_output = true},
                      worker = {.window = layers, .n_windows = 2};
    const gguf_header_bytes part = {"fuzz.gguf", data, n};
    uint64_t header, file;
    gguf *g;
    pr_err err = {0};
    int rc = gguf_measure(data, n, &header, &file, &err);

    if (gguf_open_headers(&g, &part, 1, &err)) {
        must(*err.msg != 0);
        return 0;
    }
    must(!rc); /* what can be opened can be measured */
    check_ranges(g, NULL, 0, header, file);
    check_ranges(g, &head, SHARD_GAP_BYTES, header, file);
    check_ranges(g, &worker, 0, header, file);
    check_ranges(g, &worker, 4096, header, file);
    gguf_close(g);
    return 0;
}
