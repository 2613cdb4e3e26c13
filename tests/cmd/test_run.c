/* The main job, as a user runs it: `prima run` with the embedded demo model. What is compared is completions
 * of one way of running with those of another (rule 3), counts, exit codes and messages; what the model says
 * is not judged here. */
#include "tests/common/data.h"
#include "tests/common/prima.h"
#include <criterion/criterion.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <unistd.h>

#define MODEL    "datasets/demo/demo.gguf"
#define RUN(...) prima_run(NULL, (const char *[]){"run", __VA_ARGS__, NULL})

static void open_dir(void)
{
    test_dir_new();
}

TestSuite(run, .init = open_dir, .fini = test_dir_remove, .timeout = 300);

/* n requests of all sorts: plain and chat, greedy and sampled, short and long, with a shared beginning in
 * every third. */
static const char *make_prompts(const char *name, int n)
{
    const char *path = in_dir(name);
    FILE *f = fopen(path, "w");

    cr_assert_not_null(f);
    for (int i = 0; i < n; i++) {
        const char *shared =
            "You are a helpful assistant who answers in short and clear sentences, and who never guesses.";
        switch (i % 4) {
        case 0:
            fprintf(f,
                    "{\"id\":\"p%03d\",\"prompt\":\"Once upon a time there was a cat number "
                    "%d\",\"max_tokens\":%d}\n",
                    i, i, 8 + i % 40);
            break;
        case 1:
            fprintf(f,
                    "{\"custom_id\":\"p%03d\",\"method\":\"POST\",\"url\":\"/v1/chat/"
                    "completions\",\"body\":{\"messages\":"
                    "[{\"role\":\"system\",\"content\":\"%s\"},{\"role\":\"user\",\"content\":\"What is %d "
                    "plus %d?\"}],\"max_tokens\":24}}\n",
                    i, shared, i % 10, i % 7);
            break;
        case 2:
            fprintf(f,
                    "{\"id\":\"p%03d\",\"prompt\":\"%s The "
                    "dog\",\"max_tokens\":30,\"temperature\":0.8,\"top_p\":0.9,\"ignore_eos\":true}\n",
                    i, shared);
            break;
        default:
            fprintf(f,
                    "{\"id\":\"p%03d\",\"messages\":[{\"role\":\"user\",\"content\":\"%s Tell me about day "
                    "%d.\"}],\"max_tokens\":20,"
                    "\"temperature\":1,\"seed\":%d,\"logprobs\":true,\"top_logprobs\":2}\n",
                    i, shared, i, i);
        }
    }
    fclose(f);
    return path;
}

static void assert_same(const char *a, const char *b)
{
    json_t *x = read_jsonl_sorted(a, true), *y = read_jsonl_sorted(b, true);

    cr_assert_eq(json_array_size(x), json_array_size(y), "%s has %zu lines, %s has %zu", a,
                 json_array_size(x), b, json_array_size(y));
    for (size_t i = 0; i < json_array_size(x); i++) {
        char *p = json_dumps(json_array_get(x, i), 0), *q = json_dumps(json_array_get(y, i), 0);
        cr_assert_str_eq(p, q);
        free(p);
        free(q);
    }
    json_decref(x);
    json_decref(y);
}

/* --- rule 3 --------------------------------------------------------------------------------------------- */
Test(run, slots_threads_and_chunks_change_nothing)
{
    static const char *const ways[][3] = {
        {"1", "1", "256"}, {"4", "2", "32"}, {"16", "1", "16"}, {"16", "2", "512"}, {"3", "3", "7"}};
    const char *prompts = make_prompts("in.jsonl", 40);
    char out[5][512];

    for (int i = 0; i < 5; i++) {
        prima_result r;
        snprintf(out[i], sizeof out[i], "%s", in_dir((char[]){'o', (char)('0' + i), 0}));
        r = RUN(MODEL, prompts, "-o", out[i], "--slots", ways[i][0], "-t", ways[i][1], "--micro-batch",
                ways[i][2]);
        cr_assert_eq(r.status, 0, "%s", r.err);
        cr_assert_eq(count_lines(out[i]), 40);
        if (i) assert_same(out[0], out[i]);
    }
}

Test(run, two_halves_are_the_whole)
{
    const char *prompts = make_prompts("in.jsonl", 24), *a = in_dir("a.jsonl"), *b = in_dir("b.jsonl");
    char command[2048];

    snprintf(command, sizeof command,
             "cd %s/.. && cd %s && head -n 11 in.jsonl > a.jsonl && tail -n +12 in.jsonl > b.jsonl",
             in_dir(""), in_dir(""));
    cr_assert_eq(system(command), 0);
    cr_assert_eq(RUN(MODEL, prompts, "-o", in_dir("whole")).status, 0);
    cr_assert_eq(RUN(MODEL, a, "-o", in_dir("first")).status, 0);
    cr_assert_eq(RUN(MODEL, b, "-o", in_dir("second")).status, 0);
    json_t *whole = read_jsonl_sorted(in_dir("whole"), true),
           *first = read_jsonl_sorted(in_dir("first"), true),
           *second = read_jsonl_sorted(in_dir("second"), true);
    cr_assert_eq(json_array_extend(first, second), 0);
    for (size_t i = 0; i < 24; i++) {
        json_t *x = json_array_get(whole, i), *y = json_array_get(first, i);
        /* prima-RUN-N and request_id name the run: they differ between files. */
        if (json_object_get(x, "custom_id")) {
            json_object_del(x, "id");
            json_object_del(y, "id");
            json_object_del(json_object_get(x, "response"), "request_id");
            json_object_del(json_object_get(y, "response"), "request_id");
        }
        char *p = json_dumps(x, 0), *q = json_dumps(y, 0);
        cr_assert_str_eq(p, q);
        free(p);
        free(q);
    }
    json_decref(whole);
    json_decref(first);
    json_decref(second);
}

/* --- durability
 * --------------------------------------------------------------------------------------------- */
Test(run, killed_at_20_moments_and_resumed)
{
    const char *prompts = make_prompts("in.jsonl", 60), *out = in_dir("out"), *csv = in_dir("t.csv");
    const char *const again[] = {"run",     MODEL, prompts,     "-o", out, "--resume",
                                 "--slots", "4",   "--timings", csv,  NULL};
    const char *const first[] = {"run", MODEL, prompts, "-o", out, "--slots", "4", "--timings", csv, NULL};
    size_t killed = 0;
    prima_result r;

    cr_assert_eq(RUN(MODEL, prompts, "-o", in_dir("undisturbed")).status, 0);
    srand(11);
    for (int i = 0; i < 20; i++) {
        pid_t pid = prima_start(NULL, access(out, F_OK) == 0 ? again : first);
        usleep((useconds_t)(rand() % 120000));
        kill(pid, SIGKILL);
        killed += prima_wait(pid).status == 128 + SIGKILL;
    }
    r = prima_run(NULL, again);
    cr_assert_eq(r.status, 0, "%s", r.err);
    assert_same(in_dir("undisturbed"), out);
    cr_assert_geq(killed, 3, "only %zu runs were still alive when killed: the job is too short for this test",
                  killed);
}

Test(run, torn_last_line_is_kept_aside)
{
    const char *prompts = make_prompts("in.jsonl", 8);
    const char *out = in_dir("out");
    char *text;
    prima_result r;

    cr_assert_eq(RUN(MODEL, prompts, "-o", out).status, 0);
    text = read_file(out);
    cr_assert_eq(truncate(out, (off_t)strlen(text) - 20), 0);
    free(text);
    r = RUN(MODEL, prompts, "-o", out, "--resume");
    cr_assert_eq(r.status, 0, "%s", r.err);
    cr_assert_eq(count_lines(out), 8);
    free(read_file(in_dir("out.torn")));
}

Test(run, interrupt_saves_and_resume_goes_on)
{
    const char *prompts = make_prompts("in.jsonl", 400);
    static const int sig[] = {SIGINT, SIGTERM};

    cr_assert_eq(RUN(MODEL, prompts, "-o", in_dir("undisturbed")).status, 0);
    for (int i = 0; i < 2; i++) {
        const char *out = in_dir(i ? "term" : "int");
        pid_t pid =
            prima_start(NULL, (const char *[]){"run", MODEL, prompts, "-o", out, "--slots", "2", NULL});
        prima_result r;
        for (int wait = 0; wait < 500 && (access(out, F_OK) || count_lines(out) < 2); wait++) usleep(10000);
        kill(pid, sig[i]);
        r = prima_wait(pid);
        cr_assert_eq(r.status, i ? 143 : 130, "status %d: %s", r.status, r.err);
        cr_assert(strstr(r.err, "--resume"), "%s", r.err);
        cr_assert_lt(count_lines(out), 400);
        r = RUN(MODEL, prompts, "-o", out, "--resume");
        cr_assert_eq(r.status, 0, "%s", r.err);
        assert_same(in_dir("undisturbed"), out);
    }
}

/* A signal may come at any moment, also before the first pass: the status and what is on disk are always such
 * that --resume can go on. */
Test(run, interrupted_at_any_moment)
{
    const char *prompts = make_prompts("in.jsonl", 40), *undisturbed = in_dir("undisturbed");

    cr_assert_eq(RUN(MODEL, prompts, "-o", undisturbed).status, 0);
    for (int i = 0; i < 12; i++) {
        char name[16];
        const char *out;
        pid_t pid;
        prima_result r;

        snprintf(name, sizeof name, "out%d", i);
        out = in_dir(name);
        pid = prima_start(NULL, (const char *[]){"run", MODEL, prompts, "-o", out, "--grace", "0s", NULL});
        usleep(1000u + 3000u * (unsigned)i);
        kill(pid, SIGTERM);
        r = prima_wait(pid);
        cr_assert(r.status == 143 || r.status == 0, "status %d: %s", r.status, r.err);
        if (access(out, F_OK)) continue;
        r = RUN(MODEL, prompts, "-o", out, "--resume");
        cr_assert_eq(r.status, 0, "%s", r.err);
        assert_same(undisturbed, out);
    }
}

/* --- refusals
 * -------------------------------------------------------------------------------------------------- */
Test(run, refusals_have_their_exit_codes)
{
    const char *prompts = make_prompts("in.jsonl", 3), *out = in_dir("out");
    prima_result r;

    cr_assert_eq(RUN(MODEL, prompts, "-o", out).status, 0);
    r = RUN(MODEL, prompts, "-o", out);
    cr_assert_eq(r.status, 2, "an existing output is not overwritten");
    cr_assert(strstr(r.err, "--resume"), "%s", r.err);
    cr_assert_eq(RUN(MODEL, prompts, "-o", prompts).status, 2, "output == input");
    cr_assert_eq(RUN(MODEL, prompts, "-o", out, "--resume", "--seed", "9").status, 5, "another seed");
    write_file(in_dir("other.jsonl"), "{\"id\":\"p000\",\"prompt\":\"Something else\"}\n");
    cr_assert_eq(RUN(MODEL, in_dir("other.jsonl"), "-o", out, "--resume").status, 5, "another input");
    cr_assert_eq(RUN(MODEL, in_dir("absent.jsonl"), "-o", in_dir("x")).status, 9);
    cr_assert_eq(RUN(in_dir("absent.gguf"), prompts, "-o", in_dir("x")).status, 9);
    cr_assert_eq(RUN(prompts, prompts, "-o", in_dir("x")).status, 8, "a text file is no model");
    cr_assert_eq(RUN(MODEL, prompts, "--slots", "0").status, 2);
    cr_assert_eq(RUN(MODEL, prompts, "--no-such-option").status, 2);
    cr_assert_eq(RUN(MODEL).status, 2);
    cr_assert_eq(RUN(MODEL, prompts, "-o", in_dir("no/such/folder/out")).status, 9);
    write_file(in_dir("twice.jsonl"), "{\"id\":\"a\",\"prompt\":\"x\"}\n{\"id\":\"a\",\"prompt\":\"y\"}\n");
    r = RUN(MODEL, in_dir("twice.jsonl"), "-o", in_dir("x"));
    cr_assert_eq(r.status, 2, "duplicate ids");
    cr_assert_eq(access(in_dir("x"), F_OK), -1, "nothing is written by a refused run");
}

/* What fails before the first completion can be repeated as it was, mended, and without --resume. */
Test(run, a_failed_start_leaves_nothing_to_resume)
{
    static const char *const options[] = {"--timings", "--trace", "--metrics-file"};
    const char *prompts = make_prompts("in.jsonl", 3), *out = in_dir("out"), *bad = in_dir("no/such/f.csv");

    for (int i = 0; i < 3; i++) {
        prima_result r = RUN(MODEL, prompts, "-o", out, options[i], bad);
        cr_expect_eq(r.status, 9, "%s: %s", options[i], r.err);
        cr_expect(strstr(r.err, "no/such/f"), "%s", r.err);
        r = RUN(MODEL, prompts, "-o", out, options[i], in_dir("f.csv"));
        cr_expect_eq(r.status, 0, "%s: %s", options[i], r.err);
        cr_expect_eq(count_lines(out), 3);
        cr_assert_eq(unlink(out), 0);
    }
}

/* The prompts come by a pipe, which is opened when the model is open and nothing is loaded. */
static prima_result change_the_model(const char *model, off_t length, bool written)
{
    const char *pipe_path = in_dir("pipe"), *text = "{\"id\":\"a\",\"prompt\":\"x\",\"max_tokens\":2}\n";
    char command[1100];
    pid_t pid;
    int fd;

    snprintf(command, sizeof command, "cp %s '%s'", MODEL, model);
    cr_assert_eq(system(command), 0);
    cr_assert(!mkfifo(pipe_path, 0600));
    pid = prima_start(NULL, (const char *[]){"run", model, pipe_path, "-o", in_dir("out"), NULL});
    cr_assert_geq(fd = open(pipe_path, O_WRONLY), 0);
    if (length) cr_assert_eq(truncate(model, length), 0);
    if (written) cr_assert_eq(utimes(model, (const struct timeval[]){{1, 0}, {1, 0}}), 0);
    cr_assert_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    close(fd);
    unlink(pipe_path);
    return prima_wait(pid);
}

Test(run, a_model_that_becomes_shorter_is_named)
{
    prima_result r = change_the_model(in_dir("short.gguf"), 400000, false);

    cr_expect_eq(r.status, 8, "status %d: %s", r.status, r.err);
    cr_expect(strstr(r.err, "short.gguf: the file has become shorter"), "%s", r.err);
    r = change_the_model(in_dir("long.gguf"), 4000000, false);
    cr_expect_eq(r.status, 8, "status %d: %s", r.status, r.err);
    cr_expect(strstr(r.err, "long.gguf: it was written to"), "%s", r.err);
    r = change_the_model(in_dir("other.gguf"), 0, true);
    cr_expect_eq(r.status, 8, "status %d: %s", r.status, r.err);
    cr_expect(strstr(r.err, "other.gguf: it was written to"), "%s", r.err);
    r = change_the_model(in_dir("same.gguf"), 0, false);
    cr_expect_eq(r.status, 0, "status %d: %s", r.status, r.err);
}

/* weights-nan.gguf is a valid file, some of its weights are NaN: completions would be made of nothing. */
Test(run, logits_that_are_no_numbers_are_an_error)
{
    const char *model = test_data("broken/weights-nan.gguf"), *out = in_dir("out");
    json_t *lines;
    prima_result r;

    write_file(in_dir("in.jsonl"), "{\"id\":\"a\",\"prompt\":\"x\",\"max_tokens\":4}\n"
                                   "{\"id\":\"b\",\"prompt\":\"x y\",\"max_tokens\":4,\"temperature\":1}\n"
                                   "{\"id\":\"c\",\"prompt\":\"x\",\"max_tokens\":4}\n");
    r = RUN(model, in_dir("in.jsonl"), "-o", out, "--slots", "2");
    cr_assert_eq(r.status, 3, "status %d: %s", r.status, r.err);
    lines = read_jsonl_sorted(out, true);
    cr_assert_eq(json_array_size(lines), 3);
    for (size_t i = 0; i < 3; i++) {
        const json_t *error = json_object_get(json_array_get(lines, i), "error");
        cr_assert_str_eq(json_string_value(json_object_get(error, "code")), "internal");
        cr_assert(strstr(json_string_value(json_object_get(error, "message")), "NaN"));
    }
    json_decref(lines);
}

/* A file size limit stands for the full disk: write(2) fails with EFBIG instead of ENOSPC. */
Test(run, a_full_disk_loses_nothing)
{
    const char *prompts = make_prompts("in.jsonl", 30), *out = in_dir("out");
    struct rlimit small = {6000, RLIM_INFINITY}, all = {RLIM_INFINITY, RLIM_INFINITY};
    prima_result r;

    cr_assert_eq(RUN(MODEL, prompts, "-o", in_dir("undisturbed")).status, 0);
    cr_assert_eq(setrlimit(RLIMIT_FSIZE, &small), 0);
    r = RUN(MODEL, prompts, "-o", out);
    cr_assert_eq(setrlimit(RLIMIT_FSIZE, &all), 0);
    cr_assert_eq(r.status, 9, "status %d: %s", r.status, r.err);
    cr_assert_geq(count_lines(out), 1);
    json_decref(read_jsonl_sorted(out, true));
    r = RUN(MODEL, prompts, "-o", out, "--resume");
    cr_assert_eq(r.status, 0, "%s", r.err);
    assert_same(in_dir("undisturbed"), out);
}

/* --- outputs
 * ------------------------------------------------------------------------------------------------------ */
Test(run, ordered_output_and_standard_output)
{
    const char *prompts = make_prompts("in.jsonl", 20);
    char *text, *at;
    prima_result r = prima_run(in_dir("stdout"), (const char *[]){"run", MODEL, prompts, "--ordered", NULL});

    cr_assert_eq(r.status, 0, "%s", r.err);
    at = text = read_file(in_dir("stdout"));
    for (int i = 0; i < 20; i++) {
        char id[16];
        snprintf(id, sizeof id, "\"p%03d\"", i);
        char *line = at;
        at = strchr(at, '\n') + 1;
        at[-1] = 0;
        cr_assert(strstr(line, id), "line %d is %s", i + 1, line);
    }
    free(text);
}

Test(run, bad_lines_are_answered_and_the_rest_runs)
{
    json_t *v;
    prima_result r;

    write_file(in_dir("in.jsonl"), "{\"id\":\"good\",\"prompt\":\"Hi\",\"max_tokens\":2}\n"
                                   "not json\n"
                                   "\n"
                                   "{\"id\":\"none\"}\n"
                                   "{\"id\":\"hot\",\"prompt\":\"x\",\"temperature\":-1}\n"
                                   "{\"id\":\"what\",\"prompt\":\"x\",\"max_tokenz\":3}\n");
    r = RUN(MODEL, in_dir("in.jsonl"), "-o", in_dir("out"), "--timings", in_dir("t.csv"));
    cr_assert_eq(r.status, 3, "%s", r.err);
    v = read_jsonl_sorted(in_dir("out"), true);
    cr_assert_eq(json_array_size(v), 5);
    cr_assert(json_is_null(json_object_get(json_array_get(v, 0), "error")));
    for (size_t i = 1; i < 5; i++) {
        const json_t *e = json_object_get(json_array_get(v, i), "error");
        cr_assert(json_is_string(json_object_get(e, "code")) && json_is_integer(json_object_get(e, "line")));
    }
    cr_assert_eq(json_integer_value(json_object_get(json_object_get(json_array_get(v, 2), "error"), "line")),
                 2);
    json_decref(v);
    cr_assert_eq(count_lines(in_dir("t.csv")), 6);
    cr_assert_eq(RUN(MODEL, in_dir("in.jsonl"), "-o", in_dir("y"), "--strict-input").status, 2);
    cr_assert_eq(RUN(MODEL, in_dir("in.jsonl"), "--dry-run").status, 3);
}

Test(run, stop_strings_end_before_the_match)
{
    json_t *free_run, *stopped;
    const char *text, *stop_text;
    char line[512], word[8] = {0};

    write_file(in_dir("a.jsonl"),
               "{\"id\":\"a\",\"prompt\":\"Once upon a time\",\"max_tokens\":40,\"ignore_eos\":true}\n");
    cr_assert_eq(RUN(MODEL, in_dir("a.jsonl"), "-o", in_dir("a")).status, 0);
    free_run = read_jsonl_sorted(in_dir("a"), true);
    text = json_string_value(json_object_get(json_array_get(free_run, 0), "text"));
    cr_assert_gt(strlen(text), 30);
    memcpy(word, text + 17, 4);
    cr_assert_null(strpbrk(word, "\"\\\n"));
    snprintf(line, sizeof line,
             "{\"id\":\"a\",\"prompt\":\"Once upon a "
             "time\",\"max_tokens\":40,\"ignore_eos\":true,\"stop\":[\"%s\"]}\n",
             word);
    write_file(in_dir("b.jsonl"), line);
    cr_assert_eq(RUN(MODEL, in_dir("b.jsonl"), "-o", in_dir("b")).status, 0);
    stopped = read_jsonl_sorted(in_dir("b"), true);
    stop_text = json_string_value(json_object_get(json_array_get(stopped, 0), "text"));
    cr_assert_eq(strlen(stop_text), (size_t)(strstr(text, word) - text));
    cr_assert_eq(strncmp(text, stop_text, strlen(stop_text)), 0);
    cr_assert_str_eq(json_string_value(json_object_get(json_array_get(stopped, 0), "finish_reason")), "stop");
    cr_assert_str_eq(json_string_value(json_object_get(json_array_get(stopped, 0), "stop_reason")), word);
    json_decref(free_run);
    json_decref(stopped);
}

Test(run, memory_is_flat)
{
    if (prima_is_sanitized()) cr_skip_test("memory is not measured under AddressSanitizer");
    const char *few = make_prompts("few.jsonl", 100), *many = make_prompts("many.jsonl", 999);
    prima_result a = RUN(MODEL, few, "-o", in_dir("a"), "--max-tokens", "4"),
                 b = RUN(MODEL, many, "-o", in_dir("b"), "--max-tokens", "4");

    cr_assert_eq(a.status, 0, "%s", a.err);
    cr_assert_eq(b.status, 0, "%s", b.err);
    /* 900 requests more: a small record each, 4 KiB at most. */
    cr_assert_leq(b.rss_peak_kib, a.rss_peak_kib + 4 * 900, "%ld KiB became %ld KiB", a.rss_peak_kib,
                  b.rss_peak_kib);
}

/* --- what the model says
 * ---------------------------------------------------------------------------------------------- */
/* Greedy stories of the trained test model are the oracle's, up to the first step that is decided by less
 * than 0.01. */
Test(run, greedy_stories_of_the_oracle)
{
    json_t *all = test_data_json("stories/greedy.json"), *e, *got;
    const char *model = test_data("models/stories260K.gguf");
    FILE *f = fopen(in_dir("in.jsonl"), "w");
    size_t i, n = 0, compared = 0;

    json_array_foreach(all, i, e)
    {
        char *prompt;
        if (strcmp(json_string_value(json_object_get(e, "model")), "stories260K.gguf")) continue;
        prompt = json_dumps(json_object_get(e, "prompt"), JSON_ENCODE_ANY);
        fprintf(f, "{\"id\":\"s%02zu\",\"prompt\":%s,\"max_tokens\":%zu}\n", n++, prompt,
                json_array_size(json_object_get(e, "greedy")));
        free(prompt);
    }
    fclose(f);
    cr_assert_eq(prima_run(NULL, (const char *[]){"run", model, in_dir("in.jsonl"), "-o", in_dir("out"),
                                                  "--kv-type", "f32", NULL})
                     .status,
                 0);
    got = read_jsonl_sorted(in_dir("out"), true);
    n = 0;
    json_array_foreach(all, i, e)
    {
        const json_t *margin = json_object_get(e, "greedy_margin");
        size_t steps = json_array_size(margin);
        bool doubtful = false;
        if (strcmp(json_string_value(json_object_get(e, "model")), "stories260K.gguf")) continue;
        for (size_t k = 0; k < steps; k++) doubtful |= json_number_value(json_array_get(margin, k)) < 0.002;
        const char *text = json_string_value(json_object_get(json_array_get(got, n++), "text"));
        const char *want = json_string_value(json_object_get(e, "text"));
        if (doubtful) continue;
        cr_assert_str_eq(text, want);
        compared++;
    }
    cr_assert_geq(compared, 4);
    json_decref(all);
    json_decref(got);
}

/* --- a whole night's file
 * ------------------------------------------------------------------------------------------- */
static const json_t *answer_to(const json_t *answers, const char *id)
{
    const json_t *v;
    size_t i;

    json_array_foreach(answers, i, v)
    {
        const char *custom = json_string_value(json_object_get(v, "custom_id"));
        if (strcmp(custom ? custom : json_string_value(json_object_get(v, "id")), id) == 0) return v;
    }
    cr_assert_fail("no answer to %s", id);
    return NULL;
}

/* tests/run/make_bad_lines.py says which lines are bad and how each must be answered. */
Test(run, two_thousand_lines_fifty_of_them_bad)
{
    json_t *want, *got, *b;
    char command[2048];
    size_t i, n_ok = 0;
    prima_result r, few;

    snprintf(command, sizeof command,
             "python3 tests/run/make_bad_lines.py '%s' '%s' && head -n 1000 '%s' > '%s'", in_dir("in.jsonl"),
             in_dir("want.json"), in_dir("in.jsonl"), in_dir("few.jsonl"));
    cr_assert_eq(system(command), 0);
    few = RUN(MODEL, in_dir("few.jsonl"), "-o", in_dir("few"));
    r = RUN(MODEL, in_dir("in.jsonl"), "-o", in_dir("out"), "--timings", in_dir("t.csv"));
    cr_assert_eq(r.status, 3, "status %d: %s", r.status, r.err);
    want = json_load_file(in_dir("want.json"), 0, NULL);
    got = read_jsonl_sorted(in_dir("out"), true);
    cr_assert_eq(json_array_size(got), 2000);
    json_array_foreach(got, i, b) n_ok += json_is_null(json_object_get(b, "error"));
    cr_assert_eq(n_ok, 1950);
    cr_assert_eq(json_array_size(json_object_get(want, "bad")), 50);
    json_array_foreach(json_object_get(want, "bad"), i, b)
    {
        const json_t *e =
            json_object_get(answer_to(got, json_string_value(json_object_get(b, "id"))), "error");
        cr_assert_str_eq(json_string_value(json_object_get(e, "code")),
                         json_string_value(json_object_get(b, "code")));
        cr_assert(json_equal(json_object_get(e, "line"), json_object_get(b, "line")));
    }
    cr_assert_eq(count_lines(in_dir("t.csv")), 2001);
    /* Flat: the second thousand lines cost a small record each; KV pages and buffers have all been touched by
     * then. */
    if (!prima_is_sanitized())
        cr_assert_leq(r.rss_peak_kib, few.rss_peak_kib + 2 * 1000, "%ld KiB became %ld KiB", few.rss_peak_kib,
                      r.rss_peak_kib);
    json_decref(want);
    json_decref(got);
}
