/* Pulling a device's part: what pull_model asks before and after the bytes come (pull.h, pull_selection).
 *
 * Before: the header of every part is read by ranges into memory, ever more of it until it parses, and held
 * against the plan; it says where the wanted tensors lie. After: what lies there is hashed into the list,
 * which stands beside the file before the file has its name, so that no shard is ever without one. */
#include "src/base/log.h"
#include "src/model/gguf_holes.h"
#include "src/model/tensor_list.h"
#include "src/pull/shard.h"
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    HEADER_FIRST_BYTES = 1 << 20,
    HEADER_MAX_BYTES = 64 << 20, /* of the largest vocabularies, several times over; a hostile one costs some
                                  * times this memory */
    HEADER_GROWTH = 4
};

struct shard {
    const plan *p;             /* NULL, and: */
    const plan_device *d;      /* NULL: the header and what every device needs */
    gguf_header_bytes *header; /* [n_parts] */
    size_t n_parts;
    gguf *g;           /* of the headers */
    tensor_list list;  /* of what will be there */
    bool *to_hash;     /* [n_tensors] comes new */
    bool has_new_part; /* something is fetched at all */
};

static int make(shard **out, const plan *p, const plan_device *d, pr_err *err)
{
    shard *s = calloc(1, sizeof *s);

    if (!s) return pr_fail(err, PR_ERESOURCE, "out of memory");
    s->p = p;
    s->d = d;
    *out = s;
    return PR_OK;
}

int shard_new(shard **out, const plan *p, const char *device, pr_err *err)
{
    size_t i;
    int rc = shard_device(&i, p, device, err);

    return rc ? rc : make(out, p, &p->device[i], err);
}

int shard_header_new(shard **out, pr_err *err)
{
    return make(out, NULL, NULL, err);
}

static void forget(shard *s)
{
    gguf_close(s->g);
    for (size_t i = 0; i < s->n_parts; i++) {
        free((void *)s->header[i].p);
        free((char *)s->header[i].path);
    }
    free(s->header);
    tensor_list_clear(&s->list);
    free(s->to_hash);
    *s = (shard){.p = s->p, .d = s->d};
}

void shard_free(shard *s)
{
    if (!s) return;
    forget(s);
    free(s);
}

/* --- headers ---------------------------------------------------------------------------------------------
 */
static int check_server(const fetch_facts *x, pr_err *err)
{
    if (!x->has_ranges || !x->has_bytes)
        return pr_fail(
            err, PR_ENETWORK,
            "%s: this server gives no ranges of a file, so a part of it cannot be fetched: pull the whole "
            "model (without --plan)",
            x->url);
    return PR_OK;
}

/* The first bytes of a file, ever more of them until they hold the header. */
static int read_header(fetch *f, const fetch_facts *x, gguf_header_bytes *h, pr_err *err)
{
    uint64_t most = x->bytes < HEADER_MAX_BYTES ? x->bytes : HEADER_MAX_BYTES, header_bytes, file_bytes;
    pr_err why = {0};

    for (uint64_t want = HEADER_FIRST_BYTES;; want *= HEADER_GROWTH) {
        int rc;
        uint8_t *bigger;
        if (want > most) want = most;
        if (!(bigger = realloc((void *)h->p, (size_t)want + 1)))
            return pr_fail(err, PR_ERESOURCE, "out of memory");
        h->p = bigger;
        if (want > h->n && (rc = fetch_bytes(f, x, h->n, (size_t)want - h->n, bigger + h->n, err))) return rc;
        h->n = (size_t)want;
        rc = gguf_measure(h->p, h->n, &header_bytes, &file_bytes, &why);
        if (!rc) break;
        if (rc != PR_EINTEGRITY || want == most || h->n < 4 || memcmp(h->p, "GGUF", 4))
            return pr_fail(err, rc, "%s: %s", x->url, why.msg);
    }
    if (file_bytes > x->bytes)
        return pr_fail(err, PR_EINTEGRITY, "%s has %" PRIu64 " bytes, but its header speaks of %" PRIu64,
                       x->url, x->bytes, file_bytes);
    h->n = (size_t)header_bytes;
    return PR_OK;
}

static int check_plan(const shard *s, const fetch_facts *x, pr_err *err)
{
    char sha[HASH_HEX_BYTES];
    uint64_t total = 0;

    for (size_t i = 0; i < s->n_parts; i++) total += x[i].bytes;
    gguf_header_sha256(s->g, sha);
    if (strcmp(sha, s->p->model.header_sha256))
        return pr_fail(
            err, PR_EMISMATCH,
            "%s has a header with digest %.12s, the plan is for a model with %.12s (%s %s): give the source "
            "of the plan's model, or plan with this one",
            x[0].url, sha, s->p->model.header_sha256, s->p->model.name, s->p->model.quant);
    if (total != s->p->model.file_bytes)
        return pr_fail(err, PR_EMISMATCH,
                       "%s has %" PRIu64 " bytes in all, the plan's model (with the same header) %" PRIu64,
                       x[0].url, total, s->p->model.file_bytes);
    return PR_OK;
}

static int read_headers(shard *s, fetch *f, const fetch_facts *x, const char *const *path, size_t n,
                        pr_err *err)
{
    int rc = PR_OK;

    if (!(s->header = calloc(n, sizeof *s->header))) return pr_fail(err, PR_ERESOURCE, "out of memory");
    for (size_t i = 0; i < n && !rc; i++) {
        s->n_parts++;
        if (!(s->header[i].path = strdup(path[i]))) return pr_fail(err, PR_ERESOURCE, "out of memory");
        if (!(rc = check_server(&x[i], err))) rc = read_header(f, &x[i], &s->header[i], err);
    }
    if (rc || (rc = gguf_open_headers(&s->g, s->header, n, err)) || (s->p && (rc = check_plan(s, x, err))) ||
        (rc = tensor_list_init(&s->list, s->g, err)))
        return rc;
    s->to_hash = calloc(gguf_n_tensors(s->g) + 1, sizeof *s->to_hash);
    return s->to_hash ? PR_OK : pr_fail(err, PR_ERESOURCE, "out of memory");
}

/* --- what is there already -------------------------------------------------------------------------------
 */
static int is_another(const char *path, const char *what, pr_err *err)
{
    return pr_fail(
        err, PR_EMISMATCH,
        "%s is there already and %s: move it away, or name another folder with -o (nothing is overwritten)",
        path, what);
}

/* The final file of a part has this length and this header. */
static int check_final(const shard *s, size_t part, uint64_t n_bytes, pr_err *err)
{
    const gguf_header_bytes *h = &s->header[part];
    int fd = open(h->path, O_RDONLY | O_CLOEXEC);
    void *p = MAP_FAILED;
    struct stat st;
    bool same;

    if (fd < 0) return pr_fail_errno(err, PR_ERESOURCE, "%s", h->path);
    same = !fstat(fd, &st) && S_ISREG(st.st_mode) && (uint64_t)st.st_size == n_bytes;
    if (same) p = mmap(NULL, h->n, PROT_READ, MAP_PRIVATE, fd, 0);
    same = p != MAP_FAILED && !memcmp(p, h->p, h->n);
    if (p != MAP_FAILED) munmap(p, h->n);
    close(fd);
    return same ? PR_OK : is_another(h->path, "is another model", err);
}

/* What the list of files that are there says of a part's wanted tensors. */
static int take_listed(shard *s, const tensor_list *old, size_t part, pr_err *err)
{
    for (size_t i = 0; i < old->n; i++) {
        const gguf_tensor *t = gguf_tensor_at(s->g, i);
        if (t->part != part) continue;
        if (!old->sha256[i][0] && shard_wants(s->d, s->g, i))
            return is_another(s->header[part].path, "is a part of the model that lacks layers of this device",
                              err);
        memcpy(s->list.sha256[i], old->sha256[i], HASH_HEX_BYTES);
    }
    return PR_OK;
}

/* Files without a list: the whole model, perhaps. */
static int check_whole(const shard *s, pr_err *err)
{
    gguf_holes *h = NULL;
    gguf *g = NULL;
    int rc = gguf_open(&g, s->header[0].path, err);

    if (!rc) rc = gguf_holes_open(&h, g, err);
    for (size_t i = 0; i < gguf_n_tensors(s->g) && !rc; i++)
        if (shard_wants(s->d, s->g, i) && !gguf_holes_has(h, i))
            rc = is_another(s->header[0].path, "is a part of the model without a list of its tensors", err);
    gguf_holes_close(h);
    gguf_close(g);
    return rc;
}

/* Sets is_there of the parts that are there and right. */
static int look_at_finals(shard *s, const fetch_facts *x, pull_ranges *out, pr_err *err)
{
    tensor_list old;
    bool listed;
    size_t n_there = 0;
    int rc = PR_OK;

    for (size_t i = 0; i < s->n_parts && !rc; i++) {
        out[i].is_there = access(s->header[i].path, F_OK) == 0;
        n_there += out[i].is_there;
        if (out[i].is_there) rc = check_final(s, i, x[i].bytes, err);
    }
    if (rc || !n_there || (rc = tensor_list_read(&old, &listed, s->g, err))) return rc;
    if (!listed && n_there == s->n_parts) return check_whole(s, err);
    for (size_t i = 0; i < s->n_parts && !rc; i++) {
        if (!out[i].is_there) continue;
        rc = listed ? take_listed(s, &old, i, err)
                    : is_another(s->header[i].path, "other parts of the model are not", err);
    }
    tensor_list_clear(&old);
    return rc;
}

/* --- what is fetched -------------------------------------------------------------------------------------
 */
static bool is_within(const fetch_range *r, size_t n, const gguf_tensor *t)
{
    for (size_t i = 0; i < n; i++)
        if (t->file_offset >= r[i].first && t->file_offset + t->n_bytes <= r[i].end) return true;
    return false;
}

/* All tensors that come, also those that lie in a gap between wanted ones. */
static int plan_part(shard *s, size_t part, pull_ranges *out, pr_err *err)
{
    int rc = shard_ranges(&out->range, &out->n, s->d, s->g, part, SHARD_GAP_BYTES, err);

    if (rc) return rc;
    s->has_new_part = true;
    for (size_t i = 0; i < gguf_n_tensors(s->g); i++) {
        const gguf_tensor *t = gguf_tensor_at(s->g, i);
        if (t->part == part) s->to_hash[i] = is_within(out->range, out->n, t);
    }
    return PR_OK;
}

static void say_what_comes(const shard *s, const fetch_facts *x, const pull_ranges *out)
{
    uint64_t bytes = 0, whole = 0;

    for (size_t i = 0; i < s->n_parts; i++) {
        whole += x[i].bytes;
        for (size_t k = 0; k < out[i].n; k++) bytes += out[i].range[k].end - out[i].range[k].first;
    }
    log_info("%s: %.1f of %.1f MB of the model are needed", s->d ? s->d->name : "header", (double)bytes / 1e6,
             (double)whole / 1e6);
}

static int choose(void *arg, fetch *f, const fetch_facts *x, const char *const *path, size_t n,
                  pull_ranges *out, pr_err *err)
{
    shard *s = arg;
    int rc;

    forget(s);
    if ((rc = read_headers(s, f, x, path, n, err)) || (rc = look_at_finals(s, x, out, err))) return rc;
    for (size_t i = 0; i < n && !rc; i++)
        if (!out[i].is_there) rc = plan_part(s, i, &out[i], err);
    if (!rc && s->has_new_part) say_what_comes(s, x, out);
    return rc;
}

/* --- the list ----------------------------------------------------------------------------------------------
 */
static int hash_part(shard *s, size_t part, const char *now, pr_err *err)
{
    int fd = open(now, O_RDONLY | O_CLOEXEC);
    struct stat st;
    const uint8_t *p = MAP_FAILED;

    if (fd < 0 || fstat(fd, &st) ||
        (p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0)) == MAP_FAILED) {
        int rc = pr_fail_errno(err, PR_ERESOURCE, "%s: reading", now);
        if (fd >= 0) close(fd);
        return rc;
    }
    close(fd);
    for (size_t i = 0; i < s->list.n; i++) {
        const gguf_tensor *t = gguf_tensor_at(s->g, i);
        if (t->part != part || !s->to_hash[i]) continue;
        log_progress("noting digests: tensor %zu of %zu", i + 1, s->list.n);
        hash_sha256_hex(p + t->file_offset, (size_t)t->n_bytes, s->list.sha256[i]);
        gguf_drop_pages(p + t->file_offset, (size_t)t->n_bytes);
    }
    munmap((void *)p, (size_t)st.st_size);
    return PR_OK;
}

static int write_list(const shard *s, pr_err *err)
{
    char *path = tensor_list_path(s->header[0].path);
    int rc =
        path ? tensor_list_write(&s->list, s->g, path, err) : pr_fail(err, PR_ERESOURCE, "out of memory");

    free(path);
    return rc;
}

static int check(void *arg, const char *const *now, const char *const *path, size_t n, pr_err *err)
{
    shard *s = arg;
    int rc = PR_OK;

    (void)path;
    if (!s->has_new_part) return PR_OK;
    for (size_t i = 0; i < n && !rc; i++) rc = hash_part(s, i, now[i], err);
    log_progress("%s", "");
    return rc ? rc : write_list(s, err);
}

pull_selection shard_selection(shard *s)
{
    return (pull_selection){s, choose, check};
}
