/* The words of a source, names in addresses, quantisations, what a repository has. What is expected was
 * written down by hand from the syntax in conventions 12, RFC 3986, and names of files as publishers use
 * them. */
#include "src/pull/source.h"
#include "tests/common/prima.h"
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static hub the_hub = {.endpoint = "https://huggingface.co", .origin = "https://huggingface.co"};

TestSuite(source, .timeout = 10);

/* --- words -----------------------------------------------------------------------------------------------
 */
static const struct {
    const char *text;
    source_kind kind;
    const char *repo, *rev, *what;
} good[] = {
    {"Qwen/QwQ-32B-GGUF", SOURCE_QUANT, "Qwen/QwQ-32B-GGUF", "main", "Q4_K_M"},
    {"Qwen/QwQ-32B-GGUF:q8_0", SOURCE_QUANT, "Qwen/QwQ-32B-GGUF", "main", "Q8_0"},
    {"a/b:fp16", SOURCE_QUANT, "a/b", "main", "F16"},
    {"a/b:UD-Q4_K_XL", SOURCE_QUANT, "a/b", "main", "UD-Q4_K_XL"},
    {"a/b@v1.0", SOURCE_QUANT, "a/b", "v1.0", "Q4_K_M"},
    {"a/b@v1.0:Q5_K_S", SOURCE_QUANT, "a/b", "v1.0", "Q5_K_S"},
    {"a/b@refs/pr/3:Q5_K_S", SOURCE_QUANT, "a/b", "refs/pr/3", "Q5_K_S"},
    {"a/b@refs/pr/3/c.gguf", SOURCE_FILE, "a/b", "refs/pr/3", "c.gguf"},
    {"a/b/c.gguf", SOURCE_FILE, "a/b", "main", "c.gguf"},
    {"a/b/c d/e%20f.gguf", SOURCE_FILE, "a/b", "main", "c d/e%20f.gguf"},
    {"a/b/c:d.GGUF", SOURCE_FILE, "a/b", "main", "c:d.GGUF"},
    {"hf://a/b/c.gguf", SOURCE_FILE, "a/b", "main", "c.gguf"},
    {"hf://a/b@1234abc/d/c.gguf", SOURCE_FILE, "a/b", "1234abc", "d/c.gguf"},
    {"hf://a/b@refs%2Fpr%2F3/c%20d.gguf", SOURCE_FILE, "a/b", "refs/pr/3", "c d.gguf"},
    {"hf://a/b:Q6_K", SOURCE_QUANT, "a/b", "main", "Q6_K"},
    {"https://huggingface.co/a/b", SOURCE_QUANT, "a/b", "main", "Q4_K_M"},
    {"https://huggingface.co/a/b/", SOURCE_QUANT, "a/b", "main", "Q4_K_M"},
    {"https://huggingface.co/a/b?x=/tree/v2", SOURCE_QUANT, "a/b", "main", "Q4_K_M"},
    {"https://huggingface.co/a/b.gguf", SOURCE_URL, NULL, NULL, "https://huggingface.co/a/b.gguf"},
    {"https://huggingface.co/a/b.gguf?x", SOURCE_URL, NULL, NULL, "https://huggingface.co/a/b.gguf?x"},
    {"https://huggingface.co/a/b/c.gguf", SOURCE_URL, NULL, NULL, "https://huggingface.co/a/b/c.gguf"},
    {"https://huggingface.co/a/b/raw/main/c.gguf", SOURCE_URL, NULL, NULL,
     "https://huggingface.co/a/b/raw/main/c.gguf"},
    {"https://huggingface.co/a/b/tree/v2/Q8_0", SOURCE_QUANT, "a/b", "v2", "Q4_K_M"},
    {"https://huggingface.co/a/b/tree/v2", SOURCE_QUANT, "a/b", "v2", "Q4_K_M"},
    {"https://huggingface.co/a/b/blob/main/c.gguf", SOURCE_FILE, "a/b", "main", "c.gguf"},
    {"https://huggingface.co/a/b/resolve/v1/d/c%2Bx.gguf?download=true", SOURCE_FILE, "a/b", "v1",
     "d/c+x.gguf"},
    {"https://huggingface.co/a/b/resolve/refs%2Fpr%2F1/c.gguf#x", SOURCE_FILE, "a/b", "refs/pr/1", "c.gguf"},
    {"https://huggingface.co/datasets/a/b/resolve/main/c.gguf", SOURCE_URL, NULL, NULL,
     "https://huggingface.co/datasets/a/b/resolve/main/c.gguf"},
    {"https://huggingface.co/datasets/a/b/blob/main/c.gguf", SOURCE_URL, NULL, NULL,
     "https://huggingface.co/datasets/a/b/resolve/main/c.gguf"},
    {"https://huggingface.co.evil.org/a/b/resolve/main/c.gguf", SOURCE_URL, NULL, NULL,
     "https://huggingface.co.evil.org/a/b/resolve/main/c.gguf"},
    {"https://mirror.example/a/b/blob/main/c.gguf", SOURCE_URL, NULL, NULL,
     "https://mirror.example/a/b/resolve/main/c.gguf"},
    {"https://x.example/blob/a.gguf", SOURCE_URL, NULL, NULL, "https://x.example/blob/a.gguf"},
    {"https://x.example/a b\xC3\xA9.gguf", SOURCE_URL, NULL, NULL, "https://x.example/a%20b%C3%A9.gguf"},
    {"http://127.0.0.1:8000/a.gguf?k=v", SOURCE_URL, NULL, NULL, "http://127.0.0.1:8000/a.gguf?k=v"},
    {"http://[::1]:80/a.gguf", SOURCE_URL, NULL, NULL, "http://[::1]:80/a.gguf"},
    {"file:///tmp/a%20b.gguf", SOURCE_PATH, NULL, NULL, "/tmp/a b.gguf"},
    {"file://localhost/tmp/a.gguf", SOURCE_PATH, NULL, NULL, "/tmp/a.gguf"},
    {"/tmp/a.gguf", SOURCE_PATH, NULL, NULL, "/tmp/a.gguf"},
    {"./a/b", SOURCE_PATH, NULL, NULL, "./a/b"},
    {"../a/b:c", SOURCE_PATH, NULL, NULL, "../a/b:c"},
    {"a.gguf", SOURCE_PATH, NULL, NULL, "a.gguf"},
};

static const char *shown(const char *s)
{
    return s ? s : "(none)";
}

Test(source, words)
{
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        source_spec s;
        pr_err e = {0};

        cr_assert_eq(source_parse(&s, good[i].text, &the_hub, &e), PR_OK, "%s: %s", good[i].text, e.msg);
        cr_expect_eq(s.kind, good[i].kind, "%s: kind %d", good[i].text, (int)s.kind);
        cr_expect_str_eq(shown(s.repo), shown(good[i].repo), "%s", good[i].text);
        cr_expect_str_eq(shown(s.rev), shown(good[i].rev), "%s", good[i].text);
        cr_expect_str_eq(shown(s.what), shown(good[i].what), "%s: %s", good[i].text, shown(s.what));
        source_spec_clear(&s);
    }
}

static const char *const bad[] = {"",
                                  "ftp://x/y.gguf",
                                  "a/b/c",
                                  "a/b/c.bin",
                                  "a/b:",
                                  "a/b:x y",
                                  "a/b:../x",
                                  "a//b",
                                  "-a/b",
                                  "a/..:Q4_0",
                                  "a/b..c",
                                  "a/b@",
                                  "a/b@x..y",
                                  "a/b@a b",
                                  "a/b/../c.gguf",
                                  "a/b//c.gguf",
                                  "a/b/./c.gguf",
                                  "a/b/c\nd.gguf",
                                  "a/b/c\\d.gguf",
                                  "a/b/.c.gguf",
                                  "hf://a/b/c%2F..%2F..%2Fd.gguf",
                                  "hf://a/b/c%0Ad.gguf",
                                  "hf://a/b/c%00d.gguf",
                                  "hf://a/b/c%zz.gguf",
                                  "hf://a/b/c.gguf%2",
                                  "hf://a",
                                  "https:///x.gguf",
                                  "https://u:p@x/y.gguf",
                                  "https://x/y\nz.gguf",
                                  "https://huggingface.co/a/b/resolve/main/..%2Fx.gguf",
                                  "https://huggingface.co/a/b/resolve/main/x.bin",
                                  "https://huggingface.co/a/b/tree/..",
                                  "file://elsewhere/a.gguf",
                                  "file:///a%zz"};

Test(source, words_refused)
{
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        source_spec s;
        pr_err e = {0};

        cr_expect_eq(source_parse(&s, bad[i], &the_hub, &e), PR_EUSAGE, "accepted: %s", bad[i]);
        cr_expect(e.msg[0], "no message: %s", bad[i]);
        cr_expect_null(s.repo);
        cr_expect_null(s.what);
    }
}

/* A password in an address is in the process list already; not in the log, too. */
Test(source, passwords_are_not_repeated)
{
    source_spec s;
    pr_err e = {0};

    cr_assert_eq(source_parse(&s, "https://user:s3cret@x/y.gguf", &the_hub, &e), PR_EUSAGE);
    cr_expect_null(strstr(e.msg, "s3cret"), "%s", e.msg);
}

Test(source, a_file_that_is_here_is_a_path)
{
    source_spec s;

    cr_assert_eq(chdir(test_dir_new()), 0);
    cr_assert_eq(mkdir("a", 0777), 0);
    cr_assert_eq(source_parse(&s, "a/b.gguf", &the_hub, NULL), PR_OK);
    cr_expect_eq(s.kind, SOURCE_QUANT); /* nothing here: a repository of this name */
    source_spec_clear(&s);
    write_file("a/b.gguf", "x");
    cr_assert_eq(source_parse(&s, "a/b.gguf", &the_hub, NULL), PR_OK);
    cr_expect_eq(s.kind, SOURCE_PATH);
    source_spec_clear(&s);
    cr_assert_eq(mkdir("c", 0777), 0);
    cr_assert_eq(mkdir("c/d", 0777), 0);
    cr_assert_eq(source_parse(&s, "c/d", &the_hub, NULL), PR_OK);
    cr_expect_eq(s.kind, SOURCE_QUANT); /* a folder is no model */
    source_spec_clear(&s);
    cr_assert_eq(chdir("/"), 0);
    test_dir_remove();
}

Test(source, a_mirror_with_a_folder)
{
    hub mirror = {.endpoint = "https://m.example/hf", .origin = "https://m.example"};
    source_spec s;
    char *url;

    cr_assert_eq(source_parse(&s, "https://m.example/hf/a/b/resolve/main/c.gguf", &mirror, NULL), PR_OK);
    cr_expect_eq(s.kind, SOURCE_FILE);
    cr_expect_str_eq(s.repo, "a/b");
    source_spec_clear(&s);
    cr_assert_eq(source_parse(&s, "https://m.example/a/b/resolve/main/c.gguf", &mirror, NULL), PR_OK);
    cr_expect_eq(s.kind, SOURCE_URL);
    source_spec_clear(&s);
    url = hub_file_url(&mirror, "a/b", "refs/pr/1", "d e/f+g%.gguf");
    cr_expect_str_eq(url, "https://m.example/hf/a/b/resolve/refs%2Fpr%2F1/d%20e/f%2Bg%25.gguf");
    free(url);
}

/* --- names -----------------------------------------------------------------------------------------------
 */
static const struct {
    const char *path, *quant, *kind;
} names[] = {
    {"qwq-32b-q4_k_m.gguf", "Q4_K_M", "model"},
    {"QwQ-32B-Q4_K_M.gguf", "Q4_K_M", "model"},
    {"mixtral-8x7b-instruct-v0.1.Q2_K.gguf", "Q2_K", "model"},
    {"Llama-3.3-70B-Instruct.i1-IQ2_XXS.gguf", "IQ2_XXS", "model"},
    {"Llama-3.3-70B-Instruct-Q6_K_L.gguf", "Q6_K_L", "model"},
    {"Qwen2.5-7B-Instruct-fp16-00001-of-00004.gguf", "F16", "model"},
    {"qwen2.5-72b-instruct-q8_0-00001-of-00021.gguf", "Q8_0", "model"},
    {"Q4_K_M/Model-Q4_K_M-00001-of-00002.gguf", "Q4_K_M", "model"},
    {"BF16/model-00001-of-00030.gguf", "BF16", "model"},
    {"model.BF16.gguf", "BF16", "model"},
    {"Qwen3-30B-A3B-UD-Q4_K_XL.gguf", "UD-Q4_K_XL", "model"},
    {"STUD-Q4_0.gguf", "Q4_0", "model"},
    {"Phi-3-mini-4k-instruct-Q4_0_4_8.gguf", "Q4_0_4_8", "model"},
    {"gpt-oss-20b-mxfp4.gguf", "MXFP4", "model"},
    {"x-TQ1_0.gguf", "TQ1_0", "model"},
    {"x-IQ4_K_R4.gguf", "IQ4_K_R4", "model"},
    {"Q8-distill-Q4_K_S.gguf", "Q4_K_S", "model"},
    {"x_Q4_K_M_final.gguf", "Q4_K_M", "model"},
    {"model.gguf", "", "model"},
    {"IQtest-7b.gguf", "", "model"},
    {"Q4_K_M/README.gguf", "Q4_K_M", "model"},
    {"mmproj-model-f16.gguf", "F16", "mmproj"},
    {"Qwen2-VL-mmproj-Q8_0.gguf", "Q8_0", "mmproj"},
    {"imatrix.gguf", "", "imatrix"},
    {"QwQ-32B-imatrix.gguf", "", "imatrix"},
    {"QwQ-32B-imatrix-Q4_K_M.gguf", "Q4_K_M", "model"},
    {"ggml-vocab-llama-bpe.gguf", "", "vocab"},
};

Test(source, quantisations)
{
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char quant[NAME_QUANT_BYTES];

        name_quant(names[i].path, quant);
        cr_expect_str_eq(quant, names[i].quant, "%s: %s", names[i].path, quant);
        cr_expect_str_eq(name_kind(names[i].path), names[i].kind, "%s: %s", names[i].path,
                         name_kind(names[i].path));
    }
}

Test(source, quantisations_typed)
{
    char quant[NAME_QUANT_BYTES];

    cr_assert(name_quant_typed("bf16", quant));
    cr_expect_str_eq(quant, "BF16");
    cr_assert(name_quant_typed("q4_k", quant));
    cr_expect_str_eq(quant, "Q4_K");
    cr_assert(name_quant_typed("ud-q4_k_m", quant));
    cr_expect_str_eq(quant, "UD-Q4_K_M");
    cr_assert(name_quant_typed("mine", quant));
    cr_expect_str_eq(quant, "MINE");
    cr_expect_not(name_quant_typed("", quant));
    cr_expect_not(name_quant_typed("a/b", quant));
    cr_expect_not(name_quant_typed("123456789012345678901234", quant));
}

static void expect_split(const char *name, bool is, uint32_t part, uint32_t count, size_t stem)
{
    uint32_t p, c;
    size_t s;

    cr_expect_eq(name_split(name, &p, &c, &s), is, "%s", name);
    cr_expect_eq(p, part, "%s: part %u", name, p);
    cr_expect_eq(c, count, "%s: count %u", name, c);
    cr_expect_eq(s, stem, "%s: stem %zu", name, s);
}

Test(source, parts)
{
    char *other = name_of_part("x-00002-of-00013.gguf", 13);

    expect_split("x-00002-of-00013.gguf", true, 2, 13, 1);
    expect_split("x-00001-of-00001.gguf", true, 1, 1, 1);
    expect_split("x-00000-of-00003.gguf", false, 1, 1, 16);
    expect_split("x-00004-of-00003.gguf", false, 1, 1, 16);
    expect_split("x-00001-of-99999.gguf", false, 1, 1, 16);
    expect_split("x-0001-of-00003.gguf", false, 1, 1, 15);
    expect_split("-00001-of-00003.gguf", false, 1, 1, 15);
    expect_split("x-00001-of-00003", false, 1, 1, 16);
    expect_split("x.gguf", false, 1, 1, 1);
    expect_split("", false, 1, 1, 0);
    cr_expect_str_eq(other, "x-00013-of-00013.gguf");
    free(other);
}

static void expect_code(const char *plain, const char *coded)
{
    char *a = name_encode(plain, false), *b = name_decode(coded, strlen(coded));

    cr_expect_str_eq(a, coded);
    cr_assert_not_null(b, "%s", coded);
    cr_expect_str_eq(b, plain);
    free(a);
    free(b);
}

/* RFC 3986: unreserved characters stay. */
Test(source, percent_encoding)
{
    char *s;

    expect_code("aZ09-._~", "aZ09-._~");
    expect_code("a b", "a%20b");
    expect_code("a/b", "a%2Fb");
    expect_code("100%", "100%25");
    expect_code("?#[]@!$&'()*+,;=:", "%3F%23%5B%5D%40%21%24%26%27%28%29%2A%2B%2C%3B%3D%3A");
    expect_code("\xC3\xA9", "%C3%A9");
    s = name_encode("a b/c", true);
    cr_expect_str_eq(s, "a%20b/c");
    free(s);
    s = name_decode("%c3%a9", 6);
    cr_expect_str_eq(s, "\xC3\xA9");
    free(s);
    cr_expect_null(name_decode("%", 1));
    cr_expect_null(name_decode("%4", 2));
    cr_expect_null(name_decode("%4x", 3));
    cr_expect_null(name_decode("%00", 3));
    cr_expect_null(name_decode("%41", 2), "reads past its end");
}

Test(source, file_names)
{
    static const char *const no[] = {"", ".", "..", ".x", "a/b", "/a", "a\\b", "a\nb", "a\x7F", "\x1B[2J"};
    char name[300];

    for (size_t i = 0; i < sizeof no / sizeof *no; i++)
        cr_expect_eq(name_check(no[i], NULL), PR_EUSAGE, "%s", no[i]);
    cr_expect_eq(name_check("a b..c-\xC3\xA9.gguf", NULL), PR_OK);
    memset(name, 'x', sizeof name);
    name[240] = 0;
    cr_expect_eq(name_check(name, NULL), PR_OK);
    name[240] = 'x';
    name[241] = 0;
    cr_expect_eq(name_check(name, NULL), PR_EUSAGE);
}

/* --- addresses and paths, resolved ------------------------------------------------------------------------
 */
static source *resolved(const char *text)
{
    source *s = NULL;
    pr_err e = {0};

    cr_assert_eq(source_resolve(&s, text, &the_hub, NULL, ".", &e), PR_OK, "%s: %s", text, e.msg);
    return s;
}

Test(source, an_address)
{
    source *s = resolved("https://x.example/d/a%20b.gguf?sig=1");

    cr_assert_eq(s->n_files, 1);
    cr_expect_str_eq(s->file[0].name, "a b.gguf");
    cr_expect_str_eq(s->file[0].url, "https://x.example/d/a%20b.gguf?sig=1");
    cr_expect_not(s->file[0].has_bytes);
    source_free(s);
}

Test(source, an_address_of_a_part_is_all_parts)
{
    source *s = resolved("https://x.example/d/a%20b-00002-of-00003.gguf?sig=1");

    cr_assert_eq(s->n_files, 3);
    cr_expect_str_eq(s->file[0].name, "a b-00001-of-00003.gguf");
    cr_expect_str_eq(s->file[0].url, "https://x.example/d/a%20b-00001-of-00003.gguf?sig=1");
    cr_expect_str_eq(s->file[2].url, "https://x.example/d/a%20b-00003-of-00003.gguf?sig=1");
    source_free(s);
}

static const char *const no_file[] = {
    "https://x.example",           "https://x.example/",
    "https://x.example/a/?b",      "https://x.example/a/..",
    "https://x.example/a/%2e%2e",  "https://x.example/a/..%2fb.gguf",
    "https://x.example/%5Ca.gguf", "https://x.example/a%0A.gguf",
    "https://x.example/a%2",       "https://huggingface.co/a/b/resolve/main/?x.gguf"};

Test(source, addresses_of_no_file)
{
    for (size_t i = 0; i < sizeof no_file / sizeof *no_file; i++) {
        source *s = NULL;
        cr_expect_eq(source_resolve(&s, no_file[i], &the_hub, NULL, ".", NULL), PR_EUSAGE, "accepted: %s",
                     no_file[i]);
        cr_expect_null(s);
    }
}

Test(source, paths)
{
    source *s = NULL;
    pr_err e = {0};
    char expected[4200], real[4096];
    const char *dir = test_dir_new();

    cr_assert_eq(chdir(dir), 0);
    cr_assert_not_null(getcwd(real, sizeof real));
    write_file("a b-00001-of-00002.gguf", "xy");
    cr_expect_eq(source_resolve(&s, "a b-00001-of-00002.gguf", &the_hub, NULL, ".", &e), PR_ERESOURCE);
    cr_expect(strstr(e.msg, "00002-of-00002"), "%s", e.msg);
    write_file("a b-00002-of-00002.gguf", "xyz");
    write_file("a b-00002-of-00002.gguf.sha256",
               "3608BCA1E44EA6C4D268EB6DB02260269892C0B42B86BBF1E77A6FA16C3C9282 *a b-00002-of-00002.gguf\n");
    s = resolved("a b-00001-of-00002.gguf");
    cr_assert_eq(s->n_files, 2);
    snprintf(expected, sizeof expected, "file://%s/a%%20b-00002-of-00002.gguf", real);
    cr_expect_str_eq(s->file[1].url, expected);
    cr_expect_eq(s->file[1].bytes, 3);
    cr_expect_str_eq(s->file[0].sha256, "");
    cr_expect_str_eq(s->file[1].sha256, "3608bca1e44ea6c4d268eb6db02260269892c0b42b86bbf1e77a6fa16c3c9282");
    source_free(s);
    cr_expect_eq(source_resolve(&s, "./nothing.gguf", &the_hub, NULL, ".", NULL), PR_ERESOURCE);
    cr_expect_eq(source_resolve(&s, "/", &the_hub, NULL, ".", NULL), PR_EUSAGE);
    /* a link, as a cache of models has them: its own name counts */
    cr_assert_eq(symlink("a b-00001-of-00002.gguf", "link.gguf"), 0);
    s = resolved("link.gguf");
    cr_expect_str_eq(s->file[0].name, "link.gguf");
    source_free(s);
    cr_assert_eq(chdir("/"), 0);
    test_dir_remove();
}

/* --- without the network -----------------------------------------------------------------------------------
 */
static int offline(source **s, const char *text, pr_err *e)
{
    hub h = the_hub;

    h.offline = true;
    return source_resolve(s, text, &h, NULL, ".", e);
}

Test(source, offline)
{
    source *s = NULL;
    pr_err e = {0};

    cr_assert_eq(chdir(test_dir_new()), 0);
    cr_expect_eq(offline(&s, "Qwen/QwQ-32B-GGUF", &e), PR_ENETWORK);
    write_file("qwq-32b-q4_k_m.gguf", "");
    write_file("qwq-32b-q8_0-00001-of-00002.gguf", "");
    write_file("qwq-32b-q8_0-00002-of-00002.gguf", "");
    write_file("qwq-32b-q6_k.gguf.part", "");
    write_file("other-q6_k.gguf", "");
    cr_assert_eq(offline(&s, "Qwen/QwQ-32B-GGUF", &e), PR_OK, "%s", e.msg);
    cr_expect_str_eq(s->file[0].name, "qwq-32b-q4_k_m.gguf");
    cr_expect(s->offline);
    source_free(s);
    cr_assert_eq(offline(&s, "Qwen/QwQ-32B-GGUF:q8_0", &e), PR_OK, "%s", e.msg);
    cr_expect_eq(s->n_files, 2);
    source_free(s);
    cr_expect_eq(offline(&s, "Qwen/QwQ-32B-GGUF:Q6_K", &e), PR_ENETWORK);
    write_file("QwQ-32B-Q4_K_M.gguf", "");
    cr_expect_eq(offline(&s, "Qwen/QwQ-32B-GGUF", &e), PR_EUSAGE);
    cr_assert_eq(offline(&s, "https://x.example/y/z-00003-of-00004.gguf", &e), PR_OK);
    cr_expect_eq(s->n_files, 4);
    cr_expect_str_eq(s->file[0].name, "z-00001-of-00004.gguf");
    source_free(s);
    cr_assert_eq(offline(&s, "a/b/c/d.gguf", &e), PR_OK);
    cr_expect_str_eq(s->file[0].name, "d.gguf");
    source_free(s);
    cr_assert_eq(chdir("/"), 0);
    test_dir_remove();
}

/* --- what a repository has
 * ----------------------------------------------------------------------------------- */
Test(source, models_of_a_repository)
{
    hub_entry e[] = {{"b-00002-of-00002.gguf", 20, "bb"}, {"a-Q8_0.gguf", 5, "aa"},
                     {"b-00001-of-00003.gguf", 1, ""},    {"b-00001-of-00002.gguf", 10, "b1"},
                     {"mmproj-F16.gguf", 3, ""},          {"d/b-00001-of-00002.gguf", 7, ""},
                     {"b-00001-of-00002.gguf", 10, "b1"}, {"b-00001-of-0002.gguf", 9, ""}};
    hub_tree t = {.entry = e, .n = sizeof e / sizeof *e};
    size_t n;
    source_model *m = source_models(&t, &n);

    cr_assert_eq(n, 6);
    cr_expect_str_eq(m[0].path, "a-Q8_0.gguf");
    cr_expect_str_eq(m[0].quant, "Q8_0");
    cr_expect_str_eq(m[0].sha256, "aa");
    cr_expect_eq(m[0].n_parts, 1);
    cr_expect_str_eq(m[1].path, "b-00001-of-00002.gguf");
    cr_expect_eq(m[1].bytes, 30); /* the part that is listed twice counts once */
    cr_expect_eq(m[1].n_parts, 2);
    cr_expect_eq(m[1].n_there, 2);
    cr_expect_str_eq(m[1].sha256, "");
    cr_expect_eq(m[2].n_parts, 3);
    cr_expect_eq(m[2].n_there, 1);
    cr_expect_str_eq(m[3].path, "b-00001-of-0002.gguf");
    cr_expect_str_eq(m[4].path, "d/b-00001-of-00002.gguf");
    cr_expect_eq(m[4].n_there, 1);
    cr_expect_str_eq(m[5].kind, "mmproj");
    free(m);
}
