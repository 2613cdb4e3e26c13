/* Finding tensors that are not there; see gguf_holes.h.
 *
 * Holes are asked of the file system first, which costs no read: SEEK_HOLE and SEEK_DATA. One that does not
 * know of holes says that all is data; one that says hole where bytes are (it has been seen, with data not
 * yet written back) is caught by a look at the bytes. Then the content: the first byte that is not zero
 * settles it, so a matrix that is there costs one page. */
#include "src/model/gguf_holes.h"
#include "src/base/hash.h"
#include "src/model/tensor_list.h"
#include "src/model/tensor_use.h"
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    MATRIX_BYTES = 4096, /* from here on zeros are no accident */
    STEP_BYTES = 1 << 20
};

typedef enum { UNKNOWN, PRESENT, UNLISTED, HOLE, ZERO, ALTERED } finding;

struct gguf_holes {
    const gguf *g;
    int *fd;        /* [n_parts] */
    uint8_t *found; /* [n_tensors] finding */
    tensor_list list;
    bool has_list;
};

/* --- open and close ------------------------------------------------------------------------------ */
static int open_parts(gguf_holes *h, pr_err *err)
{
    size_t n = gguf_n_parts(h->g);

    h->fd = malloc(n * sizeof *h->fd);
    h->found = calloc(gguf_n_tensors(h->g) + 1, sizeof *h->found);
    if (!h->fd || !h->found) return pr_fail(err, PR_ERESOURCE, "out of memory");
    for (size_t i = 0; i < n; i++) h->fd[i] = -1;
    for (size_t i = 0; i < n; i++) {
        h->fd[i] = open(gguf_part_path(h->g, i), O_RDONLY | O_CLOEXEC);
        if (h->fd[i] < 0) return pr_fail_errno(err, PR_ERESOURCE, "%s", gguf_part_path(h->g, i));
    }
    return PR_OK;
}

int gguf_holes_open(gguf_holes **out, const gguf *g, pr_err *err)
{
    gguf_holes *h = calloc(1, sizeof *h);
    int rc;

    if (!h) return pr_fail(err, PR_ERESOURCE, "out of memory");
    h->g = g;
    if ((rc = open_parts(h, err)) || (rc = tensor_list_read(&h->list, &h->has_list, g, err)))
        gguf_holes_close(h);
    else *out = h;
    return rc;
}

void gguf_holes_close(gguf_holes *h)
{
    if (!h) return;
    for (size_t i = 0; h->fd && i < gguf_n_parts(h->g); i++)
        if (h->fd[i] >= 0) close(h->fd[i]);
    free(h->fd);
    free(h->found);
    tensor_list_clear(&h->list);
    free(h);
}

bool gguf_holes_is_listed(const gguf_holes *h)
{
    return h->has_list;
}

/* --- one tensor ---------------------------------------------------------------------------------- */
static bool is_zero(const uint8_t *p, size_t n)
{
    return !p[0] && !memcmp(p, p + 1, n - 1);
}

static bool is_all_zero(const gguf_tensor *t)
{
    for (uint64_t at = 0; at < t->n_bytes; at += STEP_BYTES) {
        uint64_t left = t->n_bytes - at;
        if (!is_zero(t->data + at, left < STEP_BYTES ? (size_t)left : STEP_BYTES)) return false;
    }
    return true;
}

/* Bytes of the tensor that the file system says are a hole, and that begin with zeros. */
static uint64_t hole_bytes(int fd, const gguf_tensor *t)
{
    uint64_t total = 0;
#ifdef SEEK_HOLE
    off_t at = (off_t)t->file_offset, end = (off_t)(t->file_offset + t->n_bytes);

    while (at < end) {
        off_t hole = lseek(fd, at, SEEK_HOLE), data;
        if (hole < 0 || hole >= end) break;
        data = lseek(fd, hole, SEEK_DATA);
        if (data < 0 || data > end) data = end; /* ENXIO: a hole up to the end of the file */
        size_t n = data - hole < MATRIX_BYTES ? (size_t)(data - hole) : MATRIX_BYTES;
        if (!n) break;
        if (is_zero(t->data + (hole - (off_t)t->file_offset), n)) total += (uint64_t)(data - hole);
        at = data;
    }
#else
    (void)fd;
    (void)t;
#endif
    return total;
}

static bool has_listed_digest(const gguf_holes *h, size_t i)
{
    const gguf_tensor *t = gguf_tensor_at(h->g, i);
    char sha[HASH_HEX_BYTES];

    hash_sha256_hex(t->data, (size_t)t->n_bytes, sha);
    return strcmp(sha, h->list.sha256[i]) == 0;
}

static finding look_at(const gguf_holes *h, size_t i)
{
    const gguf_tensor *t = gguf_tensor_at(h->g, i);
    tensor_use use = tensor_use_of(t->name, NULL);
    uint64_t allowed = use == USE_EMBEDDING || use == USE_OUTPUT ? t->n_bytes / 2 : 0;
    finding suspicion;

    if (h->has_list && !h->list.sha256[i][0]) return UNLISTED;
    if (t->n_dims < 2 || t->n_bytes < MATRIX_BYTES) return PRESENT;
    suspicion = hole_bytes(h->fd[t->part], t) > allowed ? HOLE : is_all_zero(t) ? ZERO : PRESENT;
    if (suspicion == PRESENT || !h->has_list) return suspicion;
    return has_listed_digest(h, i) ? PRESENT : ALTERED;
}

static finding find(gguf_holes *h, size_t i)
{
    if (h->found[i] == UNKNOWN) h->found[i] = (uint8_t)look_at(h, i);
    return (finding)h->found[i];
}

bool gguf_holes_has(gguf_holes *h, size_t tensor)
{
    return find(h, tensor) == PRESENT;
}

/* --- layers -------------------------------------------------------------------------------------- */
/* Whether all tensors of each layer are there. Every layer has a tensor at least, so there are no more layers
 * than tensors, whatever numbers the names have. Caller frees; *n is the highest layer's number plus one. */
static bool *whole_layers(gguf_holes *h, size_t *n)
{
    size_t n_tensors = gguf_n_tensors(h->g);
    bool *whole = malloc(n_tensors + 1);
    uint32_t layer;

    *n = 0;
    if (!whole) return NULL;
    memset(whole, true, n_tensors + 1);
    for (size_t i = 0; i < n_tensors; i++) {
        if (tensor_use_of(gguf_tensor_at(h->g, i)->name, &layer) != USE_LAYER || layer >= n_tensors) continue;
        if (layer >= *n) *n = (size_t)layer + 1;
        if (find(h, i) != PRESENT) whole[layer] = false;
    }
    return whole;
}

char *gguf_holes_layers(gguf_holes *h)
{
    size_t n, size, end;
    bool *whole = whole_layers(h, &n);
    char *text = NULL;
    FILE *f = whole ? open_memstream(&text, &size) : NULL;

    for (size_t first = 0; f && first < n; first = end + 1) {
        for (end = first; end < n && whole[end]; end++) {}
        if (end == first) continue;
        if (ftell(f) > 0) fputs(", ", f);
        fprintf(f, end - first > 1 ? "%zu..%zu" : "%zu", first, end - 1);
    }
    if (f && !ftell(f)) fputs("none", f);
    free(whole);
    return f && !fclose(f) ? text : NULL;
}

static int refuse(gguf_holes *h, size_t i, pr_err *err)
{
    const gguf_tensor *t = gguf_tensor_at(h->g, i);
    const char *path = gguf_part_path(h->g, t->part);
    finding why = find(h, i);
    char *name = gguf_text((gguf_str){t->name, strlen(t->name)}, SIZE_MAX), *layers = gguf_holes_layers(h);
    const char *shown = name ? name : "?", *there = layers ? layers : "?";

    if (why == UNLISTED)
        pr_fail(
            err, PR_EINTEGRITY,
            "%s holds only these layers: %s (a part of the model, made by prima pull --plan, as the "
            ".tensors file beside it says), and %s is needed here: pull with the plan and device that are "
            "run, or give the whole file without that list",
            path, there, shown);
    else if (why == ALTERED)
        pr_fail(err, PR_EINTEGRITY,
                "%s: tensor %s is not what prima pull has written there (it has holes or is zero): pull it "
                "again",
                path, shown);
    else
        pr_fail(err, PR_EINTEGRITY,
                "%s: tensor %s is not there: %s. This is a part of a model or an unfinished download (its "
                "whole layers: %s): give the whole file",
                path, shown, why == HOLE ? "the file has a hole in its place" : "all its bytes are zero",
                there);
    free(name);
    free(layers);
    return PR_EINTEGRITY;
}

int gguf_holes_need(gguf_holes *h, uint32_t first, uint32_t end, bool is_head, pr_err *err)
{
    for (size_t i = 0; i < gguf_n_tensors(h->g); i++) {
        uint32_t layer = 0;
        tensor_use use = tensor_use_of(gguf_tensor_at(h->g, i)->name, &layer);
        bool needed = use == USE_LAYER ? layer >= first && layer < end : use == USE_EVERYWHERE || is_head;

        if (needed && find(h, i) != PRESENT) return refuse(h, i, err);
    }
    return PR_OK;
}
