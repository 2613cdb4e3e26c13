/* Tokens of real vocabularies against the shared data (llama.cpp c392e50), pre-tokenizers against
 * tests/golden/pretok.jsonl (the same oracle), texts that come back as they were, and texts made to be slow.
 * Hand-built vocabularies, right and wrong, are in test_vocab_read.c. */
#include "src/model/vocab.h"
#include "tests/common/data.h"
#include "tests/common/gguf_build.h"
#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* --- vocabularies ------------------------------------------------------------------------------ */

typedef struct {
    gguf *g;
    vocab *v;
} loaded;

static loaded load(const char *path)
{
    loaded l;
    pr_err err = {0};

    cr_assert_eq(gguf_open(&l.g, path, &err), PR_OK, "%s", err.msg);
    cr_assert_eq(vocab_read(&l.v, l.g, &err), PR_OK, "%s: %s", path, err.msg);
    return l;
}

static void unload(loaded l)
{
    vocab_free(l.v);
    gguf_close(l.g);
}

/* path.gz unpacked to build/testdata/NAME (once: kept as long as it is not older). Other processes may do the
 * same. */
static const char *unpacked(const char *gz, const char *name)
{
    static char path[256];
    char command[8192], temporary[300];
    struct stat from, to;

    snprintf(path, sizeof path, "build/testdata/%s", name);
    cr_assert_eq(stat(gz, &from), 0);
    if (stat(path, &to) == 0 && to.st_mtime >= from.st_mtime) return path;
    snprintf(temporary, sizeof temporary, "%s.%ld", path, (long)getpid());
    snprintf(command, sizeof command, "mkdir -p build/testdata && gzip -dc '%s' > %s", gz, temporary);
    cr_assert_eq(system(command), 0, "%s", command);
    cr_assert_eq(rename(temporary, path), 0);
    return path;
}

/* "models/..." as it stands; else tokenizer/NAME.gguf or tokenizer/NAME.gguf.gz; skips the test when neither
 * is there. */
static loaded load_named(const char *name)
{
    char base[64], rel[80], gz[90];
    const char *path;

    if (strncmp(name, "models/", 7) == 0) return load(test_data(name));
    snprintf(base, sizeof base, "%s.gguf", name);
    snprintf(rel, sizeof rel, "tokenizer/%s", base);
    snprintf(gz, sizeof gz, "%s.gz", rel);
    if ((path = test_data_or_null(rel))) return load(path);
    if ((path = test_data_or_null(gz))) return load(unpacked(path, base));
    cr_skip_test("neither %s nor %s is here: its lines cannot be checked", rel, gz);
}

/* --- lines ------------------------------------------------------------------------------------- */

typedef struct {
    const vocab *v;
    size_t lines, equal, unknown; /* unknown: the oracle has no answer */
} tally;

static size_t ids_of(const json_t *line, int32_t **id)
{
    const json_t *ids = json_object_get(line, "ids");
    size_t n = json_array_size(ids);

    *id = malloc((n + 1) * sizeof **id);
    cr_assert_not_null(*id);
    for (size_t i = 0; i < n; i++) (*id)[i] = (int32_t)json_integer_value(json_array_get(ids, i));
    return n;
}

static bool encodes_to(const vocab *v, const char *text, size_t n, const json_t *line)
{
    token_list got = {0};
    pr_err err = {0};
    int32_t *id;
    size_t n_ids = ids_of(line, &id);
    bool same;

    cr_assert_eq(vocab_encode(v, text, n, json_is_true(json_object_get(line, "add_special")),
                              json_is_true(json_object_get(line, "parse_special")), &got, &err),
                 PR_OK, "%s", err.msg);
    same = got.n == n_ids && (!n_ids || memcmp(got.id, id, n_ids * sizeof *id) == 0);
    free(got.id);
    free(id);
    return same;
}

static void check_text(tally *t, const json_t *line)
{
    const json_t *text = json_object_get(line, "text");
    t->equal += encodes_to(t->v, json_string_value(text), json_string_length(text), line);
}

static void check_bytes(tally *t, const json_t *line)
{
    size_t n;
    unsigned char *text = test_unhex(json_string_value(json_object_get(line, "text_hex")), &n);
    bool same = encodes_to(t->v, (const char *)text, n, line);

    if (json_is_null(json_object_get(line, "ids"))) t->unknown++;
    else t->equal += same;
    free(text);
}

static char *join(const vocab *v, const int32_t *id, size_t n, bool special, size_t *n_out)
{
    size_t len = 0, cap = 1;
    char *out;

    for (size_t i = 0; i < n; i++) cap += vocab_piece(v, id[i], special, NULL, 0);
    out = malloc(cap);
    cr_assert_not_null(out);
    for (size_t i = 0; i < n; i++) len += vocab_piece(v, id[i], special, out + len, cap - len);
    *n_out = len;
    return out;
}

static void check_pieces(tally *t, const json_t *line)
{
    int32_t *id;
    size_t n_ids = ids_of(line, &id), n, n_expected;
    char *got = join(t->v, id, n_ids, json_is_true(json_object_get(line, "special")), &n);
    unsigned char *expected = test_unhex(json_string_value(json_object_get(line, "bytes_hex")), &n_expected);

    t->equal += n == n_expected && memcmp(got, expected, n) == 0;
    free(expected);
    free(got);
    free(id);
}

static tally check_lines(const vocab *v, const char *path, void (*check)(tally *, const json_t *))
{
    FILE *f = fopen(path, "r");
    tally t = {.v = v};
    char *line = NULL;
    size_t cap = 0;

    cr_assert_not_null(f, "%s", path);
    while (getline(&line, &cap, f) > 0) {
        json_t *j = json_loads(line, JSON_ALLOW_NUL, NULL);
        size_t before = t.equal + t.unknown;

        cr_assert_not_null(j, "%s: line %zu", path, t.lines + 1);
        check(&t, j);
        t.lines++;
        cr_expect_eq(t.equal + t.unknown, before + 1, "%s: line %zu differs: %.200s", path, t.lines, line);
        json_decref(j);
    }
    free(line);
    fclose(f);
    return t;
}

/* --- the shared data --------------------------------------------------------------------------- */

static const struct {
    const char *vocab, *lines, *kind; /* kind: as vocab_describe says */
} data[] = {
    {"llama-spm", "tokenizer/llama-spm", "spm"},
    {"phi-3", "tokenizer/phi-3", "spm"},
    {"models/stories260K.gguf", "tokenizer/stories260K", "spm"},
    {"llama-bpe", "tokenizer/llama-bpe", "bpe llama-bpe"},
    {"qwen2", "tokenizer/qwen2", "bpe qwen2"},
    {"deepseek-r1-qwen", "tokenizer/deepseek-r1-qwen", "bpe deepseek-r1-qwen"},
    {"deepseek-coder", "tokenizer/deepseek-coder", "bpe deepseek-coder"},
    {"models/llama-tied.gguf", "models/tokens-llama-tied", "bpe llama-bpe"},
    {"models/qwen2-bias.gguf", "models/tokens-qwen2-bias", "bpe qwen2"},
};
enum { N_DATA = sizeof data / sizeof *data };
static int data_index[N_DATA] = {0, 1, 2, 3, 4, 5, 6, 7, 8};
_Static_assert(N_DATA == 9, "data_index lists them all");

/* The lines of one file, or none when this vocabulary has no such file. */
static tally lines_of(const vocab *v, int i, const char *ending, void (*check)(tally *, const json_t *))
{
    char rel[128];
    const char *path;

    snprintf(rel, sizeof rel, "%s%s", data[i].lines, ending);
    path = test_data_or_null(rel);
    return path ? check_lines(v, path, check) : (tally){0};
}

ParameterizedTestParameters(vocab, equals_llama_cpp)
{
    return cr_make_param_array(int, data_index, N_DATA);
}

ParameterizedTest(int *i, vocab, equals_llama_cpp, .timeout = 120)
{
    loaded l = load_named(data[*i].vocab);
    tally own = lines_of(l.v, *i, ".jsonl", check_text),
          theirs = lines_of(l.v, *i, ".llama-cpp.jsonl", check_text);
    tally bytes = lines_of(l.v, *i, ".invalid-utf8.jsonl", check_bytes);
    tally pieces = lines_of(l.v, *i, ".pieces.jsonl", check_pieces);

    cr_log_info("%s: texts %zu/%zu and %zu/%zu, not UTF-8 %zu/%zu (%zu crash llama.cpp), pieces %zu/%zu",
                data[*i].vocab, own.equal, own.lines, theirs.equal, theirs.lines, bytes.equal, bytes.lines,
                bytes.unknown, pieces.equal, pieces.lines);
    cr_expect_geq(own.lines, 100, "%s.jsonl has %zu lines", data[*i].lines, own.lines);
    cr_expect_str_eq(vocab_describe(l.v), data[*i].kind);
    unload(l);
}

/* What the model cards say: the first text is EOS, all of them end the generation, the last does not. */
static const struct {
    const char *vocab, *bos, *ends[4], *not_end;
    bool add_bos;
} ends[] = {
    {"llama-spm", "<s>", {"</s>"}, "<s>", true},
    {"phi-3", "<s>", {"<|endoftext|>", "<|end|>"}, "<|user|>", true},
    {"models/stories260K.gguf", "<s>", {"</s>"}, "<s>", true},
    {"llama-bpe",
     "<|begin_of_text|>",
     {"<|eot_id|>", "<|eom_id|>", "<|end_of_text|>"},
     "<|start_header_id|>",
     true},
    {"qwen2", "<|endoftext|>", {"<|im_end|>", "<|endoftext|>"}, "<|im_start|>", false},
    {"deepseek-r1-qwen",
     "<\uff5cbegin\u2581of\u2581sentence\uff5c>",
     {"<\uff5cend\u2581of\u2581sentence\uff5c>"},
     "<\uff5cUser\uff5c>",
     true},
    {"deepseek-coder",
     "<\uff5cbegin\u2581of\u2581sentence\uff5c>",
     {"<\uff5cend\u2581of\u2581sentence\uff5c>"},
     "<|User|>",
     true},
};
static int ends_index[] = {0, 1, 2, 3, 4, 5, 6};

ParameterizedTestParameters(vocab, special_ids)
{
    return cr_make_param_array(int, ends_index, sizeof ends_index / sizeof *ends_index);
}

static int32_t find(const vocab *v, const char *text)
{
    return vocab_find(v, text, strlen(text));
}

ParameterizedTest(int *i, vocab, special_ids)
{
    loaded l = load_named(ends[*i].vocab);

    cr_expect_eq(vocab_bos(l.v), find(l.v, ends[*i].bos), "bos is %d", vocab_bos(l.v));
    cr_expect_eq(vocab_add_bos(l.v), ends[*i].add_bos);
    cr_expect_eq(vocab_add_eos(l.v), false);
    cr_expect_eq(vocab_eos(l.v), find(l.v, ends[*i].ends[0]), "eos is %d", vocab_eos(l.v));
    for (int k = 0; k < 4 && ends[*i].ends[k]; k++) {
        int32_t id = find(l.v, ends[*i].ends[k]);
        cr_expect(vocab_is_eog(l.v, id), "%s (%d) ends the generation", ends[*i].ends[k], id);
        cr_expect_eq(vocab_kind(l.v, id), TOKEN_CONTROL, "%s (%d)", ends[*i].ends[k], id);
    }
    cr_expect_not(vocab_is_eog(l.v, find(l.v, ends[*i].not_end)));
    cr_expect_not(vocab_is_eog(l.v, -1));
    cr_expect_not(vocab_is_eog(l.v, (int32_t)vocab_size(l.v)));
    unload(l);
}

/* --- pre-tokenizers ---------------------------------------------------------------------------- */

static size_t put_character(char *out, unsigned c)
{
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    out[0] = (char)(0xc0 | c >> 6);
    out[1] = (char)(0x80 | (c & 0x3f));
    return 2;
}

/* The vocabulary of tests/golden/pretok.py: 256 bytes and all their pairs. */
static void pairs_vocab(const char *path, const char *pre)
{
    enum { N = 256 + 65536 };
    static char token[N][8], merge[65536][8];
    static const char *tokens[N], *merges[65536];
    unsigned character[256], next = 256;
    gguf_build *b = gb_new(3);

    for (unsigned i = 0; i < 256; i++) {
        character[i] = (i >= 0x21 && i <= 0x7e) || (i >= 0xa1 && i != 0xad) ? i : next++;
        put_character(token[i], character[i]);
        tokens[i] = token[i];
    }
    for (unsigned k = 0; k < 65536; k++) {
        unsigned pair = k * 40503u % 65536u;
        size_t n = put_character(token[256 + k], character[pair / 256]);

        put_character(token[256 + k] + n, character[pair % 256]);
        put_character(merge[k], character[pair / 256]);
        merge[k][n] = ' ';
        put_character(merge[k] + n + 1, character[pair % 256]);
        tokens[256 + k] = token[256 + k];
        merges[k] = merge[k];
    }
    gb_str(b, "general.architecture", "llama");
    gb_str(b, "tokenizer.ggml.model", "gpt2");
    gb_str(b, "tokenizer.ggml.pre", pre);
    gb_u32(b, "tokenizer.ggml.bos_token_id", 0);
    gb_u32(b, "tokenizer.ggml.eos_token_id", 0);
    gb_strings(b, "tokenizer.ggml.tokens", tokens, N);
    gb_strings(b, "tokenizer.ggml.merges", merges, 65536);
    gb_write(b, path);
    gb_free(b);
}

Test(vocab, pre_tokenizers_cut_as_llama_cpp, .timeout = 120)
{
    FILE *f = fopen("tests/golden/pretok.jsonl", "r");
    char *line = NULL, current[32] = "", path[] = "/tmp/prima-test-vocab-XXXXXX";
    size_t cap = 0, n_lines = 0, n_pres = 0;
    loaded l = {0};

    cr_assert_not_null(f);
    close(mkstemp(path));
    for (; getline(&line, &cap, f) > 0; n_lines++) {
        json_t *j = json_loads(line, JSON_ALLOW_NUL, NULL);
        const char *pre = json_string_value(json_object_get(j, "pre"));
        const json_t *text = json_object_get(j, "text");

        if (strcmp(pre, current) != 0) {
            unload(l);
            snprintf(current, sizeof current, "%s", pre);
            pairs_vocab(path, pre);
            l = load(path);
            n_pres++;
        }
        cr_expect(encodes_to(l.v, json_string_value(text), json_string_length(text), j), "line %zu: %.120s",
                  n_lines + 1, line);
        json_decref(j);
    }
    cr_expect_eq(n_pres, 10);
    cr_expect_eq(n_lines, 119, "%zu lines", n_lines);
    unload(l);
    unlink(path);
    free(line);
    fclose(f);
}

/* What is no character is U+FFFD to BPE; llama.cpp ends the process for numbers past U+10FFFF. */
static const struct {
    const char *text, *means;
} not_utf8[] = {
    {"a\xed\xa0\x80z", "a\ufffdz"}, /* half a surrogate pair */
    {"\xf4\x90\x80\x80", "\ufffd"}, /* U+110000 */
    {"\xf8\x88\x80\x80\x80",
     "\ufffd\ufffd\ufffd\ufffd\ufffd"}, /* five bytes: none of them begins a character */
    {"\xe2\x82", "\ufffd\ufffd"},       /* cut off */
    {"\xc1\xa1\xe0\x81\xa2", "ab"},     /* overlong forms */
};

Test(vocab, text_that_is_not_utf8)
{
    loaded l = load_named("models/qwen2-bias.gguf");

    for (size_t i = 0; i < sizeof not_utf8 / sizeof *not_utf8; i++) {
        token_list a = {0}, b = {0};

        cr_assert_eq(vocab_encode(l.v, not_utf8[i].text, strlen(not_utf8[i].text), false, false, &a, NULL),
                     PR_OK);
        cr_assert_eq(vocab_encode(l.v, not_utf8[i].means, strlen(not_utf8[i].means), false, false, &b, NULL),
                     PR_OK);
        cr_expect(a.n == b.n && memcmp(a.id, b.id, a.n * sizeof *a.id) == 0, "text %zu", i);
        free(a.id);
        free(b.id);
    }
    unload(l);
}

/* --- a text comes back as it was ---------------------------------------------------------------- */

static uint64_t next_random(uint64_t *s)
{
    *s ^= *s << 13;
    *s ^= *s >> 7;
    *s ^= *s << 17;
    return *s;
}

/* Up to 60 characters of UTF-8, from all planes; no U+2581, which SPM takes for a blank. */
static size_t random_text(uint64_t *s, char *out)
{
    static const unsigned limit[] = {0x80, 0x80, 0x250, 0x3000, 0xd800, 0x110000};
    size_t n = 0, count = next_random(s) % 60;

    for (size_t i = 0; i < count; i++) {
        unsigned c = (unsigned)(next_random(s) % limit[next_random(s) % 6]);
        if (next_random(s) % 4 == 0) c = " \n\t'"[next_random(s) % 4];
        if (c == 0x2581 || (c >= 0xd800 && c < 0xe000)) c = 'x';
        if (c < 0x800) {
            n += put_character(out + n, c);
        } else if (c < 0x10000) {
            out[n++] = (char)(0xe0 | c >> 12);
            out[n++] = (char)(0x80 | (c >> 6 & 0x3f));
            out[n++] = (char)(0x80 | (c & 0x3f));
        } else {
            out[n++] = (char)(0xf0 | c >> 18);
            out[n++] = (char)(0x80 | (c >> 12 & 0x3f));
            out[n++] = (char)(0x80 | (c >> 6 & 0x3f));
            out[n++] = (char)(0x80 | (c & 0x3f));
        }
    }
    return n;
}

ParameterizedTestParameters(vocab, texts_come_back)
{
    return cr_make_param_array(int, data_index, N_DATA);
}

ParameterizedTest(int *i, vocab, texts_come_back, .timeout = 120)
{
    loaded l = load_named(data[*i].vocab);
    bool is_spm = strcmp(data[*i].kind, "spm") == 0;
    uint64_t seed = 20250220;

    for (int round = 0; round < 2000; round++) {
        char text[300] = " ", *back;
        size_t n = random_text(&seed, text + 1), n_back;
        token_list got = {0};

        cr_assert_eq(vocab_encode(l.v, text + 1, n, false, false, &got, NULL), PR_OK);
        back = join(l.v, got.id, got.n, true, &n_back);
        if (is_spm && n) { /* SPM puts a blank in front */
            cr_expect_eq(n_back, n + 1, "round %d", round);
            cr_expect(n_back == n + 1 && memcmp(back, text, n + 1) == 0, "round %d", round);
        } else {
            cr_expect(n_back == n && memcmp(back, text + 1, n) == 0, "round %d", round);
        }
        free(back);
        free(got.id);
    }
    unload(l);
}

Test(vocab, pieces_of_any_number_and_any_room)
{
    loaded l = load_named("models/qwen2-bias.gguf");
    int32_t end = find(l.v, "<|im_end|>");
    char out[16] = "................";

    cr_expect_eq(vocab_piece(l.v, -1, true, out, 16), 0);
    cr_expect_eq(vocab_piece(l.v, (int32_t)vocab_size(l.v), true, out, 16), 0);
    cr_expect_eq(vocab_piece(l.v, INT32_MIN, true, out, 16), 0);
    cr_expect_eq(vocab_piece(l.v, end, false, out, 16), 0);
    cr_expect_eq(vocab_piece(l.v, end, true, out, 4), 10, "the full length is returned");
    cr_expect_arr_eq(out, "<|im............", 16);
    cr_expect_eq(vocab_piece(l.v, end, true, NULL, 0), 10);
    cr_expect_eq(vocab_text(l.v, -1).n, 0);
    cr_expect_eq(vocab_kind(l.v, -1), TOKEN_UNUSED);
    unload(l);
}

/* --- texts made to be slow --------------------------------------------------------------------- */

enum { SLOW_BYTES = 1 << 20 };

static const char *const slow_units[] = {
    "a",
    " ",
    "\n",
    "A",
    "1",
    "!",
    " a",
    "ab",
    " \n",
    "\t\n \n",
    "<",
    "<|",
    "<|eot",
    "</s> ",
    "<|im_end|>",
    "'s",
    "\xff",
    "\u4e2d",
    "\u3000",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466",
    /* a run of blanks that a letter, a digit or a Han character ends; see below */
    "",
    "",
    "",
    "random",
};
enum { N_SLOW = sizeof slow_units / sizeof *slow_units };

static size_t slow_text(char *text, int kind)
{
    static const char *const after[] = {"x", "1", "\u4e2d"};
    const char *unit = slow_units[kind];
    size_t n = SLOW_BYTES;
    uint64_t s = 7;

    if (kind == N_SLOW - 1) {
        n = 200 << 10;
        for (size_t i = 0; i < n; i++) text[i] = (char)next_random(&s);
    } else if (!*unit) {
        const char *end = after[kind - (N_SLOW - 4)];
        memset(text, ' ', n);
        memcpy(text + n - strlen(end), end, strlen(end));
    } else {
        for (size_t i = 0, len = strlen(unit); i < n; i++) text[i] = unit[i % len];
    }
    return n;
}

/* Processor time, not time on the wall: other tests run beside this one. A sanitizer costs a factor of 3
 * to 5. */
static void encode_in_time(const vocab *v, const char *name, char *text, int kind)
{
#ifdef __SANITIZE_ADDRESS__
    const double limit_s = 20;
#else
    const double limit_s = 2;
#endif
    size_t n = slow_text(text, kind);
    token_list got = {0};
    clock_t start = clock();
    double s;

    cr_expect_eq(vocab_encode(v, text, n, true, true, &got, NULL), PR_OK, "%s: text %d", name, kind);
    s = (double)(clock() - start) / CLOCKS_PER_SEC;
    cr_expect_lt(s, limit_s, "%s: text %d (\"%s\"): %.2f s", name, kind, slow_units[kind], s);
    cr_expect_gt(got.n, 0);
    free(got.id);
}

static const char *const slow_vocabs[] = {"llama-spm", "llama-bpe", "qwen2", "deepseek-coder"};
static int slow_index[] = {0, 1, 2, 3};

ParameterizedTestParameters(vocab, slow_texts)
{
    return cr_make_param_array(int, slow_index, sizeof slow_index / sizeof *slow_index);
}

ParameterizedTest(int *i, vocab, slow_texts, .timeout = 300)
{
    loaded l = load_named(slow_vocabs[*i]);
    char *text = malloc(SLOW_BYTES);

    cr_assert_not_null(text);
    for (int kind = 0; kind < N_SLOW; kind++) encode_in_time(l.v, slow_vocabs[*i], text, kind);
    free(text);
    unload(l);
}

/* The patterns of which no real vocabulary is at hand: runs that a careless pattern would begin to match at
 * every byte. */
static const char *const slow_pres[] = {"gpt-2", "starcoder", "falcon", "default", "deepseek-llm", "tekken"};
static int slow_pre_index[] = {0, 1, 2, 3, 4, 5};

ParameterizedTestParameters(vocab, slow_runs)
{
    return cr_make_param_array(int, slow_pre_index, sizeof slow_pre_index / sizeof *slow_pre_index);
}

ParameterizedTest(int *i, vocab, slow_runs, .timeout = 300)
{
    static const int kinds[] = {1, 3, 4, 5, N_SLOW - 4, N_SLOW - 3, N_SLOW - 2};
    char path[] = "/tmp/prima-test-vocab-XXXXXX", *text = malloc(SLOW_BYTES);
    loaded l;

    cr_assert_not_null(text);
    close(mkstemp(path));
    pairs_vocab(path, slow_pres[*i]);
    l = load(path);
    unlink(path);
    for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++)
        encode_in_time(l.v, slow_pres[*i], text, kinds[k]);
    free(text);
    unload(l);
}

/* --- threads ----------------------------------------------------------------------------------- */

typedef struct {
    const vocab *v;
    bool same;
} reader;

static void *read_often(void *p)
{
    static const char text[] = "Several threads read <|im_end|> one vocabulary: 123 \u4e2d\u6587.\n\n  done";
    reader *r = p;
    token_list first = {0};

    r->same = vocab_encode(r->v, text, sizeof text - 1, true, true, &first, NULL) == PR_OK && first.n > 10;
    for (int i = 0; i < 200 && r->same; i++) {
        token_list again = {0};
        r->same = vocab_encode(r->v, text, sizeof text - 1, true, true, &again, NULL) == PR_OK &&
                  again.n == first.n && memcmp(again.id, first.id, first.n * sizeof *first.id) == 0;
        free(again.id);
    }
    free(first.id);
    return NULL;
}

Test(vocab, threads_share_a_vocabulary)
{
    loaded l = load_named("models/qwen2-bias.gguf");
    pthread_t thread[4];
    reader r[4];

    for (int i = 0; i < 4; i++) {
        r[i] = (reader){l.v, false};
        cr_assert_eq(pthread_create(&thread[i], NULL, read_often, &r[i]), 0);
    }
    for (int i = 0; i < 4; i++) {
        pthread_join(thread[i], NULL);
        cr_expect(r[i].same, "thread %d", i);
    }
    unload(l);
}
