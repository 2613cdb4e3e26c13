/* Hand-built vocabularies: what reading refuses, special ids, the order in which special tokens are cut out,
 * white space that goes with them, SPM and BPE rules that real vocabularies rarely show. What is expected was
 * worked out by hand. */
#include "src/model/vocab.h"
#include "tests/common/data.h"
#include "tests/common/gguf_build.h"
#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct {
    gguf *g;
    vocab *v;
    pr_err err;
} reading;

/* Writes, opens and reads; r.v is NULL when reading failed, with the reason in r.err. */
static reading read_built(gguf_build *b)
{
    char path[] = "/tmp/prima-test-vocab-XXXXXX";
    reading r = {0};

    close(mkstemp(path));
    gb_write(b, path);
    gb_free(b);
    cr_assert_eq(gguf_open(&r.g, path, &r.err), PR_OK, "%s", r.err.msg);
    unlink(path);
    vocab_read(&r.v, r.g, &r.err);
    return r;
}

static void done(reading r)
{
    vocab_free(r.v);
    gguf_close(r.g);
}

static void types(gguf_build *b, const int32_t *t, size_t n)
{
    gb_array(b, "tokenizer.ggml.token_type", GB_I32, t, n * sizeof *t, n);
}

static void scores(gguf_build *b, const float *s, size_t n)
{
    gb_array(b, "tokenizer.ggml.scores", GB_F32, s, n * sizeof *s, n);
}

/* The ids as text: "1 5 6". */
static const char *encoded(const vocab *v, const char *text, bool add_special, bool parse_special)
{
    static char out[4][512];
    static int next;
    char *s = out[next++ % 4];
    token_list l = {0};
    pr_err err = {0};
    size_t at = 0;

    cr_assert_eq(vocab_encode(v, text, strlen(text), add_special, parse_special, &l, &err), PR_OK, "%s",
                 err.msg);
    s[0] = '\0';
    for (size_t i = 0; i < l.n; i++)
        at += (size_t)snprintf(s + at, sizeof out[0] - at, i ? " %d" : "%d", l.id[i]);
    free(l.id);
    return s;
}

/* --- a small SPM vocabulary -------------------------------------------------------------------- */

enum { UNK, BOS, EOS, MARK, A, B, AB, BA, MARK_A, X, Y, XY, XYX, USER, SPM_TOKENS };
static const char *const spm_text[SPM_TOKENS] = {
    "<unk>", "<s>",     "</s>", "\u2581", "a",      "b",      "ab",
    "ba",    "\u2581a", "<x>",  "<y>",    "<x><y>", "<y><x>", "[u]",
};
static const int32_t spm_type[SPM_TOKENS] = {
    TOKEN_UNKNOWN, TOKEN_CONTROL, TOKEN_CONTROL, 1,          1, 1, 1, 1, 1, TOKEN_CONTROL,
    TOKEN_CONTROL, TOKEN_CONTROL, TOKEN_CONTROL, TOKEN_USER,
};
static const float spm_score[SPM_TOKENS] = {
    [MARK] = -1, [A] = -2, [B] = -3, [AB] = -4, [BA] = -4, [MARK_A] = -5};

static gguf_build *spm(void)
{
    gguf_build *b = gb_new(3);

    gb_str(b, "general.architecture", "llama");
    gb_str(b, "tokenizer.ggml.model", "llama");
    gb_strings(b, "tokenizer.ggml.tokens", spm_text, SPM_TOKENS);
    types(b, spm_type, SPM_TOKENS);
    scores(b, spm_score, SPM_TOKENS);
    return b;
}

static reading spm_read(gguf_build *b)
{
    reading r = read_built(b);
    cr_assert_not_null(r.v, "%s", r.err.msg);
    return r;
}

Test(spm, joins_the_best_score_then_the_leftmost)
{
    reading r = spm_read(spm());

    cr_expect_str_eq(encoded(r.v, "a", false, false), "8");       /* _a */
    cr_expect_str_eq(encoded(r.v, "ab", false, false), "3 6");    /* ab (-4) goes before _a (-5) */
    cr_expect_str_eq(encoded(r.v, "bab", false, false), "3 7 5"); /* ba and ab have one score: the left one */
    cr_expect_str_eq(encoded(r.v, "aab", false, false), "8 6");
    cr_expect_str_eq(encoded(r.v, "a a", false, false), "8 8");
    cr_expect_str_eq(encoded(r.v, "", true, true), "1");
    cr_expect_str_eq(encoded(r.v, "", false, true), "");
    cr_expect_str_eq(encoded(r.v, "a\u4e2d\u4e2db", false, false),
                     "8 0 0 5"); /* no byte tokens: unknown, one a character */
    cr_expect_str_eq(vocab_describe(r.v), "spm");
    done(r);
}

Test(spm, bytes_when_there_are_byte_tokens)
{
    static const char *const text[] = {"<unk>", "<s>", "</s>", "\u2581", "<0xC3>", "<0xA9>", "<0x0A>", "x"};
    static const int32_t type[] = {2, 3, 3, 1, 6, 6, 6, 1};
    gguf_build *b = gb_new(3);
    reading r;
    char out[4] = "";

    gb_str(b, "general.architecture", "llama");
    gb_str(b, "tokenizer.ggml.model", "llama");
    gb_strings(b, "tokenizer.ggml.tokens", text, 8);
    types(b, type, 8);
    r = spm_read(b);
    cr_expect_str_eq(encoded(r.v, "x\u00e9\n", false, false), "3 7 4 5 6");
    cr_expect_str_eq(encoded(r.v, "\u00e8", false, false), "3 0", "one of the two bytes is no token");
    cr_expect_eq(vocab_piece(r.v, 6, false, out, 4), 1);
    cr_expect_eq(out[0], '\n');
    cr_expect_eq(vocab_piece(r.v, 3, false, out, 4), 1);
    cr_expect_eq(out[0], ' ');
    done(r);
}

Test(spm, blank_in_front_only_at_the_start_and_behind_special_tokens)
{
    gguf_build *b = spm();
    reading r = spm_read(b);

    cr_expect_str_eq(encoded(r.v, "<x>a<x> a", true, true), "1 9 8 9 3 8");
    cr_expect_str_eq(encoded(r.v, "a[u]a", false, false), "8 13 8");
    done(r);
    b = spm();
    gb_bool(b, "tokenizer.ggml.add_space_prefix", 0);
    r = spm_read(b);
    cr_expect_str_eq(encoded(r.v, "a<x>a a", true, true), "1 4 9 4 8");
    done(r);
}

/* --- special tokens ---------------------------------------------------------------------------- */

Test(special, longest_first_then_left_to_right)
{
    reading r = spm_read(spm());

    cr_expect_str_eq(encoded(r.v, "<x>", false, true), "9");
    cr_expect_str_eq(encoded(r.v, "<x><y>", false, true), "11");
    /* <x><y> (the smaller id of equal length) is cut out everywhere before <y><x> is looked for. */
    cr_expect_str_eq(encoded(r.v, "<y><x><y>", false, true), "10 11");
    cr_expect_str_eq(encoded(r.v, "<y><x>", false, true), "12");
    cr_expect_str_eq(encoded(r.v, "<x><y><x><y><x>", false, true), "11 11 9");
    cr_expect_str_eq(encoded(r.v, "<unk></s>", false, true), "0 2");
    done(r);
}

Test(special, control_only_when_asked_for_user_always)
{
    reading r = spm_read(spm());

    cr_expect_str_eq(encoded(r.v, "[u][u]", false, false), "13 13");
    cr_expect_str_eq(encoded(r.v, "[u]a", false, true), "13 8");
    cr_expect_str_eq(encoded(r.v, "<x>", false, false), "3 0 0 0", "no token for any of these characters");
    cr_expect_str_eq(encoded(r.v, "[u", false, false), "3 0 0");
    done(r);
}

Test(special, phi_3_takes_the_white_space_behind)
{
    gguf_build *b = spm();
    reading r;

    gb_str(b, "general.name", "My PHI-3 mini");
    r = spm_read(b);
    cr_expect_str_eq(encoded(r.v, "<x> \n\t a", false, true), "9 8");
    cr_expect_str_eq(encoded(r.v, "[u] a", false, false), "13 8");
    cr_expect_str_eq(encoded(r.v, "<x>  ", false, true), "9", "nothing is left");
    cr_expect_str_eq(encoded(r.v, "a <x>", false, true), "8 3 9", "not in front");
    cr_expect_str_eq(encoded(r.v, "</s> a", false, true), "2 8");
    cr_expect_str_eq(encoded(r.v, "<s> a", false, true), "1 3 8", "<s> and <unk> are excepted");
    cr_expect_str_eq(encoded(r.v, "<unk> a", false, true), "0 3 8");
    done(r);
}

/* --- a small BPE vocabulary -------------------------------------------------------------------- */

static const char *const bpe_text[] = {"a",   "b",      "c",       "ab",   "bc",     "abc",
                                       "<e>", "\u0120", "\u0120a", "aaaa", "\u00e9", "cc"};
static const int32_t bpe_type[] = {1, 1, 1, 1, 1, 1, 3, 1, 1, 1, 1, 1};
enum { BPE_TOKENS = sizeof bpe_text / sizeof *bpe_text };

static gguf_build *bpe_of(const char *pre, const char *const *merges, size_t n)
{
    gguf_build *b = gb_new(3);

    gb_str(b, "general.architecture", "llama");
    gb_str(b, "tokenizer.ggml.model", "gpt2");
    if (pre) gb_str(b, "tokenizer.ggml.pre", pre);
    gb_u32(b, "tokenizer.ggml.bos_token_id", 6);
    gb_u32(b, "tokenizer.ggml.eos_token_id", 6);
    gb_strings(b, "tokenizer.ggml.tokens", bpe_text, BPE_TOKENS);
    types(b, bpe_type, BPE_TOKENS);
    gb_strings(b, "tokenizer.ggml.merges", merges, n);
    return b;
}

/* "a a" makes aa, which is no token but is needed for aaaa; "b c" is listed twice and the first counts. */
static const char *const bpe_merges[] = {"b c", "a b", "a a", "aa aa", "a bc", "b c", "\u0120 a"};
enum { BPE_MERGES = sizeof bpe_merges / sizeof *bpe_merges };

Test(bpe, joins_in_the_order_of_the_merges)
{
    reading r = read_built(bpe_of("qwen2", bpe_merges, BPE_MERGES));

    cr_assert_not_null(r.v, "%s", r.err.msg);
    cr_expect_str_eq(encoded(r.v, "ab", false, false), "3");
    cr_expect_str_eq(encoded(r.v, "abc", false, false), "5", "bc goes before ab, then a + bc");
    cr_expect_str_eq(encoded(r.v, "abb", false, false), "3 1");
    cr_expect_str_eq(encoded(r.v, "aaaa", false, false), "9");
    cr_expect_str_eq(encoded(r.v, "aaa", false, false), "0 0 0", "aa is no token: its bytes");
    cr_expect_str_eq(encoded(r.v, "cc", false, false), "2 2", "a token that no merge makes");
    cr_expect_str_eq(encoded(r.v, " a", false, false), "8");
    cr_expect_str_eq(encoded(r.v, "a\u00e9", false, false), "0",
                     "U+00C3 and U+00A9, its bytes' characters, are no tokens");
    cr_expect_str_eq(encoded(r.v, "\xe9", false, false), "", "not UTF-8: U+FFFD, whose bytes are no tokens");
    cr_expect_str_eq(encoded(r.v, "a<e>", true, true), "0 6");
    cr_expect_not(vocab_add_bos(r.v));
    cr_expect_str_eq(vocab_describe(r.v), "bpe qwen2");
    done(r);
}

Test(bpe, llama_3_takes_words_whole_and_adds_bos)
{
    reading r = read_built(bpe_of("llama-bpe", bpe_merges, BPE_MERGES));
    gguf_build *b;

    cr_assert_not_null(r.v, "%s", r.err.msg);
    cr_expect_str_eq(encoded(r.v, "cc", true, false), "6 11");
    cr_expect_str_eq(encoded(r.v, "ccc", true, false), "6 2 2 2");
    done(r);
    b = bpe_of("llama-bpe", bpe_merges, BPE_MERGES);
    gb_bool(b, "tokenizer.ggml.add_bos_token", 0);
    gb_bool(b, "tokenizer.ggml.add_eos_token", 1);
    r = read_built(b);
    cr_assert_not_null(r.v, "%s", r.err.msg);
    cr_expect_str_eq(encoded(r.v, "cc", true, false), "11 6", "the keys of the file go before the defaults");
    cr_expect_str_eq(encoded(r.v, "cc", false, false), "11");
    done(r);
}

Test(bpe, no_name_of_a_pre_tokenizer_means_default)
{
    reading r = read_built(bpe_of(NULL, bpe_merges, BPE_MERGES));

    cr_assert_not_null(r.v, "%s", r.err.msg);
    cr_expect_str_eq(vocab_describe(r.v), "bpe default");
    done(r);
}

static const char *const same_names[] = {
    "llama3",           "llama-v3",    "falcon3",    "dbrx",   "smaug-bpe",
    "deepseek-r1-qwen", "stablelm2",   "megrez",     "phi-2",  "jina-es",
    "jina-v2-code",     "roberta-bpe", "mpt",        "olmo",   "jais",
    "refact",           "smollm",      "minerva-7b", "tekken",
};

Test(bpe, other_names_are_known)
{
    for (size_t i = 0; i < sizeof same_names / sizeof *same_names; i++) {
        reading r = read_built(bpe_of(same_names[i], bpe_merges, BPE_MERGES));
        cr_expect_not_null(r.v, "%s: %s", same_names[i], r.err.msg);
        done(r);
    }
}

/* --- special ids ------------------------------------------------------------------------------- */

Test(ids, defaults_and_numbers_that_are_no_tokens)
{
    gguf_build *b = spm();
    reading r;

    gb_u32(b, "tokenizer.ggml.bos_token_id", 9999);
    gb_u32(b, "tokenizer.ggml.eos_token_id", UINT32_MAX);
    gb_u32(b, "tokenizer.ggml.eot_token_id", Y);
    gb_u32(b, "tokenizer.ggml.eom_token_id", SPM_TOKENS);
    r = spm_read(b);
    cr_expect_eq(vocab_bos(r.v), BOS, "SPM's defaults");
    cr_expect_eq(vocab_eos(r.v), EOS);
    cr_expect(vocab_add_bos(r.v));
    cr_expect(vocab_is_eog(r.v, Y));
    cr_expect_not(vocab_is_eog(r.v, X));
    done(r);
}

Test(ids, well_known_texts_become_control_tokens)
{
    static const char *const text[] = {"<unk>",          "<s>", "</s>", "<|end|>", "<|fim_pad|>",
                                       "<|fim_prefix|>", "a"};
    static const int32_t type[] = {2, 3, 3, 4, 4, 1, 1};
    gguf_build *b = gb_new(3);
    reading r;

    gb_str(b, "general.architecture", "llama");
    gb_str(b, "tokenizer.ggml.model", "llama");
    gb_strings(b, "tokenizer.ggml.tokens", text, 7);
    types(b, type, 7);
    r = spm_read(b);
    for (int id = 3; id <= 5; id++) cr_expect_eq(vocab_kind(r.v, id), TOKEN_CONTROL, "%d", id);
    cr_expect(vocab_is_eog(r.v, 2));
    cr_expect(vocab_is_eog(r.v, 3));
    cr_expect(vocab_is_eog(r.v, 4));
    cr_expect_not(vocab_is_eog(r.v, 5));
    cr_expect_eq(vocab_kind(r.v, 6), TOKEN_NORMAL);
    done(r);
}

/* --- what is refused ---------------------------------------------------------------------------- */

static void drop_tokens(gguf_build *b)
{
    gb_drop(b, "tokenizer.ggml.tokens");
}
static void no_tokens(gguf_build *b)
{
    drop_tokens(b);
    gb_strings(b, "tokenizer.ggml.tokens", NULL, 0);
}
static void integer_tokens(gguf_build *b)
{
    drop_tokens(b);
    gb_array(b, "tokenizer.ggml.tokens", GB_I32, spm_type, sizeof spm_type, SPM_TOKENS);
}
static void tokens_no_array(gguf_build *b)
{
    drop_tokens(b);
    gb_str(b, "tokenizer.ggml.tokens", "abc");
}
static void equal_tokens(gguf_build *b)
{
    static const char *const text[SPM_TOKENS] = {"u", "1", "2",   "3", "4",   "5", "6",
                                                 "7", "8", "a\n", "9", "a\n", "b", "c"};
    drop_tokens(b);
    gb_strings(b, "tokenizer.ggml.tokens", text, SPM_TOKENS);
}
static void few_scores(gguf_build *b)
{
    gb_drop(b, "tokenizer.ggml.scores");
    scores(b, spm_score, SPM_TOKENS - 1);
}
static void integer_scores(gguf_build *b)
{
    gb_drop(b, "tokenizer.ggml.scores");
    gb_array(b, "tokenizer.ggml.scores", GB_I32, spm_type, sizeof spm_type, SPM_TOKENS);
}
static void many_types(gguf_build *b)
{
    static const int32_t t[SPM_TOKENS + 1];
    gb_drop(b, "tokenizer.ggml.token_type");
    types(b, t, SPM_TOKENS + 1);
}
static void bool_types(gguf_build *b)
{
    static const uint8_t t[SPM_TOKENS];
    gb_drop(b, "tokenizer.ggml.token_type");
    gb_array(b, "tokenizer.ggml.token_type", GB_BOOL, t, sizeof t, SPM_TOKENS);
}
static void other_model(gguf_build *b)
{
    gb_drop(b, "tokenizer.ggml.model");
    gb_str(b, "tokenizer.ggml.model", "t5\n");
}
static void no_model(gguf_build *b)
{
    gb_drop(b, "tokenizer.ggml.model");
}
static void bos_text(gguf_build *b)
{
    gb_str(b, "tokenizer.ggml.bos_token_id", "1");
}
static void add_bos_number(gguf_build *b)
{
    gb_u32(b, "tokenizer.ggml.add_bos_token", 1);
}
static void space_prefix_number(gguf_build *b)
{
    gb_u32(b, "tokenizer.ggml.add_space_prefix", 1);
}
static void no_merges(gguf_build *b)
{
    gb_drop(b, "tokenizer.ggml.model");
    gb_str(b, "tokenizer.ggml.model", "gpt2");
}
static void merges_of(gguf_build *b, const char *merge)
{
    no_merges(b);
    gb_str(b, "tokenizer.ggml.pre", "gpt-2");
    gb_strings(b, "tokenizer.ggml.merges", &merge, 1);
}
static void merge_without_blank(gguf_build *b)
{
    merges_of(b, "ab");
}
static void merge_without_right(gguf_build *b)
{
    merges_of(b, "ab ");
}
static void merge_without_left(gguf_build *b)
{
    merges_of(b, " b");
}
static void merge_empty(gguf_build *b)
{
    merges_of(b, "");
}
static void merges_of_integers(gguf_build *b)
{
    no_merges(b);
    gb_array(b, "tokenizer.ggml.merges", GB_I32, spm_type, sizeof spm_type, SPM_TOKENS);
}
static void unknown_pre(gguf_build *b)
{
    no_merges(b);
    gb_str(b, "tokenizer.ggml.pre", "gpt-2 phi-2");
}
static void bos_wanted_but_none(gguf_build *b)
{
    merges_of(b, "a b");
    gb_bool(b, "tokenizer.ggml.add_bos_token", 1);
}
static void eos_wanted_but_none(gguf_build *b)
{
    merges_of(b, "a b");
    gb_bool(b, "tokenizer.ggml.add_eos_token", 1);
}

static const struct {
    void (*spoil)(gguf_build *b);
    const char *says;
} refused[] = {
    {drop_tokens, "tokenizer.ggml.tokens is missing"},
    {no_tokens, "at least one string"},
    {integer_tokens, "at least one string"},
    {tokens_no_array, "tokenizer.ggml.tokens"},
    {equal_tokens, "tokens 9 and 11 are the same, \"a\\n\""},
    {few_scores, "tokenizer.ggml.scores: 13 entries for 14 tokens"},
    {integer_scores, "tokenizer.ggml.scores: expected an array of floats"},
    {many_types, "tokenizer.ggml.token_type: 15 entries for 14 tokens"},
    {bool_types, "tokenizer.ggml.token_type: expected an array of integers"},
    {other_model, "tokenizer.ggml.model is \"t5\\n\""},
    {no_model, "tokenizer.ggml.model is \"\""},
    {bos_text, "tokenizer.ggml.bos_token_id"},
    {add_bos_number, "tokenizer.ggml.add_bos_token"},
    {space_prefix_number, "tokenizer.ggml.add_space_prefix"},
    {no_merges, "tokenizer.ggml.merges is missing"},
    {merge_without_blank, "entry 0 is \"ab\""},
    {merge_without_right, "entry 0 is \"ab \""},
    {merge_without_left, "entry 0 is \" b\""},
    {merge_empty, "entry 0 is \"\""},
    {merges_of_integers, "tokenizer.ggml.merges: expected an array of strings"},
    {unknown_pre, "\"gpt-2 phi-2\": unknown pre-tokenizer"},
    {bos_wanted_but_none, "bos_token_id names no token"},
    {eos_wanted_but_none, "eos_token_id names no token"},
};

Test(read, refuses_with_the_reason)
{
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        gguf_build *b = spm();
        reading r;

        refused[i].spoil(b);
        r = read_built(b);
        cr_expect_null(r.v, "%zu: accepted, expected \"%s\"", i, refused[i].says);
        cr_expect_eq(r.err.code, PR_EINTEGRITY, "%zu", i);
        cr_expect_not_null(strstr(r.err.msg, refused[i].says), "%zu: \"%s\" does not say \"%s\"", i,
                           r.err.msg, refused[i].says);
        done(r);
    }
}

/* broken/: as broken.json says, `says` where it must be refused by vocab_read, NULL where it may be read. */
static const struct {
    const char *file, *says;
} broken[] = {
    {"no-tokenizer-ggml-tokens", "tokens is missing"},
    {"tokens-ints", "at least one string"},
    {"scores-short", "tokenizer.ggml.scores"},
    {"bpe-no-merges", "merges is missing"},
    {"bpe-unknown-pre", "no-such-pre"},
    {"tokens-duplicate", "are the same"},
    {"bos-out-of-range", NULL},
    {"ok-pad-id-minus1", NULL},
    {"ok-base", NULL},
    {"ok-extra-keys", NULL},
};

Test(read, broken_files)
{
    for (size_t i = 0; i < sizeof broken / sizeof *broken; i++) {
        char rel[64];
        gguf *g;
        vocab *v = NULL;
        pr_err err = {0};

        snprintf(rel, sizeof rel, "broken/%s.gguf", broken[i].file);
        cr_assert_eq(gguf_open(&g, test_data(rel), &err), PR_OK, "%s: %s", rel, err.msg);
        if (broken[i].says) {
            cr_expect_eq(vocab_read(&v, g, &err), PR_EINTEGRITY, "%s", rel);
            cr_expect_not_null(strstr(err.msg, broken[i].says), "%s: %s", rel, err.msg);
        } else {
            cr_expect_eq(vocab_read(&v, g, &err), PR_OK, "%s: %s", rel, err.msg);
        }
        vocab_free(v);
        gguf_close(g);
    }
}

/* A token type outside the known ones, NaN scores, empty tokens: odd, but no reason to refuse. */
Test(read, odd_but_harmless)
{
    static const char *const text[] = {"<unk>", "<s>", "</s>", "", "", "\u2581", "a", "\u2581a"};
    static const int32_t type[] = {2, 3, 3, 3, 0, 1, -7, 1000};
    float score[] = {0, 0, 0, 0, 0, 0, 0, __builtin_nanf("")};
    gguf_build *b = gb_new(3);
    reading r;

    gb_str(b, "general.architecture", "llama");
    gb_str(b, "tokenizer.ggml.model", "llama");
    gb_strings(b, "tokenizer.ggml.tokens", text, 8);
    types(b, type, 8);
    scores(b, score, 8);
    r = spm_read(b);
    cr_expect_eq(vocab_kind(r.v, 6), TOKEN_UNUSED);
    cr_expect_eq(vocab_find(r.v, "", 0), -1);
    cr_expect_str_eq(encoded(r.v, "a<s>", false, true), "7 1");
    cr_expect_eq(vocab_piece(r.v, 7, true, NULL, 0), 0, "a type that nobody knows is not written");
    done(r);
}

Test(encode, refuses_what_is_too_long)
{
    reading r = spm_read(spm());
    token_list l = {0};
    pr_err err = {0};

    cr_expect_eq(vocab_encode(r.v, "a", ((size_t)256 << 20) + 1, false, false, &l, &err), PR_EUSAGE);
    cr_expect_not_null(strstr(err.msg, "268435457"), "%s", err.msg);
    cr_expect_eq(l.n, 0);
    done(r);
}
