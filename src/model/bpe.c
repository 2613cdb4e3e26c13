/* Byte-level BPE, the tokenizer of GPT-2, Llama 3 and Qwen: a pre-tokenizer (pretok.c) cuts the text into
 * words, each byte of a word becomes a printable character, and neighbours are joined in the order in which
 * the file lists its merges.
 *
 * The symbols are numbers of strings: of tokens, and of strings that merges mention but that are no tokens.
 */
#include "src/model/vocab_impl.h"
#include <stdlib.h>
#include <string.h>

/* --- reading ----------------------------------------------------------------------------------- */

typedef struct {
    int32_t left, right;
    uint32_t rank;
    int32_t id; /* what they become; -1: free place */
} merge_entry;

#define BYTE_CHARACTERS 324 /* code points that stand for bytes are below this */

struct bpe {
    pre_tokenizer *pre;
    merge_entry *merge;            /* open addressing */
    size_t n_places;               /* a power of two */
    uint16_t character[256];       /* byte -> code point */
    int16_t byte[BYTE_CHARACTERS]; /* code point -> byte, -1 none */
    int32_t byte_id[256];          /* string number of the byte's character */
};

/* GPT-2's alphabet: the printable bytes of Latin-1 stand for themselves, the others take U+0100, U+0101, ...
 * in order. */
static void fill_alphabet(bpe *b)
{
    uint16_t next = 256;

    memset(b->byte, -1, sizeof b->byte);
    for (int i = 0; i < 256; i++) {
        bool printable = (i >= 0x21 && i <= 0x7e) || (i >= 0xa1 && i != 0xad);
        b->character[i] = printable ? (uint16_t)i : next++;
        b->byte[b->character[i]] = (int16_t)i;
    }
}

/* Number of a string, copied when it is new: token, or something that only merges know. */
static int32_t intern(vocab *v, const char *p, size_t n)
{
    int32_t id = str_table_find(&v->table, p, n);
    char *copy;

    if (id >= 0) return id;
    copy = malloc(n);
    if (!copy) return -1;
    memcpy(copy, p, n);
    id = str_table_add(&v->table, (gguf_str){copy, n});
    if (id < 0) free(copy);
    return id;
}

/* The place of the pair, or the free one where it belongs. */
static merge_entry *merge_place(const bpe *b, int32_t left, int32_t right)
{
    uint64_t h = ((uint64_t)(uint32_t)left << 32 | (uint32_t)right) * 0x9e3779b97f4a7c15u;
    size_t i = (size_t)(h >> 32) & (b->n_places - 1);

    while (b->merge[i].id >= 0 && (b->merge[i].left != left || b->merge[i].right != right))
        i = (i + 1) & (b->n_places - 1);
    return &b->merge[i];
}

/* "left right": the blank after the first byte at the earliest, since a left part may begin with one. */
static int add_merge(vocab *v, gguf_str m, uint32_t rank, char *joined, pr_err *err)
{
    const char *blank = m.n > 2 ? memchr(m.p + 1, ' ', m.n - 1) : NULL;
    size_t n_left = blank ? (size_t)(blank - m.p) : 0;
    merge_entry e = {.rank = rank}, *place;
    char shown[SHOW_BYTES];

    if (!n_left || n_left + 1 == m.n)
        return pr_fail(err, PR_EINTEGRITY,
                       "tokenizer.ggml.merges: entry %u is \"%s\", expected two parts with a blank between",
                       rank, show_text(shown, m));
    memcpy(joined, m.p, n_left);
    memcpy(joined + n_left, blank + 1, m.n - n_left - 1);
    e.left = intern(v, m.p, n_left);
    e.right = intern(v, blank + 1, m.n - n_left - 1);
    e.id = intern(v, joined, m.n - 1);
    if (e.left < 0 || e.right < 0 || e.id < 0)
        return pr_fail(err, PR_ERESOURCE, "tokenizer.ggml.merges: out of memory");
    place = merge_place(v->bpe, e.left, e.right);
    if (place->id < 0) *place = e; /* of equal merges the first counts */
    return PR_OK;
}

static int read_merges(vocab *v, const gguf *g, pr_err *err)
{
    bpe *b = v->bpe;
    gguf_array a;
    gguf_str *m = NULL;
    pr_err e = {0};
    size_t longest = 0;
    char *joined = NULL;
    int rc = PR_OK;

    if (!gguf_get_array(g, "tokenizer.ggml.merges", &a, &e)) {
        if (key_failed(false, &e, err)) return e.code;
        return pr_fail(err, PR_EINTEGRITY,
                       "tokenizer.ggml.merges is missing: a gpt2 (BPE) vocabulary needs it");
    }
    if (a.type != GGUF_STRING)
        return pr_fail(err, PR_EINTEGRITY, "tokenizer.ggml.merges: expected an array of strings");
    for (b->n_places = 16; b->n_places < 2 * a.n;) b->n_places *= 2;
    b->merge = malloc(b->n_places * sizeof *b->merge);
    m = malloc((a.n + 1) * sizeof *m);
    if (!b->merge || !m) goto no_memory;
    for (size_t i = 0; i < b->n_places; i++) b->merge[i].id = -1;
    gguf_array_strings(&a, m);
    for (size_t i = 0; i < a.n; i++)
        if (m[i].n > longest) longest = m[i].n;
    joined = malloc(longest + 1);
    if (!joined) goto no_memory;
    for (size_t i = 0; i < a.n && !rc; i++) rc = add_merge(v, m[i], (uint32_t)i, joined, err);
    goto done;
no_memory:
    rc = pr_fail(err, PR_ERESOURCE, "tokenizer.ggml.merges: out of memory for %zu merges", a.n);
done:
    free(joined);
    free(m);
    return rc;
}

int bpe_init(vocab *v, const gguf *g, pr_err *err)
{
    bpe *b = v->bpe = calloc(1, sizeof *b);
    int rc;

    if (!b) return pr_fail(err, PR_ERESOURCE, "vocabulary: out of memory");
    if ((rc = pre_tokenizer_new(&b->pre, v, g, err))) return rc;
    fill_alphabet(b);
    for (int i = 0; i < 256; i++) {
        char c[4];
        b->byte_id[i] = intern(v, c, utf8_put(c, b->character[i]));
        if (b->byte_id[i] < 0) return pr_fail(err, PR_ERESOURCE, "vocabulary: out of memory");
    }
    return read_merges(v, g, err);
}

void bpe_free(bpe *b)
{
    if (!b) return;
    pre_tokenizer_free(b->pre);
    free(b->merge);
    free(b);
}

/* --- encoding ---------------------------------------------------------------------------------- */

static bool bpe_rule(const vocab *v, const char *text, const symbol *l, const symbol *r, uint32_t *rank,
                     int32_t *id)
{
    const merge_entry *e = merge_place(v->bpe, l->id, r->id);

    (void)text;
    if (e->id < 0) return false;
    *rank = e->rank;
    *id = e->id;
    return true;
}

/* The token whose text is the whole word, -1: none. room holds v->longest_bytes + 4 bytes. */
static int32_t whole_word(const vocab *v, const char *word, size_t n, char *room)
{
    size_t at = 0;

    for (size_t i = 0; i < n; i++) {
        if (at > v->longest_bytes) return -1;
        at += utf8_put(room + at, v->bpe->character[(unsigned char)word[i]]);
    }
    return vocab_find(v, room, at);
}

/* A string that merges made but that is no token: its bytes, as far as they are tokens of their own. */
static void push_unknown(const vocab *v, gguf_str s, token_list *out)
{
    for (size_t i = 0; i < s.n; i++) {
        int32_t id = vocab_find(v, s.p + i, 1);
        if (id >= 0) token_list_push(out, id);
    }
}

static bool encode_word(const vocab *v, const char *word, size_t n, merge_space *m, char *room,
                        token_list *out)
{
    int32_t whole = pre_tokenizer_ignores_merges(v->bpe->pre) ? whole_word(v, word, n, room) : -1;

    if (whole >= 0) {
        token_list_push(out, whole);
        return true;
    }
    m->n_sym = 0;
    for (size_t i = 0; i < n; i++)
        if (!merge_push(m, 1, v->bpe->byte_id[(unsigned char)word[i]])) return false;
    if (!merge_run(m, v, word, bpe_rule)) return false;
    for (int32_t i = 0; i >= 0; i = m->sym[i].next) {
        int32_t id = m->sym[i].id;
        if ((uint32_t)id < v->n) token_list_push(out, id);
        else push_unknown(v, v->table.text[id], out);
    }
    return true;
}

int bpe_encode(const vocab *v, const char *text, size_t n, token_list *out, pr_err *err)
{
    char *repaired = NULL, *room = malloc(v->longest_bytes + 4);
    cut_list cuts = {0};
    merge_space m = {0};
    int rc = PR_OK;
    bool ok = room != NULL;

    if (ok && !utf8_is_valid(text, n)) {
        text = repaired = utf8_repair(text, n, &n);
        ok = repaired != NULL;
    }
    if (ok) rc = pre_tokenizer_cut(v->bpe->pre, text, n, &cuts, err);
    for (size_t i = 0, start = 0; ok && !rc && i < cuts.n; start = cuts.end[i++])
        ok = encode_word(v, text + start, cuts.end[i] - start, &m, room, out);
    merge_clear(&m);
    free(cuts.end);
    free(repaired);
    free(room);
    return ok || rc ? rc : pr_fail(err, PR_ERESOURCE, "tokenizer: out of memory for a text of %zu bytes", n);
}

/* --- decoding ---------------------------------------------------------------------------------- */

size_t bpe_piece(const vocab *v, int32_t id, char *out, size_t max)
{
    gguf_str t = v->table.text[id];
    size_t n = 0;

    for (size_t i = 0; i < t.n;) {
        uint32_t c = 0;
        size_t len = utf8_get((const unsigned char *)t.p + i, t.n - i, &c);
        int byte = len && c < BYTE_CHARACTERS ? v->bpe->byte[c] : -1;

        if (byte >= 0) {
            if (n < max) out[n] = (char)byte;
            n++;
            i += len;
            continue;
        }
        /* Not of the alphabet (a token that somebody added by hand): as it stands. */
        for (size_t end = i + (len ? len : 1); i < end; i++, n++)
            if (n < max) out[n] = t.p[i];
    }
    return n;
}
