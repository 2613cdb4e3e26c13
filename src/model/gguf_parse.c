/* One GGUF header -> metadata entries and tensor directory.
 *
 * Nothing is believed: a count is first held against the bytes left (an entry has a least size), arrays of
 * our own grow with what was really read, and every read goes through the cursor of bytes.h. Values stay in
 * the file; an entry only points at them. Equal keys or names are found by sorting, so hostile names cannot
 * make it slow.
 *
 *   magic "GGUF" | version u32 | n_tensors u64 | n_kv u64 | n_kv x (key, type u32, value) |
 *   n_tensors x (name, n_dims u32, sizes u64 x n_dims, type u32, offset u64) | padding | tensor data
 *   string: length u64, bytes. array: element type u32, count u64, elements. All little endian. */
#include "kernels/quant.h"
#include "src/base/bytes.h"
#include "src/base/mem.h"
#include "src/model/gguf_impl.h"
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum {
    KV_MIN_BYTES = 8 + 4 + 1,
    TENSOR_MIN_BYTES = 8 + 4 + 8 + 4 + 8,
    STRING_MIN_BYTES = 8,
    KEY_MAX_BYTES = 65535,
    NAME_MAX_BYTES = 64,
    ALIGN_DEFAULT = 32,
    ALIGN_MIN = 8,
    ALIGN_MAX = 1 << 20
};

/* --- what the file is, when it is not GGUF --------------------------------------------------- */

static bool starts_with(const uint8_t *p, size_t n, const char *s)
{
    size_t len = strlen(s);
    return n >= len && memcmp(p, s, len) == 0;
}

static bool looks_like_text(const uint8_t *p, size_t n)
{
    if (n > 64) n = 64;
    for (size_t i = 0; i < n; i++) {
        if (p[i] < 0x20 && p[i] != '\t' && p[i] != '\n' && p[i] != '\r') return false;
        if (p[i] == 0x7f) return false;
    }
    return true;
}

/* What people download or name by mistake, with the way out; NULL: no idea. */
static const char *guess_kind(const uint8_t *p, size_t n)
{
    if (starts_with(p, n, "version https://git-lfs"))
        return "it is a Git LFS pointer: fetch the file itself with `git lfs pull` or `prima pull`";
    if (starts_with(p, n, "<!") || starts_with(p, n, "<html") || starts_with(p, n, "<HTML"))
        return "it is a web page: download the file itself, not its page (`/resolve/` instead of `/blob/`)";
    if (starts_with(p, n, "lmgg") || starts_with(p, n, "fmgg") || starts_with(p, n, "tjgg") ||
        starts_with(p, n, "algg"))
        return "it is in the GGML format of 2023: convert it or download a GGUF version";
    if (starts_with(p, n, "PK\x03\x04"))
        return "it is a zip file or a PyTorch checkpoint: a GGUF file is needed";
    if (n >= 10 && p[8] == '{' && p[9] == '"') return "it is a safetensors file: a GGUF file is needed";
    if (n >= 4 && memcmp(p, "\0\0\0\0", 4) == 0) return "it begins with zero bytes: an unfinished download?";
    if (starts_with(p, n, "{")) return "it is a text file, JSON perhaps";
    if (n > 0 && looks_like_text(p, n)) return "it is a text file";
    return NULL;
}

static int not_gguf(const gguf_part *part, pr_err *err)
{
    const char *kind = guess_kind(part->p, part->n);
    char magic[GGUF_SHOW_BYTES];

    if (kind) return pr_fail(err, PR_EINTEGRITY, "not a GGUF file: %s", kind);
    return pr_fail(err, PR_EINTEGRITY, "not a GGUF file: it begins with %s, expected GGUF",
                   gguf_show(magic, part->p, part->n < 4 ? part->n : 4));
}

static int read_magic(bytes *b, gguf_part *part, pr_err *err)
{
    uint32_t version;

    if (part->n == 0) return pr_fail(err, PR_EINTEGRITY, "the file is empty, expected a GGUF model");
    if (!starts_with(part->p, part->n, "GGUF")) return not_gguf(part, err);
    bytes_take(b, 4);
    version = bytes_u32(b);
    if (!bytes_ok(b)) return pr_fail(err, PR_EINTEGRITY, "truncated: %zu bytes are no GGUF header", part->n);
    if ((version & 0xffff) == 0 && version != 0)
        return pr_fail(err, PR_EINTEGRITY,
                       "big-endian GGUF (version bytes swapped): convert it to little endian");
    if (version < 2 || version > 3)
        return pr_fail(err, PR_EINTEGRITY, "GGUF version %" PRIu32 ", expected 2 or 3", version);
    part->version = version;
    return PR_OK;
}

/* --- metadata ------------------------------------------------------------------------------ */

static int truncated(const bytes *b, const char *what, uint64_t i, pr_err *err)
{
    return pr_fail(err, PR_EINTEGRITY,
                   "truncated or malformed: %s %" PRIu64 " does not fit at byte %zu of %zu", what, i,
                   b->fail_pos, b->n);
}

static gguf_str read_str(bytes *b)
{
    uint64_t n = bytes_u64(b);
    const uint8_t *p = bytes_take(b, n);

    return p ? (gguf_str){(const char *)p, (size_t)n} : (gguf_str){0};
}

static int check_bools(const gguf_kv *kv, pr_err *err)
{
    char key[GGUF_SHOW_BYTES];

    for (uint64_t i = 0; i < kv->n; i++) {
        if (kv->p[i] > 1)
            return pr_fail(err, PR_EINTEGRITY, "key %s: a bool is stored as %u, expected 0 or 1",
                           gguf_show(key, kv->key.p, kv->key.n), kv->p[i]);
    }
    return PR_OK;
}

static int read_array(bytes *b, gguf_kv *kv, pr_err *err)
{
    char key[GGUF_SHOW_BYTES];
    size_t size, least;

    kv->elem = bytes_u32(b);
    kv->n = bytes_u64(b);
    if (!bytes_ok(b)) return PR_OK; /* the caller reports it */
    gguf_show(key, kv->key.p, kv->key.n);
    if (kv->elem == GGUF_ARRAY)
        return pr_fail(err, PR_EINTEGRITY, "key %s: an array of arrays, which no model needs", key);
    if (kv->elem >= GGUF_VALUE_TYPES)
        return pr_fail(err, PR_EINTEGRITY, "key %s: array elements of unknown type %" PRIu32, key, kv->elem);
    size = gguf_value_bytes(kv->elem);
    least = size ? size : STRING_MIN_BYTES;
    if (kv->n > bytes_left(b) / least)
        return pr_fail(err, PR_EINTEGRITY,
                       "key %s: an array of %" PRIu64 " elements, but only %zu bytes are left in the file",
                       key, kv->n, bytes_left(b));
    if (size) {
        kv->p = bytes_take(b, kv->n * size);
        return kv->elem == GGUF_BOOL ? check_bools(kv, err) : PR_OK;
    }
    kv->p = bytes_take(b, 0);
    for (uint64_t i = 0; i < kv->n; i++) {
        read_str(b);
        if (!bytes_ok(b))
            return pr_fail(err, PR_EINTEGRITY,
                           "key %s: string %" PRIu64 " of %" PRIu64 " does not fit at byte %zu of %zu", key,
                           i, kv->n, b->fail_pos, b->n);
    }
    return PR_OK;
}

static int read_value(bytes *b, gguf_kv *kv, pr_err *err)
{
    char key[GGUF_SHOW_BYTES];
    gguf_str s;

    if (kv->type >= GGUF_VALUE_TYPES)
        return pr_fail(err, PR_EINTEGRITY, "key %s: unknown value type %" PRIu32,
                       gguf_show(key, kv->key.p, kv->key.n), kv->type);
    if (kv->type == GGUF_ARRAY) return read_array(b, kv, err);
    if (kv->type == GGUF_STRING) {
        s = read_str(b);
        kv->p = (const uint8_t *)s.p;
        kv->n = s.n;
        return PR_OK;
    }
    kv->n = 1;
    kv->p = bytes_take(b, gguf_value_bytes(kv->type));
    return kv->type == GGUF_BOOL && bytes_ok(b) ? check_bools(kv, err) : PR_OK;
}

static int read_kv(bytes *b, gguf_kv *kv, uint64_t i, pr_err *err)
{
    char key[GGUF_SHOW_BYTES];
    int rc;

    kv->key = read_str(b);
    kv->type = bytes_u32(b);
    if (!bytes_ok(b)) return truncated(b, "key-value pair", i, err);
    if (kv->key.n == 0 || kv->key.n > KEY_MAX_BYTES || memchr(kv->key.p, 0, kv->key.n))
        return pr_fail(err, PR_EINTEGRITY,
                       "key %" PRIu64 " (%s) of %zu bytes, expected 1..%d bytes without NUL", i,
                       gguf_show(key, kv->key.p, kv->key.n), kv->key.n, KEY_MAX_BYTES);
    if ((rc = read_value(b, kv, err))) return rc;
    if (!bytes_ok(b))
        return pr_fail(err, PR_EINTEGRITY,
                       "truncated or malformed: the value of key %s does not fit at byte %zu of %zu",
                       gguf_show(key, kv->key.p, kv->key.n), b->fail_pos, b->n);
    return PR_OK;
}

/* Room for one more element of an array that doubles; NULL when out of memory. */
static void *grown(void *array, size_t n, size_t *cap, size_t elem_bytes)
{
    size_t want = *cap ? *cap * 2 : 64, total;
    void *p;

    if (n < *cap) return array;
    if (!mem_mul(&total, want, elem_bytes) || !(p = realloc(array, total))) return NULL;
    *cap = want;
    return p;
}

static int by_key(const void *a, const void *b)
{
    const gguf_str x = (*(const gguf_kv *const *)a)->key, y = (*(const gguf_kv *const *)b)->key;
    int c = memcmp(x.p, y.p, x.n < y.n ? x.n : y.n);

    return c ? c : (x.n > y.n) - (x.n < y.n);
}

static int index_keys(gguf_meta *m, pr_err *err)
{
    char key[GGUF_SHOW_BYTES];

    m->sorted = malloc((m->n ? m->n : 1) * sizeof *m->sorted);
    if (!m->sorted) return pr_fail(err, PR_ERESOURCE, "out of memory for %zu metadata keys", m->n);
    for (size_t i = 0; i < m->n; i++) m->sorted[i] = &m->kv[i];
    qsort(m->sorted, m->n, sizeof *m->sorted, by_key);
    for (size_t i = 1; i < m->n; i++) {
        if (by_key(&m->sorted[i - 1], &m->sorted[i]) == 0)
            return pr_fail(err, PR_EINTEGRITY, "key %s stands in the metadata twice",
                           gguf_show(key, m->sorted[i]->key.p, m->sorted[i]->key.n));
    }
    return PR_OK;
}

static int read_meta(bytes *b, uint64_t n, gguf_meta *m, pr_err *err)
{
    size_t cap = 0;
    int rc;

    if (n > bytes_left(b) / KV_MIN_BYTES)
        return pr_fail(err, PR_EINTEGRITY,
                       "the header claims %" PRIu64 " metadata keys, but only %zu bytes follow", n,
                       bytes_left(b));
    for (uint64_t i = 0; i < n; i++) {
        gguf_kv *kv = grown(m->kv, m->n, &cap, sizeof *kv);

        if (!kv) return pr_fail(err, PR_ERESOURCE, "out of memory for %" PRIu64 " metadata keys", n);
        m->kv = kv;
        kv[m->n] = (gguf_kv){0};
        if ((rc = read_kv(b, &kv[m->n], i, err))) return rc;
        m->n++;
    }
    return index_keys(m, err);
}

void gguf_meta_clear(gguf_meta *m)
{
    free(m->kv);
    free(m->sorted);
    *m = (gguf_meta){0};
}

static int read_alignment(const gguf_meta *m, uint64_t *alignment, pr_err *err)
{
    uint32_t v = ALIGN_DEFAULT;
    pr_err e = {0};

    if (!gguf_meta_u32(m, "general.alignment", &v, &e) && e.code) return pr_fail(err, e.code, "%s", e.msg);
    if (v < ALIGN_MIN || v > ALIGN_MAX || (v & (v - 1)))
        return pr_fail(err, PR_EINTEGRITY,
                       "general.alignment is %" PRIu32 ", expected a power of two in %d..%d", v, ALIGN_MIN,
                       ALIGN_MAX);
    *alignment = v;
    return PR_OK;
}

/* --- tensor directory ------------------------------------------------------------------------ */

/* Types that the format has or once had and prima does not compute with. */
static const char *const other_types[] = {
    [4] = "Q4_2",        [5] = "Q4_3",        [9] = "Q8_1",   [15] = "Q8_K",  [24] = "I8",
    [25] = "I16",        [26] = "I32",        [27] = "I64",   [28] = "F64",   [31] = "Q4_0_4_4",
    [32] = "Q4_0_4_8",   [33] = "Q4_0_8_8",   [34] = "TQ1_0", [35] = "TQ2_0", [36] = "IQ4_NL_4_4",
    [37] = "IQ4_NL_4_8", [38] = "IQ4_NL_8_8", [39] = "MXFP4",
};
enum { N_OTHER_TYPES = sizeof other_types / sizeof *other_types };

static int unknown_type(const char *name, uint32_t type, pr_err *err)
{
    if (type < N_OTHER_TYPES && other_types[type])
        return pr_fail(err, PR_EINTEGRITY,
                       "tensor %s has type number %" PRIu32
                       ", %s, which prima does not compute with: take another quantisation of the model",
                       name, type, other_types[type]);
    return pr_fail(err, PR_EINTEGRITY, "tensor %s has type number %" PRIu32 ", which prima does not know",
                   name, type);
}

/* Sizes -> bytes, every product checked. */
static int size_tensor(gguf_tensor *t, const char *name, pr_err *err)
{
    const quant_type *q = quant_info(t->type);
    uint64_t rows = 1;
    size_t total;

    if (!q) return unknown_type(name, t->type, err);
    for (int d = 0; d < 4; d++) {
        if (t->ne[d] == 0 || t->ne[d] > INT64_MAX)
            return pr_fail(err, PR_EINTEGRITY, "tensor %s: size %" PRIu64 " of dimension %d is out of range",
                           name, t->ne[d], d);
        if (d > 0 && rows > UINT64_MAX / t->ne[d]) goto too_large;
        if (d > 0) rows *= t->ne[d];
    }
    if (t->ne[0] % q->block_values)
        return pr_fail(err, PR_EINTEGRITY,
                       "tensor %s: rows of %" PRIu64 " values, expected a multiple of %d (type %s)", name,
                       t->ne[0], q->block_values, q->name);
    if (t->ne[0] / q->block_values > SIZE_MAX / q->block_bytes || rows > SIZE_MAX) goto too_large;
    if (!mem_mul(&total, (size_t)(t->ne[0] / q->block_values) * q->block_bytes, (size_t)rows)) goto too_large;
    t->n_bytes = total;
    return PR_OK;
too_large:
    return pr_fail(err, PR_EINTEGRITY,
                   "tensor %s: sizes %" PRIu64 " x %" PRIu64 " x %" PRIu64 " x %" PRIu64 " are too large",
                   name, t->ne[0], t->ne[1], t->ne[2], t->ne[3]);
}

/* One directory entry. file_offset holds the offset as stored until place_tensors. */
static int read_tensor(bytes *b, gguf_tensor *t, uint64_t i, pr_err *err)
{
    char shown[GGUF_SHOW_BYTES];
    gguf_str name = read_str(b);

    if (!bytes_ok(b)) return truncated(b, "tensor", i, err);
    gguf_show(shown, name.p, name.n);
    if (name.n == 0 || name.n > NAME_MAX_BYTES || memchr(name.p, 0, name.n))
        return pr_fail(err, PR_EINTEGRITY,
                       "tensor %" PRIu64 " has a name of %zu bytes (%s), expected 1..%d bytes without NUL", i,
                       name.n, shown, NAME_MAX_BYTES);
    memcpy(t->name, name.p, name.n);
    t->n_dims = bytes_u32(b);
    if (!bytes_ok(b)) return truncated(b, "tensor", i, err);
    if (t->n_dims < 1 || t->n_dims > 4)
        return pr_fail(err, PR_EINTEGRITY, "tensor %s has %" PRIu32 " dimensions, expected 1..4", shown,
                       t->n_dims);
    for (uint32_t d = 0; d < 4; d++) t->ne[d] = d < t->n_dims ? bytes_u64(b) : 1;
    t->type = bytes_u32(b);
    t->file_offset = bytes_u64(b);
    if (!bytes_ok(b)) return truncated(b, "tensor", i, err);
    return size_tensor(t, shown, err);
}

static int read_tensors(bytes *b, uint64_t n, gguf *g, size_t part, pr_err *err)
{
    int rc;

    if (n > bytes_left(b) / TENSOR_MIN_BYTES)
        return pr_fail(err, PR_EINTEGRITY, "the header claims %" PRIu64 " tensors, but only %zu bytes follow",
                       n, bytes_left(b));
    for (uint64_t i = 0; i < n; i++) {
        gguf_tensor *t = grown(g->tensor, g->n_tensors, &g->cap_tensors, sizeof *t);

        if (!t) return pr_fail(err, PR_ERESOURCE, "out of memory for %" PRIu64 " tensors", n);
        g->tensor = t;
        t += g->n_tensors;
        *t = (gguf_tensor){.part = (uint32_t)part};
        if ((rc = read_tensor(b, t, i, err))) return rc;
        g->n_tensors++;
    }
    return PR_OK;
}

static int by_offset(const void *a, const void *b)
{
    const gguf_tensor *x = *(const gguf_tensor *const *)a, *y = *(const gguf_tensor *const *)b;

    return (x->file_offset > y->file_offset) - (x->file_offset < y->file_offset);
}

static int check_overlaps(const gguf_tensor *t, size_t n, pr_err *err)
{
    const gguf_tensor **order = malloc((n ? n : 1) * sizeof *order);
    char a[GGUF_SHOW_BYTES], c[GGUF_SHOW_BYTES];
    int rc = PR_OK;

    if (!order) return pr_fail(err, PR_ERESOURCE, "out of memory for %zu tensors", n);
    for (size_t i = 0; i < n; i++) order[i] = &t[i];
    qsort(order, n, sizeof *order, by_offset);
    for (size_t i = 1; i < n && !rc; i++) {
        if (order[i]->file_offset - order[i - 1]->file_offset < order[i - 1]->n_bytes)
            rc = pr_fail(err, PR_EINTEGRITY, "the data of tensors %s and %s overlap at byte %" PRIu64,
                         gguf_show(a, order[i - 1]->name, strlen(order[i - 1]->name)),
                         gguf_show(c, order[i]->name, strlen(order[i]->name)), order[i]->file_offset);
    }
    free(order);
    return rc;
}

/* Offsets in the data section -> places in the file. */
static int place_tensors(const gguf_part *part, gguf_tensor *t, size_t n, pr_err *err)
{
    uint64_t end = part->header_only ? INT64_MAX : part->n;
    char name[GGUF_SHOW_BYTES];

    for (size_t i = 0; i < n; i++, t++) {
        gguf_show(name, t->name, strlen(t->name));
        if (t->file_offset % part->alignment)
            return pr_fail(err, PR_EINTEGRITY,
                           "tensor %s: offset %" PRIu64 " is no multiple of the alignment %" PRIu64, name,
                           t->file_offset, part->alignment);
        if (part->data_start > end || t->file_offset > end - part->data_start ||
            t->n_bytes > end - part->data_start - t->file_offset)
            return pr_fail(err, PR_EINTEGRITY,
                           "truncated: tensor %s needs %" PRIu64 " bytes from %" PRIu64 " + %" PRIu64
                           " on, but the file has %" PRIu64,
                           name, t->n_bytes, part->data_start, t->file_offset, end);
        t->file_offset += part->data_start;
        t->data = part->header_only ? NULL : part->p + t->file_offset;
    }
    return check_overlaps(t - n, n, err);
}

/* --- the whole header ------------------------------------------------------------------------ */

int gguf_part_parse(gguf *g, size_t i, gguf_meta *meta, pr_err *err)
{
    gguf_part *part = &g->part[i];
    bytes b = bytes_of(part->p, part->n);
    size_t first = g->n_tensors;
    uint64_t n_tensors, n_kv;
    int rc;

    if ((rc = read_magic(&b, part, err))) return rc;
    n_tensors = bytes_u64(&b);
    n_kv = bytes_u64(&b);
    if (!bytes_ok(&b)) return pr_fail(err, PR_EINTEGRITY, "truncated: %zu bytes are no GGUF header", part->n);
    if ((rc = read_meta(&b, n_kv, meta, err))) return rc;
    if ((rc = read_alignment(meta, &part->alignment, err))) return rc;
    if ((rc = read_tensors(&b, n_tensors, g, i, err))) return rc;
    part->header_bytes = b.pos;
    part->data_start = MEM_ALIGN_UP(part->header_bytes, part->alignment);
    if (g->n_tensors == first) return PR_OK; /* a vocabulary alone */
    return place_tensors(part, g->tensor + first, g->n_tensors - first, err);
}
