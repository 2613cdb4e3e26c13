/* One model, from what source.h has resolved to files in a folder: what the server says of every part, room
 * on the disk, bytes (net/fetch.h), size, GGUF structure and SHA-256 (verify.h), and only then the final
 * names and NAME.sha256 beside them.
 *
 * Nothing wrong and nothing half stands under a final name at any time, and what is there is never
 * overwritten. */
#ifndef PRIMA_PULL_PULL_H
#define PRIMA_PULL_PULL_H
#include "net/fetch.h"
#include "src/pull/meter.h"
#include "src/pull/source.h"
#include <stdbool.h>
#include <stddef.h>

typedef struct {
    fetch_range *range; /* malloc'ed; rising, disjoint, within the file; n >= 1 unless is_there */
    size_t n;
    bool is_there; /* the final file is there and holds what is wanted: nothing is done for this file */
} pull_ranges;

/* Some of a model instead of all of it (a device's shard, shard.h). */
typedef struct {
    void *arg;
    /* Called once, before the first byte is taken into a file. x[i], path[i]: what the server says of file i
     * of n, and its final path; headers are read with fetch_bytes(f, &x[i], ...). Fills out[0, n), which pull
     * frees (also after an error). A final file that is there and is not what is wanted: PR_EMISMATCH. */
    int (*choose)(void *arg, fetch *f, const fetch_facts *x, const char *const *path, size_t n,
                  pull_ranges *out, pr_err *err);
    /* Called once, when all ranges are on the disk and the GGUF structure was found right, before the final
     * names. now[i]: where file i is (path[i] or "path[i].part"). PR_EINTEGRITY and PR_EMISMATCH set
     * the new files aside (path[i].bad). */
    int (*check)(void *arg, const char *const *now, const char *const *path, size_t n, pr_err *err);
} pull_selection;

typedef struct {
    const char *dir;          /* where files go; made when it is missing, its parents are not */
    const char *sha256;       /* 64 lower-case hexadecimal digits, for a model of one file; NULL: none */
    const volatile int *stop; /* non-zero: save the state and return PR_EINTERRUPTED */
    const pull_selection
        *only;    /* NULL: all of it, with a SHA-256 beside it; else no NAME.sha256 is written */
    meter *meter; /* the one that fetch reports to (fetch_options.progress = meter_fetched) */
} pull_options;

/* Errors beside those of fetch_head and fetch_ranges: PR_EMISMATCH another file has the final name, or
 * --sha256 is not what the hub says; PR_EINTEGRITY wrong bytes came (kept as NAME.bad); PR_ERESOURCE too
 * little room, not writable. */
int pull_model(const source *s, fetch *f, const pull_options *o, pr_err *err);

/* Without the network: the files of `s` that are in dir, all there and right (verify.h); else PR_ENETWORK. */
int pull_offline(const source *s, const pull_options *o, pr_err *err);

#endif
