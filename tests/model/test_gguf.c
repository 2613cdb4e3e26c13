/* GGUF files, right and wrong: the shared list of broken files, files built here, every truncation and every
 * flipped byte of a small model. What a file must give comes from the builder's arguments, which shares no
 * code with the reader. */
#include "src/base/hash.h"
#include "src/model/gguf.h"
#include "src/model/gguf_impl.h"
#include "src/model/hparams.h"
#include "src/model/vocab.h"
#include "tests/common/data.h"
#include "tests/common/gguf_build.h"
#include "tests/common/prima.h"
#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#endif

static void make_dir(void)
{
    test_dir_new();
}

TestSuite(gguf, .init = make_dir, .fini = test_dir_remove, .timeout = 60);

/* Open what was built; the bytes stay allocated in `*bytes`. NULL on failure, with e set. */
static gguf *open_built(gguf_build *b, unsigned char **bytes, pr_err *e)
{
    gguf *g = NULL;
    size_t n;

    *bytes = gb_bytes(b, &n);
    *e = (pr_err){0};
    if (gguf_open_memory(&g, *bytes, n, e)) g = NULL;
    cr_assert_eq(g == NULL, e->code != PR_OK, "result and error agree");
    return g;
}

/* The file must be refused with a message that has `part` in it. */
static void refused(gguf_build *b, const char *part)
{
    unsigned char *bytes;
    pr_err e;
    gguf *g = open_built(b, &bytes, &e);

    cr_assert_null(g, "accepted; expected \"%s\"", part);
    cr_assert_eq(e.code, PR_EINTEGRITY, "code %d: %s", e.code, e.msg);
    cr_assert_not_null(strstr(e.msg, part), "message \"%s\" without \"%s\"", e.msg, part);
    free(bytes);
    gb_free(b);
}

static void write_bytes(const char *path, const void *data, size_t n)
{
    FILE *f = fopen(path, "wb");

    cr_assert_not_null(f);
    cr_assert_eq(fwrite(data, 1, n, f), n);
    cr_assert_eq(fclose(f), 0);
}

/* --- the shared list of broken files ----------------------------------------------------------- */

/* The oracle's messages in it hold NUL characters. */
static json_t *broken_list(const char *path)
{
    json_t *list = path ? json_load_file(path, JSON_ALLOW_NUL, NULL) : NULL;

    cr_assert(!path || json_is_array(list), "%s", path);
    return list;
}

ParameterizedTestParameters(gguf, broken_files)
{
    static int index[256];
    json_t *list = broken_list(test_data_or_null("broken/broken.json"));
    size_t n = list ? json_array_size(list) : 1; /* one test that says that it skips */

    for (int i = 0; i < 256; i++) index[i] = i;
    json_decref(list);
    return cr_make_param_array(int, index, n < 256 ? n : 256);
}

/* As a program would: open, shape, vocabulary. Returns what refused it, or NULL. */
static const char *load(const char *path, pr_err *e)
{
    const char *stage = NULL;
    gguf *g = NULL;
    hparams hp = {0};
    vocab *v = NULL;

    if (gguf_open(&g, path, e)) return "gguf_open";
    if (hparams_read(&hp, g, e)) stage = "hparams_read";
    else if (vocab_read(&v, g, e)) stage = "vocab_read";
    vocab_free(v);
    hparams_clear(&hp);
    gguf_close(g);
    return stage;
}

ParameterizedTest(int *i, gguf, broken_files)
{
    json_t *list = broken_list(test_data("broken/broken.json")), *entry = json_array_get(list, (size_t)*i);
    char rel[256];
    const char *expect, *stage, *path;
    pr_err e = {0};

    expect = json_string_value(json_object_get(entry, "expect"));
    snprintf(rel, sizeof rel, "broken/%s", json_string_value(json_object_get(entry, "file")));
    path = test_data(rel);
#ifndef SANITIZED
    cr_assert_eq(setrlimit(RLIMIT_AS, &(struct rlimit){1u << 30, 1u << 30}), 0);
#endif
    stage = load(path, &e);
    cr_log_info("%-34s %-7s %s %s", rel + 7, expect, stage ? stage : "accepted", stage ? e.msg : "");
    if (strcmp(expect, "reject") == 0) {
        cr_assert_not_null(stage, "%s: %s", rel, json_string_value(json_object_get(entry, "what")));
        cr_assert_eq(e.code, PR_EINTEGRITY, "%s: code %d: %s", rel, e.code, e.msg);
    } else if (strcmp(expect, "accept") == 0) {
        cr_assert_null(stage, "%s: %s: %s", rel, stage, e.msg);
    }
    if (stage && strcmp(stage, "gguf_open") == 0)
        cr_assert_eq(strncmp(e.msg, path, strlen(path)), 0, "the message names the file: %s", e.msg);
    json_decref(list);
}

/* --- damage of our own ------------------------------------------------------------------------- */

/* A copy that ends where its allocation ends, so that a sanitizer sees every read past it. */
static bool opens(const unsigned char *p, size_t n, pr_err *e)
{
    unsigned char *copy = malloc(n ? n : 1);
    gguf *g = NULL;
    hparams hp;
    bool opened;

    cr_assert_not_null(copy);
    memcpy(copy, p, n);
    *e = (pr_err){0};
    opened = gguf_open_memory(&g, copy, n, e) == PR_OK;
    if (opened && hparams_read(&hp, g, e) == PR_OK) hparams_clear(&hp);
    if (opened) {
        for (size_t i = 0; i < gguf_n_kv(g); i++) free(gguf_kv_text(g, i, 100));
        gguf_close(g);
    }
    free(copy);
    return opened;
}

Test(gguf, every_truncation_is_refused)
{
    gguf_build *b = gb_tiny("llama");
    size_t n;
    unsigned char *p = gb_bytes(b, &n);
    pr_err e;

    cr_assert(opens(p, n, &e), "%s", e.msg);
    for (size_t cut = 0; cut < n; cut++) {
        cr_assert(!opens(p, cut, &e), "accepted when cut to %zu of %zu bytes", cut, n);
        cr_assert_eq(e.code, PR_EINTEGRITY, "%s", e.msg);
    }
    free(p);
    gb_free(b);
}

Test(gguf, every_flipped_byte_is_survived)
{
    static const unsigned char flip[] = {0xff, 0x80, 0x01};
    gguf_build *b = gb_tiny("qwen3");
    size_t n, header;
    unsigned char *p = gb_bytes(b, &n);
    pr_err e;
    int accepted = 0;

    header = n < 3000 ? n : 3000; /* the rest is weights */
    for (size_t i = 0; i < header; i++) {
        for (size_t k = 0; k < sizeof flip; k++) {
            p[i] ^= flip[k];
            accepted += opens(p, n, &e);
            p[i] ^= flip[k];
        }
    }
    cr_log_info("%d of %zu changes accepted", accepted, header * sizeof flip);
    free(p);
    gb_free(b);
}

/* --- metadata ---------------------------------------------------------------------------------- */

static void put_le(unsigned char *p, uint64_t v, int n)
{
    for (int i = 0; i < n; i++) p[i] = (unsigned char)(v >> (8 * i));
}

/* Every integer type is read as u32 when the value fits. */
Test(gguf, integers_of_every_width)
{
    static const struct {
        uint32_t type;
        int bytes;
        uint64_t v;
        bool fits;
        const char *text;
    } t[] = {
        {GB_U8, 1, 200, true, "200"},
        {GB_I8, 1, 100, true, "100"},
        {GB_I8, 1, (uint64_t)-3, false, "-3"},
        {GB_U16, 2, 65535, true, "65535"},
        {GB_I16, 2, (uint64_t)-1, false, "-1"},
        {GB_U32, 4, 4294967295u, true, "4294967295"},
        {GB_I32, 4, 7, true, "7"},
        {GB_I32, 4, (uint64_t)INT32_MIN, false, "-2147483648"},
        {GB_U64, 8, 5, true, "5"},
        {GB_U64, 8, 4294967296u, false, "4294967296"},
        {GB_I64, 8, 9, true, "9"},
        {GB_U64, 8, UINT64_MAX, false, "18446744073709551615"},
    };
    gguf_build *b = gb_new(3);
    unsigned char *bytes, value[8];
    char key[16], *text;
    pr_err e;
    gguf *g;

    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        snprintf(key, sizeof key, "k%zu", i);
        put_le(value, t[i].v, 8);
        gb_raw(b, key, t[i].type, value, (size_t)t[i].bytes);
    }
    g = open_built(b, &bytes, &e);
    cr_assert_not_null(g, "%s", e.msg);
    cr_assert_eq(gguf_n_kv(g), sizeof t / sizeof *t);
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        uint32_t v = 12345;
        bool got;

        snprintf(key, sizeof key, "k%zu", i);
        got = gguf_u32(g, key, &v, &e);
        cr_expect_eq(got, t[i].fits, "%s", key);
        cr_expect_eq(e.code, t[i].fits ? PR_OK : PR_EINTEGRITY, "%s", key);
        cr_expect_eq(v, t[i].fits ? (uint32_t)t[i].v : 12345, "%s", key);
        cr_expect_eq(gguf_kv_type(g, i), (gguf_value_type)t[i].type);
        text = gguf_kv_text(g, i, 100);
        cr_expect_str_eq(text, t[i].text);
        free(text);
    }
    gguf_close(g);
    free(bytes);
    gb_free(b);
}

Test(gguf, values_of_other_types)
{
    static const float floats[] = {0.5f, -1.25f, 1e30f};
    static const int8_t small[] = {-5, 5};
    static const unsigned char truth[] = {1, 0, 1};
    static const char *const words[] = {"", "one", "t\303\251\n\001"};
    gguf_build *b = gb_new(2);
    double half = 0.5, huge = 1e200;
    unsigned char *bytes;
    pr_err e = {.code = PR_EPEER};
    gguf_array a;
    gguf_str s, strs[3];
    uint32_t u;
    float f = 0;
    bool yes = false;
    char *text;
    gguf *g;

    gb_f32(b, "f32", 1e-5f);
    gb_raw(b, "f64", GB_F64, &half, 8);
    gb_raw(b, "huge", GB_F64, &huge, 8);
    gb_bool(b, "yes", 1);
    gb_str(b, "text", "a\033[31mb");
    gb_str(b, "empty", "");
    gb_array(b, "floats", GB_F32, floats, sizeof floats, 3);
    gb_array(b, "small", GB_I8, small, sizeof small, 2);
    gb_array(b, "truth", GB_BOOL, truth, sizeof truth, 3);
    gb_strings(b, "words", words, 3);
    gb_array(b, "none", GB_STRING, NULL, 0, 0);
    g = open_built(b, &bytes, &e);
    cr_assert_not_null(g, "%s", e.msg);
    cr_expect_eq(gguf_version(g), 2u);

    cr_expect(gguf_f32(g, "f32", &f, &e) && f == 1e-5f);
    cr_expect(gguf_f32(g, "f64", &f, &e) && f == 0.5f);
    cr_expect(!gguf_f32(g, "huge", &f, &e) && e.code == PR_EINTEGRITY, "%s", e.msg);
    cr_expect(!gguf_f32(g, "absent", &f, &e) && e.code == PR_OK, "absence clears an old error");
    cr_expect(!gguf_f32(g, "text", &f, &e) && e.code == PR_EINTEGRITY);
    cr_expect_not_null(strstr(e.msg, "text is string, expected f32"), "%s", e.msg);
    cr_expect(!gguf_u32(g, "f32", &u, &e) && e.code == PR_EINTEGRITY);
    cr_expect(!gguf_u32(g, "yes", &u, &e) && e.code == PR_EINTEGRITY);
    cr_expect(gguf_bool(g, "yes", &yes, &e) && yes);
    cr_expect(!gguf_bool(g, "small", &yes, &e) && e.code == PR_EINTEGRITY);
    cr_expect(gguf_string(g, "text", &s, &e) && s.n == 7 && memcmp(s.p, "a\033[31mb", 7) == 0);
    cr_expect(gguf_string(g, "empty", &s, &e) && s.n == 0);
    cr_expect(!gguf_string(g, "words", &s, &e) && e.code == PR_EINTEGRITY);

    cr_assert(gguf_get_array(g, "floats", &a, &e) && a.type == GGUF_F32 && a.n == 3);
    for (size_t i = 0; i < 3; i++) cr_expect_eq(gguf_array_num(&a, i), (double)floats[i]);
    cr_assert(gguf_get_array(g, "small", &a, &e) && a.n == 2);
    cr_expect(gguf_array_int(&a, 0) == -5 && gguf_array_int(&a, 1) == 5 && gguf_array_num(&a, 0) == -5.0);
    cr_assert(gguf_get_array(g, "truth", &a, &e) && a.n == 3);
    cr_expect(gguf_array_int(&a, 0) == 1 && gguf_array_int(&a, 1) == 0);
    cr_assert(gguf_get_array(g, "words", &a, &e) && a.type == GGUF_STRING && a.n == 3);
    gguf_array_strings(&a, strs);
    for (size_t i = 0; i < 3; i++)
        cr_expect(strs[i].n == strlen(words[i]) && memcmp(strs[i].p, words[i], strs[i].n) == 0, "word %zu",
                  i);
    cr_assert(gguf_get_array(g, "none", &a, &e) && a.n == 0);
    cr_expect(!gguf_get_array(g, "yes", &a, &e) && e.code == PR_EINTEGRITY);
    cr_expect(gguf_has(g, "none") && !gguf_has(g, "non") && !gguf_has(g, "none2"));

    for (size_t i = 0; i < gguf_n_kv(g); i++) {
        static const char *const want[] = {"1e-05",
                                           "0.5",
                                           "1e+200",
                                           "true",
                                           "a\\x1b[31mb",
                                           "",
                                           "[f32; 3] 0.5, -1.25, 1e+30",
                                           "[i8; 2] -5, 5",
                                           "[bool; 3] true, false, true",
                                           "[string; 3] , one, t\303\251\\n\\x01",
                                           "[string; 0]"};
        text = gguf_kv_text(g, i, 100);
        cr_expect_str_eq(text, want[i]);
        free(text);
    }
    text = gguf_kv_text(g, 6, 12);
    cr_expect_str_eq(text, "[f32; 3] 0.5, ...");
    free(text);
    gguf_close(g);
    free(bytes);
    gb_free(b);
}

/* Text from a file is valid UTF-8 without control characters, whatever the bytes. */
Test(gguf, text_for_people)
{
    static const struct {
        const char *in, *out;
        size_t n, max;
    } t[] = {
        {"plain", "plain", 5, 100},
        {"\xff\xc3", "\\xff\\xc3", 2, 100},
        {"\xc0\xaf", "\\xc0\\xaf", 2, 100}, /* overlong */
        {"\xe0\x80\xaf", "\\xe0\\x80\\xaf", 3, 100},
        {"\xed\xa0\x80", "\\xed\\xa0\\x80", 3, 100},          /* surrogate */
        {"\xf4\x90\x80\x80", "\\xf4\\x90\\x80\\x80", 4, 100}, /* past U+10FFFF */
        {"\xc2\x9b", "\\xc2\\x9b", 2, 100},                   /* C1 control: CSI */
        {"\xf0\x9f\x98\x80", "\xf0\x9f\x98\x80", 4, 100},
        {"\0a\x7f", "\\x00a\\x7f", 3, 100},
        {"\xe2\x82\xac\xe2\x82\xac", "\xe2\x82\xac...", 6, 3},
    };

    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        char *text = gguf_text((gguf_str){t[i].in, t[i].n}, t[i].max);
        cr_expect_str_eq(text, t[i].out);
        free(text);
    }
}

Test(gguf, wrong_metadata_is_refused)
{
    static const unsigned char bools[] = {0, 1, 2};
    gguf_build *b = gb_new(3);

    gb_u32(b, "a", 1);
    gb_u32(b, "b", 1);
    gb_u32(b, "a", 2);
    refused(b, "key a stands in the metadata twice");
    b = gb_new(3);
    gb_u32(b, "", 1);
    refused(b, "key 0");
    b = gb_new(3);
    gb_raw(b, "a\033b", 13, "", 1);
    refused(b, "key a\\x1bb: unknown value type 13");
    b = gb_new(3);
    gb_array(b, "x", GB_ARRAY, bools, 3, 1);
    refused(b, "array of arrays");
    b = gb_new(3);
    gb_array(b, "x", 13, bools, 3, 1);
    refused(b, "unknown type 13");
    b = gb_new(3);
    gb_array(b, "x", GB_BOOL, bools, 3, 3);
    refused(b, "a bool is stored as 2");
    b = gb_new(3);
    gb_array(b, "x", GB_U64, bools, 3, UINT64_MAX / 8 + 2);
    refused(b, "elements, but only");
    b = gb_new(3);
    gb_lie_counts(b, 0, UINT64_MAX);
    refused(b, "claims 18446744073709551615 metadata keys");
    b = gb_tiny("llama");
    gb_lie_counts(b, 1000000, 9);
    refused(b, "claims 1000000 tensors");
}

Test(gguf, versions)
{
    static const struct {
        uint32_t version;
        const char *say;
    } t[] = {{0, "GGUF version 0"},
             {1, "GGUF version 1"},
             {4, "GGUF version 4"},
             {3u << 24, "big-endian"},
             {2u << 24, "big-endian"}};
    unsigned char *bytes;
    pr_err e;
    gguf *g;

    for (size_t i = 0; i < sizeof t / sizeof *t; i++) refused(gb_new(t[i].version), t[i].say);
    for (uint32_t v = 2; v <= 3; v++) {
        gguf_build *b = gb_new(v);
        g = open_built(b, &bytes, &e);
        cr_assert_not_null(g, "%s", e.msg);
        cr_expect_eq(gguf_version(g), v);
        gguf_close(g);
        free(bytes);
        gb_free(b);
    }
}

/* --- tensors ----------------------------------------------------------------------------------- */

Test(gguf, alignment)
{
    static const uint32_t good[] = {8, 16, 64, 4096, 1 << 20}, bad[] = {0, 1, 4, 24, 33, 1 << 21, 1u << 31};
    static const float row[3] = {1, 2, 3};
    unsigned char *bytes;
    pr_err e;

    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        gguf_build *b = gb_new(3);
        gguf *g;

        gb_u32(b, "general.alignment", good[i]);
        gb_align(b, good[i]);
        gb_tensor(b, "one", 0, 1, (uint64_t[]){3}, row, sizeof row);
        gb_tensor(b, "two", 0, 1, (uint64_t[]){3}, row, sizeof row);
        g = open_built(b, &bytes, &e);
        cr_assert_not_null(g, "alignment %" PRIu32 ": %s", good[i], e.msg);
        cr_expect_eq(gguf_alignment(g), good[i]);
        for (size_t t = 0; t < 2; t++) {
            const gguf_tensor *x = gguf_tensor_at(g, t);
            cr_expect_eq(x->file_offset % good[i], 0u);
            cr_expect_eq(x->data, bytes + x->file_offset);
            cr_expect_eq(memcmp(x->data, row, sizeof row), 0, "tensor %zu at alignment %" PRIu32, t, good[i]);
        }
        gguf_close(g);
        free(bytes);
        gb_free(b);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        gguf_build *b = gb_new(3);
        gb_u32(b, "general.alignment", bad[i]);
        refused(b, "general.alignment");
    }
}

static gguf_build *one_tensor(uint32_t type, uint32_t n_dims, uint64_t n0, uint64_t n1, uint64_t n2,
                              uint64_t n3, size_t n_bytes)
{
    gguf_build *b = gb_new(3);

    gb_tensor(b, "t", type, n_dims, (uint64_t[]){n0, n1, n2, n3}, NULL, n_bytes);
    return b;
}

Test(gguf, wrong_tensors_are_refused)
{
    char name[80];
    gguf_build *b;

    refused(one_tensor(0, 0, 1, 1, 1, 1, 4), "has 0 dimensions");
    refused(one_tensor(0, 5, 1, 1, 1, 1, 4), "has 5 dimensions");
    refused(one_tensor(0, 2, 0, 3, 1, 1, 0), "out of range");
    refused(one_tensor(0, 1, 1ull << 63, 1, 1, 1, 64), "out of range");
    refused(one_tensor(0, 4, 1u << 31, 1u << 31, 1u << 31, 1u << 31, 64), "too large");
    refused(one_tensor(0, 2, 1ull << 62, 4, 1, 1, 64), "too large");
    refused(one_tensor(4, 1, 32, 1, 1, 1, 64), "type number 4,");
    refused(one_tensor(31, 1, 32, 1, 1, 1, 64), "type number 31,");
    refused(one_tensor(34, 1, 256, 1, 1, 1, 64), "type number 34, TQ1_0, which prima does not compute with");
    refused(one_tensor(35, 1, 256, 1, 1, 1, 96), "TQ2_0");
    refused(one_tensor(40, 1, 32, 1, 1, 1, 64), "type number 40, which prima does not know");
    refused(one_tensor(0xffffffff, 1, 32, 1, 1, 1, 64), "type number 4294967295,");
    refused(one_tensor(12, 2, 255, 2, 1, 1, 300), "expected a multiple of 256 (type Q4_K)");
    refused(one_tensor(0, 2, 3, 3, 1, 1, 35), "truncated: tensor t needs 36 bytes");
    memset(name, 'x', 65);
    name[65] = 0;
    b = gb_new(3);
    gb_tensor(b, name, 0, 1, (uint64_t[]){1}, NULL, 4);
    refused(b, "a name of 65 bytes");
    b = gb_new(3);
    gb_tensor(b, "", 0, 1, (uint64_t[]){1}, NULL, 4);
    refused(b, "a name of 0 bytes");
    b = gb_tiny("llama");
    gb_tensor(b, "output.weight", 0, 1, (uint64_t[]){1}, NULL, 4);
    refused(b, "tensor output.weight stands in the directory twice");
    b = gb_tiny("llama");
    gb_lie_offset(b, "output.weight", 33);
    refused(b, "no multiple of the alignment");
    b = gb_tiny("llama");
    gb_lie_offset(b, "output.weight", 1ull << 63);
    refused(b, "truncated: tensor output.weight");
    b = gb_tiny("llama");
    gb_lie_offset(b, "output.weight", UINT64_MAX - 31);
    refused(b, "truncated: tensor output.weight");
}

Test(gguf, overlapping_data_is_refused)
{
    static const uint64_t same = 0, inside = 32, last = 64;
    gguf_build *b;
    const uint64_t offsets[] = {same, inside, last};

    for (size_t i = 0; i < 3; i++) { /* "a" covers 0..96 */
        b = gb_new(3);
        gb_tensor(b, "a", 0, 1, (uint64_t[]){24}, NULL, 96);
        gb_tensor(b, "b", 0, 1, (uint64_t[]){4}, NULL, 16);
        gb_lie_offset(b, "b", offsets[i]);
        refused(b, "overlap at byte");
    }
}

/* Gaps are allowed, and so is any order of the data. */
Test(gguf, gaps_and_any_order)
{
    unsigned char *bytes, data[128];
    gguf_build *b = gb_new(3);
    pr_err e;
    gguf *g;

    for (size_t i = 0; i < sizeof data; i++) data[i] = (unsigned char)i;
    gb_tensor(b, "a", 0, 1, (uint64_t[]){1}, data, 128);
    gb_tensor(b, "b", 0, 1, (uint64_t[]){1}, NULL, 0);
    gb_tensor(b, "c", 0, 1, (uint64_t[]){1}, NULL, 0);
    gb_lie_offset(b, "a", 96);
    gb_lie_offset(b, "b", 64);
    gb_lie_offset(b, "c", 0);
    g = open_built(b, &bytes, &e);
    cr_assert_not_null(g, "%s", e.msg);
    cr_expect_eq(gguf_tensor_find(g, "a")->data[0], 96);
    cr_expect_eq(gguf_tensor_find(g, "b")->data[0], 64);
    cr_expect_eq(gguf_tensor_find(g, "c")->data[0], 0);
    gguf_close(g);
    free(bytes);
    gb_free(b);
}

/* --- size -------------------------------------------------------------------------------------- */

Test(gguf, a_hundred_thousand_keys_and_tensors, .timeout = 20)
{
    enum { N = 100000 };
    gguf_build *b = gb_new(3);
    char name[32];
    unsigned char *bytes;
    uint32_t v;
    pr_err e;
    gguf *g;

    for (uint32_t i = 0; i < N; i++) {
        snprintf(name, sizeof name, "key.%u", i * 7919u % N); /* each number once */
        gb_u32(b, name, i * 7919u % N);
        snprintf(name, sizeof name, "blk.%u.x", i * 7919u % N);
        gb_tensor(b, name, 0, 1, (uint64_t[]){1 + i * 7919u % N % 5}, NULL, 20);
    }
    g = open_built(b, &bytes, &e);
    cr_assert_not_null(g, "%s", e.msg);
    cr_assert(gguf_n_kv(g) == N && gguf_n_tensors(g) == N);
    for (uint32_t i = 0; i < N; i++) {
        snprintf(name, sizeof name, "key.%u", i);
        cr_assert(gguf_u32(g, name, &v, &e) && v == i, "%s", name);
        snprintf(name, sizeof name, "blk.%u.x", i);
        cr_assert(gguf_tensor_find(g, name) && gguf_tensor_find(g, name)->ne[0] == 1 + i % 5, "%s", name);
    }
    cr_expect_null(gguf_tensor_find(g, "blk.100000.x"));
    gguf_close(g);
    free(bytes);
    gb_tensor(b, "blk.4711.x", 0, 1, (uint64_t[]){1}, NULL, 4);
    refused(b, "tensor blk.4711.x stands in the directory twice");
}

/* --- files ------------------------------------------------------------------------------------- */

/* Opening `path` fails with this code and these words, and the message begins with the file that is to blame.
 */
static void path_blamed(const char *path, const char *blamed, pr_code code, const char *words)
{
    gguf *g = NULL;
    pr_err e = {0};

    cr_assert_eq(gguf_open(&g, path, &e), code, "%s: %s", path, e.msg);
    cr_assert_eq(e.code, code, "%s", e.msg);
    cr_assert_eq(strncmp(e.msg, blamed, strlen(blamed)), 0, "%s", e.msg);
    cr_assert_not_null(strstr(e.msg, words), "\"%s\" without \"%s\"", e.msg, words);
}

static void path_refused(const char *path, pr_code code, const char *words)
{
    path_blamed(path, path, code, words);
}

Test(gguf, what_is_no_gguf_file)
{
    static const struct {
        const char *bytes, *say;
        size_t n;
    } t[] = {
        {"", "empty", 0},
        {"GG", "not a GGUF file", 2},
        {"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "git lfs pull", 56},
        {"<!DOCTYPE html>\n<html>", "web page", 22},
        {"{\"schema\": 1}", "JSON", 13},
        {"Hello, world, how are you?", "text file", 26},
        {"PK\x03\x04rest", "PyTorch", 8},
        {"\x40\0\0\0\0\0\0\0{\"__metadata__\":", "safetensors", 24},
        {"tjgg\3\0\0\0", "GGML format of 2023", 8},
        {"\0\0\0\0\0\0\0\0", "zero bytes", 8},
        {"\x93\xab\x01\x02", "begins with \\x93\\xab\\x01\\x02", 4},
        {"GGUF\3\0\0\0", "truncated", 8},
        {"GGUF\3\0\0", "truncated", 7},
    };
    const char *path = in_dir("file.gguf");

    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        write_bytes(path, t[i].bytes, t[i].n);
        path_refused(path, PR_EINTEGRITY, t[i].say);
    }
    path_refused(in_dir("."), PR_ERESOURCE, "directory");
    path_refused(in_dir("absent.gguf"), PR_ERESOURCE, "No such file");
    path_refused("/dev/null", PR_ERESOURCE, "device");
    cr_assert_eq(mkfifo(in_dir("fifo"), 0600), 0);
    path_refused(in_dir("fifo"), PR_ERESOURCE, "pipe");
}

Test(gguf, pages_dropped_come_back)
{
    enum { N = 100000 };
    float *w = malloc(N * sizeof *w);
    const char *path = in_dir("m.gguf");
    gguf_build *b = gb_new(3);
    const gguf_tensor *t;
    gguf *g;

    cr_assert_not_null(w);
    for (int i = 0; i < N; i++) w[i] = (float)i;
    gb_tensor(b, "w", 0, 1, (uint64_t[]){N}, w, N * sizeof *w);
    gb_write(b, path);
    cr_assert_eq(gguf_open(&g, path, NULL), PR_OK);
    t = gguf_tensor_find(g, "w");
    cr_expect_eq(memcmp(t->data, w, N * sizeof *w), 0);
    gguf_drop_pages(t->data, (size_t)t->n_bytes);
    gguf_drop_pages(t->data + 5, 10);
    gguf_drop_pages(t->data, 0);
    cr_expect_eq(memcmp(t->data, w, N * sizeof *w), 0);
    gguf_close(g);
    free(w);
    gb_free(b);
}

/* --- split models ------------------------------------------------------------------------------ */

/* Part `no` of n with one tensor "part<no>"; keys may be left out by passing n = 0. */
static gguf_build *split_part(uint32_t no, uint32_t n)
{
    gguf_build *b = gb_new(3);
    uint16_t n16 = (uint16_t)n, no16 = (uint16_t)no;
    float v = (float)no;
    char name[16];

    if (no == 0) gb_str(b, "general.name", "whole");
    gb_raw(b, "split.no", GB_U16, &no16, 2);
    gb_raw(b, "split.count", GB_U16, &n16, 2);
    snprintf(name, sizeof name, "part%u", no);
    gb_tensor(b, name, 0, 1, (uint64_t[]){1}, &v, 4);
    return b;
}

static const char *split_path(uint32_t no, uint32_t n)
{
    char name[64];

    snprintf(name, sizeof name, "m-%05u-of-%05u.gguf", no + 1, n);
    return in_dir(name);
}

static void write_part(gguf_build *b, const char *path)
{
    gb_write(b, path);
    gb_free(b);
}

static void write_three(void)
{
    gguf_build *b = split_part(0, 3);
    int32_t total = 3;

    gb_raw(b, "split.tensors.count", GB_I32, &total, 4);
    write_part(b, split_path(0, 3));
    write_part(split_part(1, 3), split_path(1, 3));
    write_part(split_part(2, 3), split_path(2, 3));
}

Test(gguf, split_models_open_by_any_part)
{
    char first[65], hex[65], name[16];
    gguf_str s;
    gguf *g;
    pr_err e = {0};

    write_three();
    for (uint32_t named = 0; named < 3; named++) {
        uint64_t bytes = 0;

        cr_assert_eq(gguf_open(&g, split_path(named, 3), &e), PR_OK, "%s", e.msg);
        cr_assert(gguf_n_parts(g) == 3 && gguf_n_tensors(g) == 3);
        cr_expect(gguf_string(g, "general.name", &s, &e) && s.n == 5, "metadata of the first part");
        for (uint32_t i = 0; i < 3; i++) {
            const gguf_tensor *t;
            struct stat st;
            float v;

            cr_expect_str_eq(gguf_part_path(g, i), split_path(i, 3));
            cr_assert_eq(stat(gguf_part_path(g, i), &st), 0);
            bytes += (uint64_t)st.st_size;
            snprintf(name, sizeof name, "part%u", i);
            t = gguf_tensor_find(g, name);
            cr_assert_not_null(t);
            memcpy(&v, t->data, 4);
            cr_expect(t->part == i && v == (float)i);
        }
        cr_expect_eq(gguf_file_bytes(g), bytes);
        gguf_header_sha256(g, hex);
        if (named == 0) memcpy(first, hex, 65);
        cr_expect_str_eq(hex, first);
        gguf_close(g);
    }
}

Test(gguf, split_models_that_do_not_fit_together)
{
    gguf_build *b;

    write_three();
    cr_assert_eq(unlink(split_path(1, 3)), 0);
    path_refused(split_path(1, 3), PR_ERESOURCE, "No such file");
    path_blamed(split_path(0, 3), split_path(1, 3), PR_ERESOURCE, "part 2 of the 3 of this model is missing");
    path_blamed(split_path(2, 3), split_path(1, 3), PR_ERESOURCE, "part 2 of the 3 of this model is missing");
    write_part(split_part(2, 3), split_path(1, 3));
    path_blamed(split_path(0, 3), split_path(1, 3), PR_EINTEGRITY,
                "says that it is part 3 of 3, expected part 2 of 3");
    path_refused(split_path(1, 3), PR_EINTEGRITY, "its name must end in -00003-of-00003.gguf");
    write_part(split_part(1, 4), split_path(1, 3));
    path_blamed(split_path(0, 3), split_path(1, 3), PR_EINTEGRITY,
                "says that it is part 2 of 4, expected part 2 of 3");
    b = split_part(1, 3);
    gb_tensor(b, "extra", 0, 1, (uint64_t[]){1}, NULL, 4);
    write_part(b, split_path(1, 3));
    path_refused(split_path(0, 3), PR_EINTEGRITY, "the parts hold 4 tensors, but split.tensors.count is 3");
    b = split_part(1, 3);
    gb_drop_tensor(b, "part1");
    gb_tensor(b, "part0", 0, 1, (uint64_t[]){1}, NULL, 4);
    write_part(b, split_path(1, 3));
    path_refused(split_path(0, 3), PR_EINTEGRITY, "tensor part0 stands in the directory twice");
    write_part(gb_new(3), split_path(1, 3));
    path_blamed(split_path(0, 3), split_path(1, 3), PR_EINTEGRITY,
                "says that it is part 1 of 1, expected part 2 of 3");
}

Test(gguf, split_keys_that_lie)
{
    gguf_build *b = split_part(3, 3);

    write_part(b, split_path(0, 3));
    path_refused(split_path(0, 3), PR_EINTEGRITY, "split.no is 3, expected less than split.count 3");
    b = split_part(0, 3);
    gb_drop(b, "split.no");
    write_part(b, split_path(0, 3));
    path_refused(split_path(0, 3), PR_EINTEGRITY, "split.no is missing");
    b = split_part(0, 3);
    write_part(b, in_dir("renamed.gguf"));
    path_refused(in_dir("renamed.gguf"), PR_EINTEGRITY, "its name must end in -00001-of-00003.gguf");
    b = split_part(0, 3);
    gb_drop(b, "split.count");
    gb_u32(b, "split.count", 4000000000u);
    write_part(b, split_path(0, 3));
    path_refused(split_path(0, 3), PR_EINTEGRITY, "expected at most 99999");
}

/* Without tensors a file is nothing but its header. */
Test(gguf, header_hash)
{
    gguf_build *b = gb_new(3);
    char want[65], got[65];
    unsigned char *bytes, *both;
    size_t n, n2;
    pr_err e;
    gguf *g;

    gb_str(b, "general.name", "x");
    bytes = gb_bytes(b, &n);
    hash_sha256_hex(bytes, n, want);
    cr_assert_eq(gguf_open_memory(&g, bytes, n, &e), PR_OK);
    gguf_header_sha256(g, got);
    cr_expect_str_eq(got, want);
    gguf_close(g);
    free(bytes);
    gb_free(b);

    both = malloc(4096);
    cr_assert_not_null(both);
    n = 0;
    for (uint32_t i = 0; i < 2; i++) {
        b = split_part(i, 2);
        gb_drop_tensor(b, i ? "part1" : "part0");
        bytes = gb_bytes(b, &n2);
        memcpy(both + n, bytes, n2);
        n += n2;
        free(bytes);
        write_part(b, split_path(i, 2));
    }
    hash_sha256_hex(both, n, want);
    cr_assert_eq(gguf_open(&g, split_path(1, 2), &e), PR_OK, "%s", e.msg);
    gguf_header_sha256(g, got);
    cr_expect_str_eq(got, want);
    gguf_close(g);
    free(both);
}
