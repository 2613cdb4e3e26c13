/* SPM, the tokenizer of Llama 1 and 2: white space is written U+2581, and neighbours whose joined text is a
 * token are joined, the highest score first. A character that is no token in the end becomes its bytes. */
#include "src/model/vocab_impl.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SPACE_MARK       "\xe2\x96\x81" /* U+2581, three bytes */
#define SPACE_MARK_BYTES 3

int spm_init(vocab *v, const gguf *g, pr_err *err)
{
    pr_err e = {0};

    v->space_prefix = true;
    v->add_bos = true;
    if (key_failed(gguf_bool(g, "tokenizer.ggml.add_space_prefix", &v->space_prefix, &e), &e, err))
        return e.code;
    for (int b = 0; b < 256; b++) {
        char name[8], c = (char)b;

        snprintf(name, sizeof name, "<0x%02X>", b);
        v->byte_id[b] = vocab_find(v, name, 6);
        if (v->byte_id[b] < 0) v->byte_id[b] = vocab_find(v, &c, 1);
    }
    return PR_OK;
}

/* A float as an integer that sorts the other way round. +0 makes -0 equal to 0. */
static uint32_t rank_of_score(float score)
{
    uint32_t u;

    score += 0.0f;
    memcpy(&u, &score, sizeof u);
    return u & 0x80000000u ? u : ~u & 0x7fffffffu;
}

static bool spm_rule(const vocab *v, const char *text, const symbol *l, const symbol *r, uint32_t *rank,
                     int32_t *id)
{
    size_t n = (size_t)l->len + r->len;

    if (n > v->longest_bytes) return false;
    *id = vocab_find(v, text + l->start, n);
    if (*id < 0) return false;
    *rank = rank_of_score(v->score[*id]);
    return true;
}

/* The text with marks for its spaces, and one in front when wanted. */
static char *mark_spaces(const char *text, size_t n, bool prefix, size_t *n_out)
{
    size_t spaces = prefix, at = 0;
    char *out;

    for (size_t i = 0; i < n; i++) spaces += text[i] == ' ';
    out = malloc(n + spaces * SPACE_MARK_BYTES + 1);
    if (!out) return NULL;
    if (prefix) {
        memcpy(out, SPACE_MARK, SPACE_MARK_BYTES);
        at = SPACE_MARK_BYTES;
    }
    for (size_t i = 0; i < n; i++) {
        if (text[i] == ' ') {
            memcpy(out + at, SPACE_MARK, SPACE_MARK_BYTES);
            at += SPACE_MARK_BYTES;
        } else {
            out[at++] = text[i];
        }
    }
    *n_out = at;
    return out;
}

/* A character that is no token: its bytes, or one unknown token when a byte has none. */
static void push_bytes(const vocab *v, const char *p, size_t n, token_list *out)
{
    for (size_t i = 0; i < n; i++) {
        if (v->byte_id[(unsigned char)p[i]] >= 0) continue;
        if (v->unk >= 0) token_list_push(out, v->unk);
        return;
    }
    for (size_t i = 0; i < n; i++) token_list_push(out, v->byte_id[(unsigned char)p[i]]);
}

int spm_encode(const vocab *v, const char *text, size_t n, bool first, token_list *out, pr_err *err)
{
    merge_space m = {0};
    size_t n_marked = 0;
    char *marked = mark_spaces(text, n, v->space_prefix && first, &n_marked);
    bool ok = marked != NULL;

    for (size_t at = 0; ok && at < n_marked;) {
        size_t len = utf8_len((unsigned char)marked[at]);
        if (len > n_marked - at) len = n_marked - at;
        ok = merge_push(&m, (uint32_t)len, vocab_find(v, marked + at, len));
        at += len;
    }
    ok = ok && merge_run(&m, v, marked, spm_rule);
    for (int32_t i = ok && m.n_sym ? 0 : -1; i >= 0; i = m.sym[i].next) {
        if (m.sym[i].id >= 0) token_list_push(out, m.sym[i].id);
        else push_bytes(v, marked + m.sym[i].start, m.sym[i].len, out);
    }
    merge_clear(&m);
    free(marked);
    return ok ? PR_OK : pr_fail(err, PR_ERESOURCE, "tokenizer: out of memory for a text of %zu bytes", n);
}

/* "<0x0A>" -> 10; -1 when it is not of that form. */
static int byte_of_text(gguf_str t)
{
    int value = 0;

    if (t.n != 6 || memcmp(t.p, "<0x", 3) || t.p[5] != '>') return -1;
    for (int i = 3; i < 5; i++) {
        char c = t.p[i];
        int digit = c >= '0' && c <= '9'   ? c - '0'
                    : c >= 'A' && c <= 'F' ? c - 'A' + 10
                    : c >= 'a' && c <= 'f' ? c - 'a' + 10
                                           : -1;
        if (digit < 0) return -1;
        value = 16 * value + digit;
    }
    return value;
}

size_t spm_piece(const vocab *v, int32_t id, char *out, size_t max)
{
    gguf_str t = v->table.text[id];
    int byte = v->kind[id] == TOKEN_BYTE ? byte_of_text(t) : -1;
    size_t n = 0;

    if (byte >= 0) {
        if (max) out[0] = (char)byte;
        return 1;
    }
    for (size_t i = 0; i < t.n; n++) {
        bool mark = t.n - i >= SPACE_MARK_BYTES && !memcmp(t.p + i, SPACE_MARK, SPACE_MARK_BYTES);
        if (n < max) out[n] = mark ? ' ' : t.p[i];
        i += mark ? SPACE_MARK_BYTES : 1;
    }
    return n;
}
