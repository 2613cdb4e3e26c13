/* Opening GGUF models: mapping the file or all files of a split model, and the tensor index over them.
 *
 * gguf_parse.c reads one header, gguf_kv.c gives the metadata. The parts of a split model carry split.no,
 * split.count and (the first) split.tensors.count; they lie side by side as NAME-%05d-of-%05d.gguf, numbered
 * from 1. Metadata of the later parts is only read for these keys. */
#include "src/model/gguf.h"
#include "src/base/file.h"
#include "src/base/hash.h"
#include "src/base/mapped.h"
#include "src/model/gguf_impl.h"
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* --- one file -------------------------------------------------------------------------------- */

static const char *file_kind(mode_t mode)
{
    return S_ISDIR(mode)    ? "a directory"
           : S_ISFIFO(mode) ? "a pipe"
           : S_ISCHR(mode)  ? "a device"
                            : "no regular file";
}

static int map_fd(gguf_part *part, int fd, pr_err *err)
{
    struct stat st;
    void *p;

    if (fstat(fd, &st)) return pr_fail_errno(err, PR_ERESOURCE, "cannot stat");
    if (!S_ISREG(st.st_mode))
        return pr_fail(err, PR_ERESOURCE, "is %s; a model must be a regular file, since it is mapped",
                       file_kind(st.st_mode));
    if (st.st_size == 0) return PR_OK; /* nothing to map: the parser says that it is empty */
    if ((uintmax_t)st.st_size > SIZE_MAX)
        return pr_fail(err, PR_ERESOURCE, "%jd bytes do not fit this system's address space",
                       (intmax_t)st.st_size);
    p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);
    if (p == MAP_FAILED)
        return pr_fail_errno(err, PR_ERESOURCE, "cannot map %jd bytes", (intmax_t)st.st_size);
    mapped_watch(p, (size_t)st.st_size, part->path);
    *part = (gguf_part){.path = part->path,
                        .p = p,
                        .n = (size_t)st.st_size,
                        .mapped = true,
                        .device = st.st_dev,
                        .inode = st.st_ino,
                        .written_ns = file_written_ns(&st)};
    return PR_OK;
}

static int map_file(gguf_part *part, pr_err *err)
{
    int fd = open(part->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK), rc; /* a pipe must not block here */

    if (fd < 0) return pr_fail_errno(err, PR_ERESOURCE, "cannot open");
    rc = map_fd(part, fd, err);
    close(fd);
    return rc;
}

static void drop_parts(gguf *g)
{
    for (size_t i = 0; i < g->n_parts; i++) {
        if (g->part[i].mapped) {
            mapped_forget(g->part[i].p);
            munmap((void *)g->part[i].p, g->part[i].n);
        }
        free(g->part[i].path);
    }
    free(g->part);
    gguf_meta_clear(&g->meta);
    free(g->tensor);
    free(g->sorted);
    *g = (gguf){0};
}

/* Map and parse `path` as the next part; its metadata goes to *meta. */
static int add_part(gguf *g, const char *path, gguf_meta *meta, pr_err *err)
{
    gguf_part *part = realloc(g->part, (g->n_parts + 1) * sizeof *part);
    int rc;

    if (!part) return pr_fail(err, PR_ERESOURCE, "%s: out of memory", path);
    g->part = part;
    part += g->n_parts;
    *part = (gguf_part){.path = strdup(path)};
    if (!part->path) return pr_fail(err, PR_ERESOURCE, "%s: out of memory", path);
    g->n_parts++;
    if ((rc = map_file(part, err)) || (rc = gguf_part_parse(g, g->n_parts - 1, meta, err)))
        pr_wrap(err, "%s", path);
    return rc;
}

/* --- split models ---------------------------------------------------------------------------- */

typedef struct {
    uint32_t no, count;
} split;

/* An unsplit file gives part 0 of 1. */
static int read_split(const gguf_meta *m, split *s, pr_err *err)
{
    pr_err e = {0};
    uint32_t count = 1;

    *s = (split){0, 1};
    if (!gguf_meta_u32(m, "split.count", &count, &e) && e.code) return pr_fail(err, e.code, "%s", e.msg);
    if (count <= 1) return PR_OK;
    if (count > 99999)
        return pr_fail(err, PR_EINTEGRITY, "split.count is %" PRIu32 ", expected at most 99999", count);
    s->count = count;
    if (!gguf_meta_u32(m, "split.no", &s->no, &e))
        return pr_fail(err, PR_EINTEGRITY, "%s",
                       e.code ? e.msg : "split.count is given, but the key split.no is missing");
    if (s->no >= count)
        return pr_fail(err, PR_EINTEGRITY, "split.no is %" PRIu32 ", expected less than split.count %" PRIu32,
                       s->no, count);
    return PR_OK;
}

static void split_suffix(char out[32], split s)
{
    snprintf(out, 32, "-%05" PRIu32 "-of-%05" PRIu32 ".gguf", s.no + 1, s.count);
}

/* path without its "-00001-of-0000N.gguf" (malloc'ed), or NULL and an error when it does not end so. */
static char *split_prefix(const char *path, split s, pr_err *err)
{
    char suffix[32];
    size_t n = strlen(path), len;
    char *prefix = NULL;

    split_suffix(suffix, s);
    len = strlen(suffix);
    if (n <= len || strcmp(path + n - len, suffix) != 0) {
        pr_fail(err, PR_EINTEGRITY,
                "%s: the file says that it is part %" PRIu32 " of %" PRIu32
                ", so its name must end in %s for the others to be found",
                path, s.no + 1, s.count, suffix);
    } else if (!(prefix = strndup(path, n - len))) {
        pr_fail(err, PR_ERESOURCE, "%s: out of memory", path);
    }
    return prefix;
}

/* Part `want` of the model must say so of itself. */
static int check_split(const gguf_meta *m, split want, const char *path, pr_err *err)
{
    split s;
    int rc = read_split(m, &s, err);

    if (rc) {
        pr_wrap(err, "%s", path);
        return rc;
    }
    if (s.no != want.no || s.count != want.count)
        return pr_fail(err, PR_EINTEGRITY,
                       "%s: the file says that it is part %" PRIu32 " of %" PRIu32 ", expected part %" PRIu32
                       " of %" PRIu32,
                       path, s.no + 1, s.count, want.no + 1, want.count);
    return PR_OK;
}

static int add_split_part(gguf *g, const char *prefix, split s, pr_err *err)
{
    gguf_meta later = {0}, *meta = s.no == 0 ? &g->meta : &later;
    char suffix[32], *path;
    size_t n = strlen(prefix) + sizeof suffix;
    int rc;

    if (!(path = malloc(n))) return pr_fail(err, PR_ERESOURCE, "%s: out of memory", prefix);
    split_suffix(suffix, s);
    snprintf(path, n, "%s%s", prefix, suffix);
    rc = add_part(g, path, meta, err);
    if (rc == PR_ERESOURCE && access(path, F_OK) != 0)
        rc = pr_fail(err, PR_ERESOURCE, "%s: part %" PRIu32 " of the %" PRIu32 " of this model is missing",
                     path, s.no + 1, s.count);
    if (!rc) rc = check_split(meta, s, path, err);
    gguf_meta_clear(&later);
    free(path);
    return rc;
}

static int check_tensor_total(const gguf *g, pr_err *err)
{
    uint32_t total = 0;
    pr_err e = {0};

    if (!gguf_meta_u32(&g->meta, "split.tensors.count", &total, &e))
        return e.code ? pr_fail(err, e.code, "%s: %s", g->part[0].path, e.msg) : PR_OK;
    if (total != g->n_tensors)
        return pr_fail(err, PR_EINTEGRITY,
                       "%s: the parts hold %zu tensors, but split.tensors.count is %" PRIu32, g->part[0].path,
                       g->n_tensors, total);
    return PR_OK;
}

/* g holds one parsed part of a split model: open all of them, in order. */
static int open_all_parts(gguf *g, split named, pr_err *err)
{
    char *prefix = split_prefix(g->part[0].path, named, err);
    int rc = PR_OK;

    if (!prefix) return err ? err->code : PR_EINTEGRITY;
    drop_parts(g);
    for (uint32_t no = 0; no < named.count && !rc; no++)
        rc = add_split_part(g, prefix, (split){no, named.count}, err);
    if (!rc) rc = check_tensor_total(g, err);
    free(prefix);
    return rc;
}

/* --- tensor index ---------------------------------------------------------------------------- */

static int by_name(const void *a, const void *b)
{
    return strcmp((*(const gguf_tensor *const *)a)->name, (*(const gguf_tensor *const *)b)->name);
}

static int index_tensors(gguf *g, pr_err *err)
{
    char name[GGUF_SHOW_BYTES];
    const char *path = g->part[0].path;

    g->sorted = malloc((g->n_tensors ? g->n_tensors : 1) * sizeof *g->sorted);
    if (!g->sorted)
        return pr_fail(err, PR_ERESOURCE, "%s: out of memory for %zu tensors", path, g->n_tensors);
    for (size_t i = 0; i < g->n_tensors; i++) g->sorted[i] = &g->tensor[i];
    qsort(g->sorted, g->n_tensors, sizeof *g->sorted, by_name);
    for (size_t i = 1; i < g->n_tensors; i++) {
        if (by_name(&g->sorted[i - 1], &g->sorted[i]) == 0)
            return pr_fail(err, PR_EINTEGRITY, "%s: tensor %s stands in the directory twice", path,
                           gguf_show(name, g->sorted[i]->name, strlen(g->sorted[i]->name)));
    }
    return PR_OK;
}

const gguf_tensor *gguf_tensor_find(const gguf *g, const char *name)
{
    size_t lo = 0, hi = g->n_tensors;

    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        int c = strcmp(name, g->sorted[mid]->name);

        if (c == 0) return g->sorted[mid];
        if (c < 0) hi = mid;
        else lo = mid + 1;
    }
    return NULL;
}

/* --- open and close -------------------------------------------------------------------------- */

int gguf_open(gguf **out, const char *path, pr_err *err)
{
    gguf *g = calloc(1, sizeof *g);
    split named;
    int rc;

    if (!g) return pr_fail(err, PR_ERESOURCE, "%s: out of memory", path);
    rc = add_part(g, path, &g->meta, err);
    if (!rc && (rc = read_split(&g->meta, &named, err))) pr_wrap(err, "%s", path);
    if (!rc && named.count > 1) rc = open_all_parts(g, named, err);
    if (!rc) rc = index_tensors(g, err);
    if (rc) {
        gguf_close(g);
        return rc;
    }
    *out = g;
    return PR_OK;
}

int gguf_open_memory(gguf **out, const void *data, size_t n, pr_err *err)
{
    gguf *g = calloc(1, sizeof *g);
    int rc = PR_ERESOURCE;

    if (!g || !(g->part = calloc(1, sizeof *g->part)) || !(g->part->path = strdup("memory"))) {
        pr_fail(err, rc, "out of memory");
        goto fail;
    }
    g->n_parts = 1;
    g->part->p = data;
    g->part->n = n;
    if ((rc = gguf_part_parse(g, 0, &g->meta, err)) || (rc = index_tensors(g, err))) goto fail;
    *out = g;
    return PR_OK;
fail:
    gguf_close(g);
    return rc;
}

/* One part after the other, as add_split_part does it with files. */
static int add_header(gguf *g, const gguf_header_bytes *h, split want, pr_err *err)
{
    gguf_part *part = &g->part[g->n_parts];
    gguf_meta later = {0}, *meta = want.no == 0 ? &g->meta : &later;
    int rc;

    *part = (gguf_part){.path = strdup(h->path), .p = h->p, .n = h->n, .header_only = true};
    if (!part->path) return pr_fail(err, PR_ERESOURCE, "%s: out of memory", h->path);
    g->n_parts++;
    if ((rc = gguf_part_parse(g, g->n_parts - 1, meta, err))) pr_wrap(err, "%s", h->path);
    if (!rc) rc = check_split(meta, want, h->path, err);
    gguf_meta_clear(&later);
    return rc;
}

int gguf_open_headers(gguf **out, const gguf_header_bytes *part, size_t n_parts, pr_err *err)
{
    gguf *g = calloc(1, sizeof *g);
    int rc = PR_OK;

    if (!g || !(g->part = calloc(n_parts, sizeof *g->part)))
        rc = pr_fail(err, PR_ERESOURCE, "%s: out of memory", part->path);
    for (uint32_t no = 0; no < n_parts && !rc; no++)
        rc = add_header(g, &part[no], (split){no, (uint32_t)n_parts}, err);
    if (!rc && n_parts > 1) rc = check_tensor_total(g, err);
    if (!rc) rc = index_tensors(g, err);
    if (rc) {
        gguf_close(g);
        return rc;
    }
    *out = g;
    return PR_OK;
}

void gguf_close(gguf *g)
{
    if (!g) return;
    drop_parts(g);
    free(g);
}

/* A file that has taken the place of ours does no harm: the map still is of the one that was opened. */
int gguf_check_unchanged(const gguf *g, pr_err *err)
{
    struct stat st;

    for (size_t i = 0; i < g->n_parts; i++) {
        const gguf_part *part = &g->part[i];
        if (!part->mapped || stat(part->path, &st) || st.st_dev != part->device || st.st_ino != part->inode)
            continue;
        if ((uintmax_t)st.st_size != part->n || file_written_ns(&st) != part->written_ns)
            return pr_fail(err, PR_EINTEGRITY,
                           "%s: it was written to while it was read: wait until the copy or download is "
                           "complete, then start again",
                           part->path);
    }
    return PR_OK;
}

/* --- facts ----------------------------------------------------------------------------------- */

uint32_t gguf_version(const gguf *g)
{
    return g->part[0].version;
}

uint64_t gguf_alignment(const gguf *g)
{
    return g->part[0].alignment;
}

size_t gguf_n_parts(const gguf *g)
{
    return g->n_parts;
}

const char *gguf_part_path(const gguf *g, size_t part)
{
    return g->part[part].path;
}

uint64_t gguf_file_bytes(const gguf *g)
{
    uint64_t total = 0;

    for (size_t i = 0; i < g->n_parts; i++) total += g->part[i].n;
    return total;
}

void gguf_header_sha256(const gguf *g, char hex[65])
{
    size_t total = 0, at = 0;
    uint8_t *all;

    if (g->n_parts == 1) {
        hash_sha256_hex(g->part[0].p, (size_t)g->part[0].header_bytes, hex);
        return;
    }
    for (size_t i = 0; i < g->n_parts; i++) total += (size_t)g->part[i].header_bytes;
    if (!(all = malloc(total))) abort(); /* some megabytes, for a model of many gigabytes */
    for (size_t i = 0; i < g->n_parts; i++) {
        memcpy(all + at, g->part[i].p, (size_t)g->part[i].header_bytes);
        at += (size_t)g->part[i].header_bytes;
    }
    hash_sha256_hex(all, total, hex);
    free(all);
}

const void *gguf_header(const gguf *g, size_t part, size_t *n)
{
    *n = (size_t)g->part[part].header_bytes;
    return g->part[part].p;
}

int gguf_measure(const void *p, size_t n, uint64_t *header_bytes, uint64_t *file_bytes, pr_err *err)
{
    gguf_part part = {.p = p, .n = n, .header_only = true};
    gguf g = {.part = &part, .n_parts = 1};
    int rc = gguf_part_parse(&g, 0, &g.meta, err);

    *header_bytes = *file_bytes = part.header_bytes;
    for (size_t i = 0; i < g.n_tensors; i++) {
        uint64_t end = g.tensor[i].file_offset + g.tensor[i].n_bytes;
        if (end > *file_bytes) *file_bytes = end;
    }
    gguf_meta_clear(&g.meta);
    free(g.tensor);
    return rc;
}

size_t gguf_n_tensors(const gguf *g)
{
    return g->n_tensors;
}

const gguf_tensor *gguf_tensor_at(const gguf *g, size_t i)
{
    return &g->tensor[i];
}

void gguf_drop_pages(const void *data, size_t n)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    uintptr_t first = ((uintptr_t)data + page - 1) / page * page, end = ((uintptr_t)data + n) / page * page;

    if (end > first)
        madvise((void *)first, end - first, MADV_DONTNEED); /* advice: nothing to do when refused */
}
