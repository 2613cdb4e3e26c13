/* prima run with less memory than the model: the rest is read from disk in every pass, and the completions
 * are the same bytes. */
#include "tests/common/prima.h"
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MODEL   "datasets/demo/demo.gguf"
#define PROMPTS "datasets/demo-prompts.jsonl"

static void begin(void)
{
    test_dir_new();
    setenv("PRIMA_CACHE", in_dir("cache"), 1);
}

TestSuite(memory, .init = begin, .fini = test_dir_remove, .timeout = 120);

/* Runs with these options beside slots and threads, which decide how much is needed. */
static prima_result run(const char *out, const char *a, const char *b, const char *c, const char *d)
{
    const char *argv[24] = {"run", MODEL,       PROMPTS, "--slots", "2",        "--micro-batch",
                            "8",   "--threads", "2",     "-o",      in_dir(out)};
    const char *more[] = {a, b, c, d};
    size_t n = 11;

    for (size_t i = 0; i < 4; i++) {
        if (more[i]) argv[n++] = more[i];
    }
    return prima_run(NULL, argv);
}

static void same_completions(const char *a, const char *b)
{
    json_t *x = read_jsonl_sorted(in_dir(a), true), *y = read_jsonl_sorted(in_dir(b), true);

    cr_assert(json_equal(x, y));
    cr_assert_eq(json_array_size(x), 20);
    json_decref(x);
    json_decref(y);
}

Test(memory, what_does_not_fit_is_read_from_disk)
{
    prima_result r = run("all.jsonl", NULL, NULL, NULL, NULL);

    cr_assert_eq(r.status, 0, "%s", r.err);
    cr_assert_null(strstr(r.err, "read from disk"), "everything fits");
    r = run("streamed.jsonl", "--memory", "2300KiB", "--timings", in_dir("t.csv"));
    cr_assert_eq(r.status, 0, "%s", r.err);
    cr_assert_not_null(strstr(r.err, "read from disk in every pass"), "%s", r.err);
    same_completions("all.jsonl", "streamed.jsonl");
    cr_assert_neq(access(in_dir("cache/packs"), R_OK), -1, "packs are kept");
    r = run("mapped.jsonl", "--memory", "2300KiB", "--residency", "mapped");
    cr_assert_eq(r.status, 0, "%s", r.err);
    cr_assert_null(strstr(r.err, "packed"), "the pack is there already: %s", r.err);
    same_completions("all.jsonl", "mapped.jsonl");
    r = run("other.jsonl", "--memory", "2300KiB", "--pack-dir", in_dir("p"));
    cr_assert_eq(r.status, 0, "%s", r.err);
    cr_assert_neq(access(in_dir("p"), R_OK), -1);
    same_completions("all.jsonl", "other.jsonl");
}

/* disk_read_bytes of timings.devices.csv. */
static double bytes_read(const char *path)
{
    char *text = read_file(path), *line = strtok(text, "\n"), *next;
    double sum = 0;
    int column = 0;

    for (char *c = line; (next = strchr(c, ',')) && strncmp(c, "disk_read_bytes,", 16); c = next + 1)
        column++;
    while ((line = strtok(NULL, "\n"))) {
        for (int i = 0; i < column; i++) line = strchr(line, ',') + 1;
        sum += strtod(line, NULL);
    }
    free(text);
    return sum;
}

Test(memory, the_tables_say_what_was_read)
{
    prima_result r = run("a.jsonl", "--memory", "2300KiB", "--timings", in_dir("t.csv"));
    double read;

    cr_assert_eq(r.status, 0, "%s", r.err);
    read = bytes_read(in_dir("t.devices.csv"));
    cr_assert_gt(read, 392 * 100e3, "two sequences decode 784 tokens, so at least 392 passes: %g", read);
}

Test(memory, too_little_is_refused_with_what_is_missing)
{
    prima_result r = run("a.jsonl", "--memory", "1MiB", NULL, NULL);

    cr_assert_eq(r.status, 9, "%s", r.err);
    cr_assert_not_null(strstr(r.err, "missing"), "%s", r.err);
    cr_assert_null(strstr(r.err, "0.00 "), "a number that says nothing: %s", r.err);
    r = run("b.jsonl", "--memory", "2300KiB", "--residency", "resident");
    cr_assert_eq(r.status, 9, "%s", r.err);
    cr_assert_not_null(strstr(r.err, "needed, --memory is 2.2 MiB"), "%s", r.err);
    cr_assert_eq(access(in_dir("b.jsonl"), F_OK), -1, "nothing is written");
}

Test(memory, sizes_and_words_are_checked)
{
    prima_result r = run("a.jsonl", "--memory", "2G", NULL, NULL);

    cr_assert_eq(r.status, 2);
    cr_assert_not_null(strstr(r.err, "2GiB"), "%s", r.err);
    r = run("a.jsonl", "--residency", "somewhere", NULL, NULL);
    cr_assert_eq(r.status, 2);
    cr_assert_not_null(strstr(r.err, "mapped"), "%s", r.err);
}

Test(memory, a_pack_that_cannot_be_written)
{
    prima_result r;

    write_file(in_dir("file"), "in the way");
    r = run("a.jsonl", "--memory", "2300KiB", "--pack-dir", in_dir("file"));
    cr_assert_eq(r.status, 9, "%s", r.err);
    cr_assert_not_null(strstr(r.err, "file"), "%s", r.err);
}
