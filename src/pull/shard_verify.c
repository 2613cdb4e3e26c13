/* Whether a shard is still what was pulled: each tensor against the digest in its list. */
#include "src/base/log.h"
#include "src/model/gguf_holes.h"
#include "src/model/tensor_list.h"
#include "src/pull/shard.h"
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static bool has_list(const gguf *g)
{
    char *path = tensor_list_path(gguf_part_path(g, 0));
    bool has = path && access(path, F_OK) == 0;

    free(path);
    return has;
}

bool shard_is(const char *path)
{
    gguf *g;
    bool is;

    if (gguf_open(&g, path, NULL)) return false;
    is = has_list(g);
    gguf_close(g);
    return is;
}

static bool is_same(const gguf_tensor *t, const char *sha256)
{
    char sha[HASH_HEX_BYTES];

    hash_sha256_hex(t->data, (size_t)t->n_bytes, sha);
    gguf_drop_pages(t->data, (size_t)t->n_bytes);
    return !strcmp(sha, sha256);
}

static int compare_all(const gguf *g, const tensor_list *l, uint64_t *n_bytes, pr_err *err)
{
    size_t differ = 0, first = 0;

    *n_bytes = 0;
    for (size_t i = 0; i < l->n; i++) {
        const gguf_tensor *t = gguf_tensor_at(g, i);
        if (!l->sha256[i][0]) continue;
        log_progress("verifying: tensor %zu of %zu", i + 1, l->n);
        *n_bytes += t->n_bytes;
        if (is_same(t, l->sha256[i])) continue;
        if (!differ++) first = i;
    }
    log_progress("%s", "");
    if (!differ) return PR_OK;
    return pr_fail(
        err, PR_EINTEGRITY,
        "%s: %zu of %zu tensors are not what was pulled (the first one is %s): move the file away and pull "
        "it again",
        gguf_part_path(g, gguf_tensor_at(g, first)->part), differ, l->n_there,
        gguf_tensor_at(g, first)->name);
}

static int verify_list(const gguf *g, const char *path, pr_err *err)
{
    tensor_list l;
    bool found;
    uint64_t n_bytes;
    int rc = tensor_list_read(&l, &found, g, err);

    if (rc) return rc;
    if (!found)
        return pr_fail(
            err, PR_EINTEGRITY,
            "%s: the header is not the one that was pulled with the list beside it: move both away and "
            "pull it again",
            path);
    rc = compare_all(g, &l, &n_bytes, err);
    if (!rc)
        log_info("%s: %zu of the model's %zu tensors are there, %" PRIu64 " bytes, as they were pulled", path,
                 l.n_there, l.n, n_bytes);
    tensor_list_clear(&l);
    return rc;
}

int shard_verify(const char *path, pr_err *err)
{
    gguf *g;
    int rc = gguf_open(&g, path, err);

    if (rc) return rc;
    rc = has_list(g) ? verify_list(g, path, err)
                     : pr_fail(err, PR_EUSAGE, "%s: no list of tensors is beside it", path);
    gguf_close(g);
    return rc;
}
