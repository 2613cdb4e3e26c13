/* Cuts a text at the special tokens it contains; what lies between goes to SPM or BPE.
 *
 * The longest special token is cut out first, wherever it stands, then the next longest in what is left, and
 * so on: as llama.cpp does it. A vocabulary may have thousands of special tokens and a text rarely more than
 * a handful, so one walk over the text first finds out which of them occur at all (a binary search per byte
 * in the sorted token texts). */
#include "src/model/vocab_impl.h"
#include <stdlib.h>
#include <string.h>

static bool is_special(token_kind k)
{
    return k == TOKEN_CONTROL || k == TOKEN_USER || k == TOKEN_UNKNOWN;
}

static gguf_str text_at(const vocab *v, size_t i)
{
    return v->table.text[v->special.order[i]];
}

static int compare_text(gguf_str a, gguf_str b)
{
    int c = memcmp(a.p, b.p, a.n < b.n ? a.n : b.n);
    return c ? c : (a.n > b.n) - (a.n < b.n);
}

typedef struct {
    gguf_str text;
    int32_t id;
    uint32_t at;
} special_entry;

static int by_length(const void *pa, const void *pb)
{
    const special_entry *a = pa, *b = pb;
    if (a->text.n != b->text.n) return a->text.n > b->text.n ? -1 : 1;
    return (a->id > b->id) - (a->id < b->id);
}

static int by_text(const void *pa, const void *pb)
{
    return compare_text(((const special_entry *)pa)->text, ((const special_entry *)pb)->text);
}

int special_init(vocab *v, pr_err *err)
{
    special_tokens *s = &v->special;
    special_entry *e = malloc((v->n + 1) * sizeof *e);
    size_t n = 0;
    unsigned c = 0;

    if (!e) goto no_memory;
    for (uint32_t id = 0; id < v->n; id++)
        if (is_special(v->kind[id]) && v->table.text[id].n)
            e[n++] = (special_entry){v->table.text[id], (int32_t)id, 0};
    s->n = n;
    s->order = malloc((n + 1) * sizeof *s->order);
    s->sorted = malloc((n + 1) * sizeof *s->sorted);
    if (!s->order || !s->sorted) goto no_memory;
    qsort(e, n, sizeof *e, by_length);
    for (size_t i = 0; i < n; i++) s->order[i] = e[i].id, e[i].at = (uint32_t)i;
    qsort(e, n, sizeof *e, by_text);
    for (size_t i = 0; i < n; i++) {
        for (; c <= (unsigned char)e[i].text.p[0]; c++) s->first[c] = (uint32_t)i;
        s->sorted[i] = e[i].at;
    }
    for (; c <= 256; c++) s->first[c] = (uint32_t)n;
    free(e);
    return PR_OK;
no_memory:
    free(e);
    return pr_fail(err, PR_ERESOURCE, "vocabulary: out of memory for its special tokens");
}

void special_clear(special_tokens *s)
{
    free(s->order);
    free(s->sorted);
}

/* The first of sorted[lo, hi) whose byte at d is >= b. All of them agree in the bytes before d and are longer
 * than d. */
static uint32_t lower_bound(const vocab *v, uint32_t lo, uint32_t hi, size_t d, unsigned b)
{
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        if ((unsigned char)text_at(v, v->special.sorted[mid]).p[d] < b) lo = mid + 1;
        else hi = mid;
    }
    return lo;
}

/* Marks in found[] the special tokens that begin at text[0]. */
static void find_at(const vocab *v, const char *text, size_t n, bool *found)
{
    const special_tokens *s = &v->special;
    unsigned b = (unsigned char)text[0];
    uint32_t lo = s->first[b], hi = s->first[b + 1];

    for (size_t d = 1; lo < hi; d++) {
        if (text_at(v, s->sorted[lo]).n == d) found[s->sorted[lo++]] = true;
        if (d == n) return;
        b = (unsigned char)text[d];
        lo = lower_bound(v, lo, hi, d, b);
        hi = lower_bound(v, lo, hi, d, b + 1);
    }
}

typedef struct {
    fragment *f;
    size_t n, cap;
    bool failed;
} fragment_list;

static void list_push(fragment_list *l, int32_t id, size_t start, size_t len)
{
    if (l->n == l->cap) {
        size_t cap = l->cap ? 2 * l->cap : 16;
        fragment *f = realloc(l->f, cap * sizeof *f);
        if (!f) {
            l->failed = true;
            return;
        }
        l->f = f;
        l->cap = cap;
    }
    l->f[l->n++] = (fragment){id, (uint32_t)start, (uint32_t)len};
}

static bool is_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

/* One piece of plain text, cut at every occurrence of token id. */
static void cut_fragment(const vocab *v, const char *text, fragment f, int32_t id, fragment_list *out)
{
    gguf_str t = v->table.text[id];
    size_t at = f.start, end = (size_t)f.start + f.len;
    const char *hit;

    while (at < end && (hit = memmem(text + at, end - at, t.p, t.n))) {
        size_t from = at, left_end = (size_t)(hit - text);

        at = left_end + t.n;
        if (v->strip[id] & STRIP_LEFT)
            while (left_end > from && is_space(text[left_end - 1])) left_end--;
        if (v->strip[id] & STRIP_RIGHT)
            while (at < end && is_space(text[at])) at++;
        if (left_end > from) list_push(out, -1, from, left_end - from);
        list_push(out, id, 0, 0);
    }
    if (at < end) list_push(out, -1, at, end - at);
}

static void cut_at(const vocab *v, const char *text, int32_t id, const fragment_list *in, fragment_list *out)
{
    out->n = 0;
    for (size_t i = 0; i < in->n; i++) {
        if (in->f[i].id >= 0) list_push(out, in->f[i].id, 0, 0);
        else cut_fragment(v, text, in->f[i], id, out);
    }
}

int special_split(const vocab *v, const char *text, size_t n, bool parse_special, fragment **out,
                  size_t *n_out, pr_err *err)
{
    bool *found = calloc(v->special.n + 1, sizeof *found);
    fragment_list a = {0}, b = {0};

    if (!found) goto no_memory;
    for (size_t i = 0; i < n; i++) find_at(v, text + i, n - i, found);
    if (n) list_push(&a, -1, 0, n);
    for (size_t i = 0; i < v->special.n; i++) {
        int32_t id = v->special.order[i];
        fragment_list old = a;

        if (!found[i] || (!parse_special && v->kind[id] != TOKEN_USER)) continue;
        cut_at(v, text, id, &old, &b);
        a = b;
        b = old;
    }
    if (a.failed || b.failed) goto no_memory;
    free(found);
    free(b.f);
    *out = a.f;
    *n_out = a.n;
    return PR_OK;
no_memory:
    free(found);
    free(a.f);
    free(b.f);
    return pr_fail(err, PR_ERESOURCE, "tokenizer: out of memory for a text of %zu bytes", n);
}
