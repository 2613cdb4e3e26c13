/* The vocabulary as a whole: read from GGUF metadata; special ids; a text encoded fragment by fragment;
 * pieces. SPM and BPE themselves are in spm.c and bpe.c. */
#include "src/base/log.h"
#include "src/model/vocab_impl.h"
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TEXT_MAX_BYTES ((size_t)256 << 20) /* positions are 32 bits wide and a blank becomes three bytes */

/* --- strings and their numbers ----------------------------------------------------------------- */

/* FNV-1a, stirred at the end because only its low bits are used. */
static uint64_t hash_bytes(const char *p, size_t n)
{
    uint64_t h = 0xcbf29ce484222325u;

    for (size_t i = 0; i < n; i++) h = (h ^ (unsigned char)p[i]) * 0x100000001b3u;
    return h ^ h >> 32;
}

/* The slot that holds the string, or the free one where it belongs. */
static int32_t *str_table_slot(const str_table *t, const char *p, size_t n)
{
    size_t i = (size_t)hash_bytes(p, n) & (t->n_slots - 1);

    for (; t->slot[i] >= 0; i = (i + 1) & (t->n_slots - 1)) {
        gguf_str s = t->text[t->slot[i]];
        if (s.n == n && !memcmp(s.p, p, n)) break;
    }
    return &t->slot[i];
}

int32_t str_table_find(const str_table *t, const char *p, size_t n)
{
    return t->n_slots && n ? *str_table_slot(t, p, n) : -1;
}

/* Room for twice as many strings, at most half of the slots taken. */
static bool str_table_grow(str_table *t)
{
    size_t cap = t->cap ? 2 * t->cap : 512;
    gguf_str *text = realloc(t->text, cap * sizeof *text);
    int32_t *slot;

    if (!text) return false;
    t->text = text;
    slot = malloc(2 * cap * sizeof *slot);
    if (!slot) return false;
    free(t->slot);
    t->slot = slot;
    t->cap = cap;
    t->n_slots = 2 * cap;
    for (size_t i = 0; i < t->n_slots; i++) slot[i] = -1;
    for (size_t i = 0; i < t->n; i++)
        if (text[i].n) *str_table_slot(t, text[i].p, text[i].n) = (int32_t)i;
    return true;
}

int32_t str_table_add(str_table *t, gguf_str s)
{
    int32_t *slot;

    if (t->n == t->cap && (t->n >= INT32_MAX / 2 || !str_table_grow(t))) return -1;
    slot = s.n ? str_table_slot(t, s.p, s.n) : NULL;
    if (slot && *slot >= 0) return *slot;
    if (slot) *slot = (int32_t)t->n;
    t->text[t->n] = s;
    return (int32_t)t->n++;
}

void str_table_clear(str_table *t)
{
    free(t->text);
    free(t->slot);
    *t = (str_table){0};
}

/* --- reading ----------------------------------------------------------------------------------- */

const char *show_text(char out[SHOW_BYTES], gguf_str s)
{
    char *text = gguf_text(s, SHOW_BYTES / 2);

    snprintf(out, SHOW_BYTES, "%s", text ? text : "");
    free(text);
    return out;
}

/* tokenizer.ggml.tokens. */
static int read_tokens(vocab *v, const gguf *g, pr_err *err)
{
    gguf_array a;
    gguf_str *text;
    char shown[SHOW_BYTES];
    pr_err e = {0};
    int rc = PR_OK;

    if (!gguf_get_array(g, "tokenizer.ggml.tokens", &a, &e)) {
        if (key_failed(false, &e, err)) return e.code;
        return pr_fail(err, PR_EINTEGRITY, "tokenizer.ggml.tokens is missing: the model has no vocabulary");
    }
    if (a.type != GGUF_STRING || !a.n || a.n > INT32_MAX / 4)
        return pr_fail(err, PR_EINTEGRITY, "tokenizer.ggml.tokens: expected an array of at least one string");
    text = malloc(a.n * sizeof *text);
    if (!text) return pr_fail(err, PR_ERESOURCE, "tokenizer.ggml.tokens: out of memory for %zu tokens", a.n);
    gguf_array_strings(&a, text);
    for (size_t i = 0; i < a.n && !rc; i++) {
        int32_t id = str_table_add(&v->table, text[i]);
        if (id < 0)
            rc = pr_fail(err, PR_ERESOURCE, "tokenizer.ggml.tokens: out of memory for %zu tokens", a.n);
        else if ((size_t)id != i)
            rc = pr_fail(err, PR_EINTEGRITY, "tokenizer.ggml.tokens: tokens %d and %zu are the same, \"%s\"",
                         id, i, show_text(shown, text[i]));
        if (text[i].n > v->longest_bytes) v->longest_bytes = text[i].n;
    }
    v->n = (uint32_t)a.n;
    free(text);
    return rc;
}

/* An array with one number per token; *found tells whether the file has it. */
static int token_array(const gguf *g, const char *key, bool floats, uint32_t n, gguf_array *a, bool *found,
                       pr_err *err)
{
    pr_err e = {0};
    bool is_float;

    *found = gguf_get_array(g, key, a, &e);
    if (key_failed(*found, &e, err)) return e.code;
    if (!*found) return PR_OK;
    is_float = a->type == GGUF_F32 || a->type == GGUF_F64;
    if (is_float != floats || a->type == GGUF_STRING || a->type == GGUF_BOOL)
        return pr_fail(err, PR_EINTEGRITY, "%s: expected an array of %s", key,
                       floats ? "floats" : "integers");
    if (a->n != n)
        return pr_fail(err, PR_EINTEGRITY, "%s: %zu entries for %u tokens, expected as many", key, a->n, n);
    return PR_OK;
}

static int read_token_facts(vocab *v, const gguf *g, pr_err *err)
{
    gguf_array scores, types;
    bool has_scores, has_types;
    int rc;

    if ((rc = token_array(g, "tokenizer.ggml.scores", true, v->n, &scores, &has_scores, err))) return rc;
    if ((rc = token_array(g, "tokenizer.ggml.token_type", false, v->n, &types, &has_types, err))) return rc;
    v->kind = malloc(v->n);
    v->strip = calloc(v->n, 1);
    v->is_eog = calloc(v->n, sizeof *v->is_eog);
    v->score = calloc(v->n, sizeof *v->score);
    if (!v->kind || !v->strip || !v->is_eog || !v->score)
        return pr_fail(err, PR_ERESOURCE, "vocabulary: out of memory for %u tokens", v->n);
    for (uint32_t i = 0; i < v->n; i++) {
        int64_t t = has_types ? gguf_array_int(&types, i) : TOKEN_NORMAL;
        v->kind[i] = t >= TOKEN_NORMAL && t <= TOKEN_BYTE ? (uint8_t)t : TOKEN_UNUSED;
        if (has_scores) v->score[i] = (float)gguf_array_num(&scores, i);
    }
    return PR_OK;
}

/* A special id: from its key, else what *id was. An id that is no token is as good as absent. */
static int read_id(const vocab *v, const gguf *g, const char *key, int32_t *id, pr_err *err)
{
    uint32_t n;
    pr_err e = {0};
    bool found = gguf_u32(g, key, &n, &e);

    if (key_failed(found, &e, err)) return e.code;
    if (found && n < v->n) *id = (int32_t)n;
    else if (found) log_warn("%s is %u, but there are %u tokens: ignored", key, n, v->n);
    if (*id >= 0 && (uint32_t)*id >= v->n) *id = -1;
    return PR_OK;
}

/* Tokens with a role, by key or by well-known text. Found by text, they count as control tokens whatever the
 * file says, so that a user's text does not contain them. ends: they end the generation, also those of
 * fill-in-the-middle, as in llama.cpp. */
/* clang-format off */
static const struct role {
    const char *key, *old_key;
    bool ends;
    const char *text[5];
} roles[] = {
    {"eot", NULL, true, {NULL}},
    {"eom", NULL, true, {NULL}},
    {"fim_pre", "prefix", false, {"<|fim_prefix|>", "<fim-prefix>", "<\uff5cfim\u2581begin\uff5c>", "<PRE>"}},
    {"fim_suf", "suffix", false, {"<|fim_suffix|>", "<fim-suffix>", "<\uff5cfim\u2581hole\uff5c>", "<SUF>"}},
    {"fim_mid", "middle", false, {"<|fim_middle|>", "<fim-middle>", "<\uff5cfim\u2581end\uff5c>", "<MID>"}},
    {"fim_pad", NULL, true, {"<|fim_pad|>", "<fim-pad>", "<PAD>"}},
    {"fim_rep", NULL, true, {"<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>"}},
    {"fim_sep", NULL, true, {"<|file_sep|>"}},
};
/* These end a turn in every vocabulary that has them: llama.cpp's list, and <|end_of_text|> because Llama 3's own
 * generation settings stop there too. */
static const char *const turn_ends[] = {
    "<|eot_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>", "<|endoftext|>", "<|eom_id|>", "<EOT>",
    "<|end_of_text|>", "<\uff5cend\u2581of\u2581sentence\uff5c>",
};
/* clang-format on */

static int read_role(vocab *v, const gguf *g, const struct role *r, pr_err *err)
{
    int32_t id = -1;
    const char *const names[] = {r->key, r->old_key};
    int rc;

    for (size_t i = 0; i < 2 && names[i]; i++) {
        char key[64];
        snprintf(key, sizeof key, "tokenizer.ggml.%s_token_id", names[i]);
        if ((rc = read_id(v, g, key, &id, err))) return rc;
    }
    for (size_t i = 0; id < 0 && r->text[i]; i++) {
        id = vocab_find(v, r->text[i], strlen(r->text[i]));
        if (id >= 0) v->kind[id] = TOKEN_CONTROL;
    }
    if (id >= 0 && r->ends) v->is_eog[id] = true;
    return PR_OK;
}

static int read_special_ids(vocab *v, const gguf *g, pr_err *err)
{
    int rc;

    if (!v->bpe) { /* what old SPM files leave out */
        v->unk = 0;
        v->bos = 1;
        v->eos = 2;
    }
    if ((rc = read_id(v, g, "tokenizer.ggml.bos_token_id", &v->bos, err))) return rc;
    if ((rc = read_id(v, g, "tokenizer.ggml.eos_token_id", &v->eos, err))) return rc;
    if ((rc = read_id(v, g, "tokenizer.ggml.unknown_token_id", &v->unk, err))) return rc;
    for (size_t i = 0; i < sizeof roles / sizeof *roles; i++)
        if ((rc = read_role(v, g, &roles[i], err))) return rc;
    for (size_t i = 0; i < sizeof turn_ends / sizeof *turn_ends; i++) {
        int32_t id = vocab_find(v, turn_ends[i], strlen(turn_ends[i]));
        if (id < 0) continue;
        v->kind[id] = TOKEN_CONTROL;
        v->is_eog[id] = true;
    }
    if (v->eos >= 0) v->is_eog[v->eos] = true;
    return PR_OK;
}

static int read_flags(vocab *v, const gguf *g, pr_err *err)
{
    pr_err e = {0};

    if (key_failed(gguf_bool(g, "tokenizer.ggml.add_bos_token", &v->add_bos, &e), &e, err)) return e.code;
    if (key_failed(gguf_bool(g, "tokenizer.ggml.add_eos_token", &v->add_eos, &e), &e, err)) return e.code;
    if (v->add_bos && v->bos < 0)
        return pr_fail(err, PR_EINTEGRITY,
                       "tokenizer: BOS is to be added, but tokenizer.ggml.bos_token_id names no token");
    if (v->add_eos && v->eos < 0)
        return pr_fail(err, PR_EINTEGRITY,
                       "tokenizer: EOS is to be added, but tokenizer.ggml.eos_token_id names no token");
    return PR_OK;
}

static bool contains_any_case(gguf_str s, const char *what)
{
    size_t n = strlen(what);

    for (size_t i = 0; i + n <= s.n; i++) {
        size_t k = 0;
        while (k < n && tolower((unsigned char)s.p[i + k]) == what[k]) k++;
        if (k == n) return true;
    }
    return false;
}

static void set_strip(vocab *v, const char *text, uint8_t strip)
{
    int32_t id = vocab_find(v, text, strlen(text));
    if (id >= 0) v->strip[id] = strip;
}

/* GGUF does not say which special tokens take white space with them; llama.cpp knows it of two families. */
static int set_strips(vocab *v, const gguf *g, pr_err *err)
{
    gguf_str name = {0}, pre = {0};
    pr_err e = {0};

    if (key_failed(gguf_string(g, "general.name", &name, &e), &e, err)) return e.code;
    if (key_failed(gguf_string(g, "tokenizer.ggml.pre", &pre, &e), &e, err)) return e.code;
    if (contains_any_case(pre, "jina-v2-de") || contains_any_case(pre, "jina-v2-es") ||
        contains_any_case(pre, "jina-v2-code")) {
        set_strip(v, "<mask>", STRIP_LEFT);
    } else if (contains_any_case(name, "phi-3") || contains_any_case(name, "phi3")) {
        for (size_t i = 0; i < v->special.n; i++) v->strip[v->special.order[i]] = STRIP_RIGHT;
        set_strip(v, "</s>", STRIP_RIGHT);
        set_strip(v, "<unk>", 0);
        set_strip(v, "<s>", 0);
        set_strip(v, "<|endoftext|>", 0);
    }
    return PR_OK;
}

static int read_model(vocab *v, const gguf *g, pr_err *err)
{
    gguf_str model = {0};
    char shown[SHOW_BYTES];
    pr_err e = {0};

    if (key_failed(gguf_string(g, "tokenizer.ggml.model", &model, &e), &e, err)) return e.code;
    if (model.n == 5 && !memcmp(model.p, "llama", 5)) {
        snprintf(v->describe, sizeof v->describe, "spm");
        return spm_init(v, g, err);
    }
    if (model.n == 4 && !memcmp(model.p, "gpt2", 4)) return bpe_init(v, g, err);
    return pr_fail(err, PR_EINTEGRITY,
                   "tokenizer.ggml.model is \"%s\": expected llama (SPM) or gpt2 (byte-level BPE)",
                   model.p ? show_text(shown, model) : "");
}

int vocab_read(vocab **out, const gguf *g, pr_err *err)
{
    vocab *v = calloc(1, sizeof *v);
    int rc;

    if (!v) return pr_fail(err, PR_ERESOURCE, "vocabulary: out of memory");
    v->bos = v->eos = v->unk = -1;
    if ((rc = read_tokens(v, g, err))) goto failed;
    if ((rc = read_token_facts(v, g, err))) goto failed;
    if ((rc = read_model(v, g, err))) goto failed;
    if ((rc = read_special_ids(v, g, err))) goto failed;
    if ((rc = read_flags(v, g, err))) goto failed;
    if ((rc = special_init(v, err))) goto failed;
    if ((rc = set_strips(v, g, err))) goto failed;
    *out = v;
    return PR_OK;
failed:
    vocab_free(v);
    return rc;
}

void vocab_free(vocab *v)
{
    if (!v) return;
    for (size_t i = v->n; i < v->table.n; i++) free((char *)v->table.text[i].p);
    str_table_clear(&v->table);
    special_clear(&v->special);
    bpe_free(v->bpe);
    free(v->kind);
    free(v->strip);
    free(v->is_eog);
    free(v->score);
    free(v);
}

/* --- questions --------------------------------------------------------------------------------- */

static bool is_token(const vocab *v, int32_t id)
{
    return id >= 0 && (uint32_t)id < v->n;
}

uint32_t vocab_size(const vocab *v)
{
    return v->n;
}

int32_t vocab_bos(const vocab *v)
{
    return v->bos;
}

int32_t vocab_eos(const vocab *v)
{
    return v->eos;
}

bool vocab_add_bos(const vocab *v)
{
    return v->add_bos;
}

bool vocab_add_eos(const vocab *v)
{
    return v->add_eos;
}

bool vocab_is_eog(const vocab *v, int32_t id)
{
    return is_token(v, id) && v->is_eog[id];
}

token_kind vocab_kind(const vocab *v, int32_t id)
{
    return is_token(v, id) ? (token_kind)v->kind[id] : TOKEN_UNUSED;
}

gguf_str vocab_text(const vocab *v, int32_t id)
{
    return is_token(v, id) ? v->table.text[id] : (gguf_str){"", 0};
}

const char *vocab_describe(const vocab *v)
{
    return v->describe;
}

int32_t vocab_find(const vocab *v, const char *text, size_t n)
{
    int32_t id = str_table_find(&v->table, text, n);
    return is_token(v, id) ? id : -1;
}

/* --- encoding and decoding --------------------------------------------------------------------- */

void token_list_push(token_list *l, int32_t id)
{
    if (l->n == l->cap) {
        l->cap = l->cap ? 2 * l->cap : 64;
        l->id = realloc(l->id, l->cap * sizeof *l->id);
        if (!l->id) abort();
    }
    l->id[l->n++] = id;
}

int vocab_encode(const vocab *v, const char *text, size_t n, bool add_special, bool parse_special,
                 token_list *out, pr_err *err)
{
    fragment *f = NULL;
    size_t n_fragments = 0;
    int rc;

    if (n > TEXT_MAX_BYTES)
        return pr_fail(err, PR_EUSAGE, "tokenizer: text of %zu bytes, expected at most %zu", n,
                       TEXT_MAX_BYTES);
    if ((rc = special_split(v, text, n, parse_special, &f, &n_fragments, err))) return rc;
    if (add_special && v->add_bos) token_list_push(out, v->bos);
    for (size_t i = 0; i < n_fragments && !rc; i++) {
        bool after_special = i == 0 || f[i - 1].id >= 0;

        if (f[i].id >= 0) token_list_push(out, f[i].id);
        else if (v->bpe) rc = bpe_encode(v, text + f[i].start, f[i].len, out, err);
        else rc = spm_encode(v, text + f[i].start, f[i].len, after_special, out, err);
    }
    if (!rc && add_special && v->add_eos) token_list_push(out, v->eos);
    free(f);
    return rc;
}

size_t vocab_piece(const vocab *v, int32_t id, bool special, char *out, size_t max)
{
    gguf_str t = vocab_text(v, id);

    switch (vocab_kind(v, id)) {
    case TOKEN_NORMAL: return v->bpe ? bpe_piece(v, id, out, max) : spm_piece(v, id, out, max);
    case TOKEN_BYTE: return v->bpe ? 0 : spm_piece(v, id, out, max);
    case TOKEN_CONTROL:
    case TOKEN_UNKNOWN:
        if (!special) return 0;
        break;
    case TOKEN_USER: break;
    case TOKEN_UNUSED: return 0;
    }
    if (t.n && max) memcpy(out, t.p, t.n < max ? t.n : max);
    return t.n;
}
