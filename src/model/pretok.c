/* Pre-tokenizers: they cut a text into the words that BPE then works on, one by one.
 *
 * A pre-tokenizer is known by name and is a list of patterns: each one cuts the pieces that the one before it
 * left, and what it does not match stays a piece. The patterns belong to the vocabularies (their
 * tokenizer.json); they are written here so that PCRE2 gives what llama.cpp gives:
 *   - white space is Unicode's White_Space, spelled out, because \s of PCRE2 also has U+180E;
 *   - in patterns without \p{..} llama.cpp turns white space other than ASCII's into U+000B before it
 *     matches, so ranges that span some (U+3000 in U+0800..U+4E00) leave it out;
 *   - `\s+$` has a look-behind, without which a long run of blanks takes quadratic time where there is no
 * JIT. Text that is not UTF-8 is read as llama.cpp reads it: U+FFFD for a byte that begins no character. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "src/base/log.h"
#include "src/model/vocab_impl.h"
#include <pcre2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- patterns ---------------------------------------------------------------------------------- */

/* clang-format off */
#define WS \
    "\\x09-\\x0d\\x20\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}\\x{3000}"
/* Letters, numbers and punctuation, with those of Unicode 15 and 15.1, which llama.cpp has and PCRE2 10.42 has not. */
#define LETTER \
    "\\p{L}\\x{1123f}\\x{11240}\\x{11f02}\\x{11f04}-\\x{11f10}\\x{11f12}-\\x{11f33}\\x{1342f}\\x{13441}-\\x{13446}" \
    "\\x{1b132}\\x{1b155}\\x{1df25}-\\x{1df2a}\\x{1e030}-\\x{1e06d}\\x{1e4d0}-\\x{1e4eb}\\x{2b739}" \
    "\\x{2ebf0}-\\x{2ee5d}\\x{31350}-\\x{323af}"
#define NUMBER "\\p{N}\\x{11f50}-\\x{11f59}\\x{1d2c0}-\\x{1d2d3}\\x{1e4f0}-\\x{1e4f9}"
#define PUNCT "\\p{P}\\x{11b00}-\\x{11b09}\\x{11f43}-\\x{11f4f}"

#define SPACE "[" WS "]"
#define BEFORE_SPACE_OR_END "(?![^" WS "])"
#define SPACES "|" SPACE "+" BEFORE_SPACE_OR_END "|" SPACE "+"
#define APOSTROPHES "'s|'t|'re|'ve|'m|'ll|'d"
#define APOSTROPHES_ANY_CASE "'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD]"
#define GPT2 APOSTROPHES "| ?[" LETTER "]+| ?[" NUMBER "]+| ?[^" WS LETTER NUMBER "]+" SPACES
#define LLAMA3(digits) \
    APOSTROPHES_ANY_CASE "|[^\\r\\n" LETTER NUMBER "]?[" LETTER "]+|[" NUMBER "]" digits "| ?[^" WS LETTER NUMBER \
                         "]+[\\r\\n]*|" SPACE "*[\\r\\n]+" SPACES
/* U+0800..U+4E00 without white space, U+4E00..U+9FA5, U+AC00..U+D7FF */
#define HAN_AND_HANGUL \
    "[\\x{800}-\\x{167f}\\x{1681}-\\x{1fff}\\x{200b}-\\x{2027}\\x{202a}-\\x{202e}\\x{2030}-\\x{205e}" \
    "\\x{2060}-\\x{2fff}\\x{3001}-\\x{9fa5}\\x{ac00}-\\x{d7ff}]+"
#define DEEPSEEK_LETTERS \
    "A-Za-z\\x{b5}\\x{c0}-\\x{d6}\\x{d8}-\\x{f6}\\x{f8}-\\x{1ba}\\x{1bc}-\\x{1bf}" \
    "\\x{1c4}-\\x{293}\\x{295}-\\x{2af}\\x{370}-\\x{373}\\x{376}\\x{377}\\x{37b}-\\x{37d}\\x{37f}" \
    "\\x{386}\\x{388}-\\x{38a}\\x{38c}\\x{38e}-\\x{3a1}\\x{3a3}-\\x{3f5}\\x{3f7}-\\x{481}" \
    "\\x{48a}-\\x{52f}\\x{531}-\\x{556}\\x{10a0}-\\x{10c5}\\x{13a0}-\\x{13f5}\\x{13f8}-\\x{13fd}" \
    "\\x{1c90}-\\x{1cba}\\x{1cbd}-\\x{1cbf}\\x{1d00}-\\x{1d2b}\\x{1d6b}-\\x{1d77}" \
    "\\x{1d79}-\\x{1d9a}\\x{1e00}-\\x{1f15}\\x{1f18}-\\x{1f1d}\\x{1f20}-\\x{1f45}" \
    "\\x{1f48}-\\x{1f4d}\\x{1f50}-\\x{1f57}\\x{1f59}\\x{1f5b}\\x{1f5d}\\x{1f5f}-\\x{1f7d}" \
    "\\x{1f80}-\\x{1fb4}\\x{1fb6}-\\x{1fbc}\\x{1fbe}\\x{1fc2}-\\x{1fc4}\\x{1fc6}-\\x{1fcc}" \
    "\\x{1fd0}-\\x{1fd3}\\x{1fd6}-\\x{1fdb}\\x{1fe0}-\\x{1fec}\\x{1ff2}-\\x{1ff4}" \
    "\\x{1ff6}-\\x{1ffc}\\x{2102}\\x{2107}\\x{210a}-\\x{2113}\\x{2115}\\x{2119}-\\x{211d}" \
    "\\x{2124}\\x{2126}\\x{2128}\\x{212a}-\\x{212d}\\x{212f}-\\x{2134}\\x{2139}" \
    "\\x{213c}-\\x{213f}\\x{2145}-\\x{2149}\\x{214e}\\x{2183}\\x{2184}\\x{2c00}-\\x{2c7b}" \
    "\\x{2c7e}-\\x{2ce4}\\x{2ceb}-\\x{2cee}\\x{2cf2}\\x{2cf3}\\x{a640}-\\x{a66d}" \
    "\\x{a680}-\\x{a69b}\\x{a722}-\\x{a76f}\\x{a771}-\\x{a787}\\x{a78b}-\\x{a78e}" \
    "\\x{ab70}-\\x{abbf}\\x{fb00}-\\x{fb06}\\x{fb13}-\\x{fb17}\\x{ff21}-\\x{ff3a}" \
    "\\x{ff41}-\\x{ff5a}\\x{10400}-\\x{1044f}\\x{104b0}-\\x{104d3}\\x{104d8}-\\x{104fb}" \
    "\\x{10c80}-\\x{10cb2}\\x{10cc0}-\\x{10cf2}\\x{118a0}-\\x{118df}\\x{1e900}-\\x{1e943}"
/* Letters without the small (the capital) ones of ASCII; those that PCRE2 does not know are missing here. */
#define UPPER "[^\\P{L}a-z]"
#define LOWER "[^\\P{L}A-Z]"

#define MAX_PATTERNS 6
static const struct pre_rule {
    const char *names;                     /* of tokenizer.ggml.pre, each between blanks */
    const char *pattern[MAX_PATTERNS];
    bool ignore_merges;                    /* a word that is a token is taken whole */
    bool add_bos;                          /* when the file does not say */
} pre_rules[] = {
    {" llama-bpe llama3 llama-v3 falcon3 ", {LLAMA3("{1,3}")}, true, true},
    {" smaug-bpe dbrx ", {LLAMA3("{1,3}")}, false, false},
    {" qwen2 deepseek-r1-qwen stablelm2 megrez ", {LLAMA3("")}, false, false},
    {" gpt-2 phi-2 jina-es jina-de jina-v1-en jina-v2-es jina-v2-de jina-v2-code gigachat roberta-bpe mpt"
     " olmo jais ", {GPT2}, false, false},
    {" starcoder refact command-r smollm codeshell exaone minerva-7b ", {"[" NUMBER "]", GPT2}, false, false},
    {" falcon ", {"[" PUNCT "$+<=>^~|`]+", GPT2, "[0-9][0-9][0-9]"}, false, false},
    {" default ", {"[" PUNCT "$+<=>^~|]+", GPT2, "[" NUMBER "]+", "[0-9][0-9][0-9]"}, false, false},
    {" deepseek-llm ",
     {"[\\r\\n]", SPACE "?[" DEEPSEEK_LETTERS "]+",
      SPACE "?[!-/:-~\\x{ff01}-\\x{ff0f}\\x{ff1a}-\\x{ff5e}\\x{2018}-\\x{201f}\\x{3001}\\x{3002}]+",
      "(?<!" SPACE ")" SPACE "+\\z", HAN_AND_HANGUL, "[" NUMBER "]+"}, false, false},
    {" deepseek-coder ",
     {"[\\r\\n]", SPACE "?[" LETTER "]+", SPACE "?[" PUNCT "]+", HAN_AND_HANGUL, "[" NUMBER "]"},
     false, false},
    {" tekken ",
     {"[^\\r\\n" LETTER NUMBER "]?" UPPER "*" LOWER "+|[^\\r\\n" LETTER NUMBER "]?" UPPER "+" LOWER "*|[" NUMBER
      "]| ?[^" WS LETTER NUMBER "]+[\\r\\n/]*|" SPACE "*[\\r\\n]+" SPACES}, true, true},
};
/* clang-format on */

static const struct pre_rule *pre_rule_find(gguf_str name)
{
    char key[64];

    if (!name.n || name.n > sizeof key - 3 || memchr(name.p, ' ', name.n)) return NULL;
    snprintf(key, sizeof key, " %.*s ", (int)name.n, name.p);
    for (size_t i = 0; i < sizeof pre_rules / sizeof *pre_rules; i++)
        if (strstr(pre_rules[i].names, key)) return &pre_rules[i];
    return NULL;
}

/* --- reading ----------------------------------------------------------------------------------- */

struct pre_tokenizer {
    pcre2_code *pattern[MAX_PATTERNS];
    size_t n_patterns;
    pcre2_match_context *limits;
    bool ignore_merges;
};

static int compile_patterns(pre_tokenizer *t, const struct pre_rule *rule, pr_err *err)
{
    t->limits = pcre2_match_context_create(NULL);
    if (!t->limits) return pr_fail(err, PR_ERESOURCE, "pre-tokenizer: out of memory");
    /* The patterns take time in proportion to the text: PCRE2's limit is meant for others. */
    pcre2_set_match_limit(t->limits, UINT32_MAX);
    for (size_t i = 0; i < MAX_PATTERNS && rule->pattern[i]; i++) {
        PCRE2_SIZE at;
        int code;
        pcre2_code *p =
            pcre2_compile((PCRE2_SPTR)rule->pattern[i], PCRE2_ZERO_TERMINATED, PCRE2_UTF, &code, &at, NULL);

        if (!p) {
            PCRE2_UCHAR why[120];
            pcre2_get_error_message(code, why, sizeof why);
            return pr_fail(err, PR_EINTERNAL, "pre-tokenizer:%spattern %zu: offset %zu: %s", rule->names, i,
                           (size_t)at, (char *)why);
        }
        /* Where there is no JIT, or it may not run, pcre2_match interprets: slower, the same result. */
        pcre2_jit_compile(p, PCRE2_JIT_COMPLETE);
        t->pattern[t->n_patterns++] = p;
    }
    return PR_OK;
}

static int find_rule(vocab *v, const gguf *g, const struct pre_rule **rule, pr_err *err)
{
    gguf_str name = {"default", 7};
    char shown[SHOW_BYTES];
    pr_err e = {0};

    if (key_failed(gguf_string(g, "tokenizer.ggml.pre", &name, &e), &e, err)) return e.code;
    if (!gguf_has(g, "tokenizer.ggml.pre"))
        log_warn("the model names no pre-tokenizer (tokenizer.ggml.pre): taking \"default\", which may not "
                 "fit it");
    *rule = pre_rule_find(name);
    if (!*rule)
        return pr_fail(
            err, PR_EINTEGRITY,
            "tokenizer.ggml.pre is \"%s\": unknown pre-tokenizer, expected llama-bpe, qwen2, "
            "deepseek-r1-qwen, deepseek-llm, deepseek-coder, gpt-2, falcon, tekken, smollm or default",
            show_text(shown, name));
    snprintf(v->describe, sizeof v->describe, "bpe %.*s", (int)(name.n < 40 ? name.n : 40), name.p);
    return PR_OK;
}

int pre_tokenizer_new(pre_tokenizer **out, vocab *v, const gguf *g, pr_err *err)
{
    const struct pre_rule *rule = NULL;
    int rc = find_rule(v, g, &rule, err);
    pre_tokenizer *t;

    if (rc) return rc;
    t = calloc(1, sizeof *t);
    if (!t) return pr_fail(err, PR_ERESOURCE, "vocabulary: out of memory");
    t->ignore_merges = rule->ignore_merges;
    v->add_bos = rule->add_bos;
    rc = compile_patterns(t, rule, err);
    if (rc) pre_tokenizer_free(t);
    else *out = t;
    return rc;
}

void pre_tokenizer_free(pre_tokenizer *t)
{
    if (!t) return;
    for (size_t i = 0; i < t->n_patterns; i++) pcre2_code_free(t->pattern[i]);
    pcre2_match_context_free(t->limits);
    free(t);
}

bool pre_tokenizer_ignores_merges(const pre_tokenizer *t)
{
    return t->ignore_merges;
}

/* --- UTF-8 ------------------------------------------------------------------------------------- */

size_t utf8_put(char *out, uint32_t c)
{
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    if (c < 0x800) {
        out[0] = (char)(0xc0 | c >> 6);
        out[1] = (char)(0x80 | (c & 0x3f));
        return 2;
    }
    if (c < 0x10000) {
        out[0] = (char)(0xe0 | c >> 12);
        out[1] = (char)(0x80 | (c >> 6 & 0x3f));
        out[2] = (char)(0x80 | (c & 0x3f));
        return 3;
    }
    out[0] = (char)(0xf0 | c >> 18);
    out[1] = (char)(0x80 | (c >> 12 & 0x3f));
    out[2] = (char)(0x80 | (c >> 6 & 0x3f));
    out[3] = (char)(0x80 | (c & 0x3f));
    return 4;
}

size_t utf8_get(const unsigned char *p, size_t n, uint32_t *c)
{
    size_t len = utf8_len(p[0]);

    if (p[0] < 0x80) {
        *c = p[0];
        return 1;
    }
    if (len == 1 || p[0] >= 0xf8 || len > n) return 0;
    *c = p[0] & (0x7fu >> len);
    for (size_t i = 1; i < len; i++) {
        if ((p[i] & 0xc0) != 0x80) return 0;
        *c = *c << 6 | (p[i] & 0x3f);
    }
    return len;
}

static bool is_unicode(uint32_t c)
{
    return c < 0x110000 && (c & ~0x7ffu) != 0xd800;
}

bool utf8_is_valid(const char *text, size_t n)
{
    for (size_t i = 0; i < n;) {
        uint32_t c;
        char again[4];
        size_t len = utf8_get((const unsigned char *)text + i, n - i, &c);

        if (!len || !is_unicode(c) || utf8_put(again, c) != len) return false;
        i += len;
    }
    return true;
}

char *utf8_repair(const char *text, size_t n, size_t *n_out)
{
    char *out = malloc(3 * n + 1);
    size_t at = 0;

    for (size_t i = 0; out && i < n;) {
        uint32_t c;
        size_t len = utf8_get((const unsigned char *)text + i, n - i, &c);
        at += utf8_put(out + at, len && is_unicode(c) ? c : 0xfffd);
        i += len ? len : 1;
    }
    *n_out = at;
    return out;
}

/* --- cutting ----------------------------------------------------------------------------------- */

static void cut_push(cut_list *l, size_t end)
{
    if (l->n == l->cap) {
        size_t cap = l->cap ? 2 * l->cap : 256;
        uint32_t *e = realloc(l->end, cap * sizeof *e);
        if (!e) {
            l->failed = true;
            return;
        }
        l->end = e;
        l->cap = cap;
    }
    l->end[l->n++] = (uint32_t)end;
}

/* Cut text[start, end), seen alone, into matches and what lies between them. */
static int cut_piece(const pre_tokenizer *t, const pcre2_code *pattern, const char *text, size_t start,
                     size_t end, pcre2_match_data *md, cut_list *out, pr_err *err)
{
    for (size_t at = start; at < end;) {
        int rc = pcre2_match(pattern, (PCRE2_SPTR)text + start, end - start, at - start,
                             PCRE2_NO_UTF_CHECK | PCRE2_NOTEMPTY, md, t->limits);
        const PCRE2_SIZE *m = pcre2_get_ovector_pointer(md);

        if (rc == PCRE2_ERROR_NOMATCH) {
            cut_push(out, end);
            break;
        }
        if (rc < 0) {
            PCRE2_UCHAR why[120];
            pcre2_get_error_message(rc, why, sizeof why);
            return pr_fail(err, PR_EINTERNAL, "pre-tokenizer: PCRE2 at byte %zu of %zu: %s", at - start,
                           end - start, (char *)why);
        }
        if (start + m[0] > at) cut_push(out, start + m[0]);
        cut_push(out, start + m[1]);
        at = start + m[1];
    }
    return PR_OK;
}

int pre_tokenizer_cut(const pre_tokenizer *t, const char *text, size_t n, cut_list *cuts, pr_err *err)
{
    pcre2_match_data *md = pcre2_match_data_create(1, NULL);
    cut_list next = {0};
    int rc = PR_OK;

    cut_push(cuts, n);
    for (size_t i = 0; md && i < t->n_patterns && !rc; i++) {
        cut_list old = *cuts;

        next.n = 0;
        for (size_t k = 0; k < old.n && !rc; k++)
            rc = cut_piece(t, t->pattern[i], text, k ? old.end[k - 1] : 0, old.end[k], md, &next, err);
        *cuts = next;
        next = old;
    }
    if (!rc && (!md || cuts->failed || next.failed))
        rc = pr_fail(err, PR_ERESOURCE, "pre-tokenizer: out of memory for a text of %zu bytes", n);
    pcre2_match_data_free(md);
    free(next.end);
    return rc;
}
