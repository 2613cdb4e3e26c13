/* The completions file: the shapes byte for byte, resuming, ordering, and what is left when writing fails. */
#include "src/base/utf8.h"
#include "src/run/output.h"
#include "src/run/text.h"
#include "tests/common/prima.h"
#include "tests/common/tiny_vocab.h"
#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

static tiny_vocab tiny;
static prompts *input;
static output_options options;

static const char *const lines_of_input[] = {
    "{\"id\":\"a\",\"prompt\":\"x\",\"metadata\":{\"src\":\"y\",\"n\":0.1}}",
    "{\"custom_id\":\"b\",\"method\":\"POST\",\"url\":\"/v1/chat/"
    "completions\",\"body\":{\"messages\":[{\"role\":\"user\","
    "\"content\":\"Hi\"}]}}",
    "{\"custom_id\":\"c\",\"method\":\"POST\",\"url\":\"/v1/completions\",\"body\":{\"prompt\":\"x\"}}",
    "{\"id\":\"d\",\"prompt\":\"x\",\"temperature\":-1}",
    "{\"custom_id\":\"e\",\"method\":\"POST\",\"url\":\"/v1/completions\",\"body\":{\"prompt\":\"x\",\"n\":3,"
    "\"metadata\":{\"k\":\"v\"}}}",
    "{\"id\":\"f\",\"prompt\":\"x\",\"logprobs\":2}",
    "{\"custom_id\":\"g\",\"method\":\"POST\",\"url\":\"/v1/chat/"
    "completions\",\"body\":{\"messages\":[{\"role\":\"user\","
    "\"content\":\"Hi\"}],\"logprobs\":true,\"top_logprobs\":2}}",
    "{\"id\":\"h\",\"prompt\":\"x\",\"logprobs\":true}",
};
enum { A, B, C, D, E, F, G, H, N_LINES };

static void write_input(size_t n)
{
    FILE *f = fopen(in_dir("in.jsonl"), "w");
    for (size_t i = 0; i < n; i++) fprintf(f, "%s\n", lines_of_input[i]);
    fclose(f);
}

static void open_input(void)
{
    prompts_options po = {.vocab = tiny.v, .chat = CHAT_CHATML, .n_ctx = 1000, .seed = 7};
    pr_err err = {0};
    prompts_close(input);
    cr_assert_eq(prompts_open(&input, in_dir("in.jsonl"), &po, &err), PR_OK, "%s", err.msg);
}

static void setup(void)
{
    static char in[512], out[512];
    test_dir_new();
    tiny = tiny_vocab_new(true, false);
    write_input(N_LINES);
    open_input();
    snprintf(in, sizeof in, "%s", in_dir("in.jsonl"));
    snprintf(out, sizeof out, "%s", in_dir("out.jsonl"));
    options = (output_options){.path = out,
                               .input_path = in,
                               .model_name = "tiny \xff",
                               .manifest = json_pack("{s:s,s:{s:i,s:f}}", "model_sha256", "abc", "options",
                                                     "ctx", 4096, "temperature", 0.1),
                               .vocab = tiny.v};
}

static void teardown(void)
{
    json_decref(options.manifest);
    prompts_close(input);
    tiny_vocab_free(&tiny);
    test_dir_remove();
}

TestSuite(output, .init = setup, .fini = teardown, .timeout = 60);

static output *open_output(void)
{
    output *o = NULL;
    pr_err err = {0};
    cr_assert_eq(output_open(&o, &options, input, &err), PR_OK, "%s", err.msg);
    return o;
}

static int open_fails(pr_err *err)
{
    output *o = NULL;
    *err = (pr_err){0};
    int rc = output_open(&o, &options, input, err);
    cr_assert_neq(rc, PR_OK);
    return rc;
}

static void close_output(output *o)
{
    pr_err err = {0};
    cr_assert_eq(output_close(o, &err), PR_OK, "%s", err.msg);
}

/* 2 ms in the queue, 4 ms to the first token, then 4 tokens in 2 ms each. */
static request_times times_of(void)
{
    return (request_times){.run_start_ns = 1000000000,
                           .eligible_ns = 1001000000,
                           .admitted_ns = 1003000000,
                           .first_token_ns = 1007000000,
                           .last_token_ns = 1015000000,
                           .prompt_tokens = 9,
                           .cached_prompt_tokens = 1,
                           .completion_tokens = 5};
}
#define TIMINGS                                                                                              \
    "{\"queue_ms\":2.0,\"ttft_ms\":4.0,\"tpot_ms\":2.0,\"e2e_ms\":12.0,\"prefill_tps\":2000.0,\"decode_"     \
    "tps\":500.0}"
#define USAGE "{\"prompt_tokens\":9,\"completion_tokens\":5,\"total_tokens\":14}"

static int add(output *o, size_t index, completion c, pr_err *err)
{
    request r;
    request_times t = times_of();
    int rc = prompts_get(input, index, &r, err);
    cr_assert_eq(rc, PR_OK);
    rc = r.error.code ? output_error(o, &r, err) : output_completion(o, &r, &c, &t, err);
    request_clear(&r);
    return rc;
}

static completion text(const char *s)
{
    return (completion){.text = s, .text_len = strlen(s), .finish_reason = "length", .stop_token = -1};
}

static void must_add(output *o, size_t index)
{
    pr_err err = {0};
    cr_assert_eq(add(o, index, text("hello"), &err), PR_OK, "%s", err.msg);
}

static void sha_of(size_t index, char hex[65])
{
    prompts_line_sha256(input, index, hex);
}

/* The whole output file must be this. */
static void expect_file(const char *expected)
{
    char *found = read_file(options.path);
    cr_expect_str_eq(found, expected, "\nfound:    %s\nexpected: %s", found, expected);
    free(found);
}

/* The ids of the lines, one letter each. */
static void expect_ids(const char *expected)
{
    char *found = read_file(options.path), ids[64] = "";
    for (char *line = strtok(found, "\n"); line; line = strtok(NULL, "\n")) {
        json_t *v = json_loads(line, 0, NULL);
        const char *id;
        cr_assert_not_null(v, "%s", line);
        id = json_string_value(json_object_get(v, "custom_id"));
        strcat(ids, id ? id : json_string_value(json_object_get(v, "id")));
        json_decref(v);
    }
    cr_expect_str_eq(ids, expected);
    free(found);
}

/* --- shapes ------------------------------------------------------------------------------------ */

Test(output, plain_completion)
{
    output *o = open_output();
    completion c = text("say \"hi\"\n");
    char sha[65], line[2000];
    pr_err err = {0};
    c.finish_reason = "stop";
    c.stop_string = "##";
    cr_assert_eq(add(o, A, c, &err), PR_OK);
    cr_expect(output_done(o, A));
    cr_expect_not(output_done(o, B));
    close_output(o);
    sha_of(A, sha);
    snprintf(
        line, sizeof line,
        "{\"id\":\"a\",\"text\":\"say "
        "\\\"hi\\\"\\n\",\"finish_reason\":\"stop\",\"stop_reason\":\"##\",\"usage\":" USAGE
        ",\"input_sha256\":\"%s\",\"metadata\":{\"src\":\"y\",\"n\":0.1},\"error\":null,\"timings\":" TIMINGS
        "}\n",
        sha);
    expect_file(line);
}

Test(output, openai_chat_completion)
{
    output *o;
    completion c = text("hi");
    char sha[65], line[2000], id[32];
    pr_err err = {0};
    options.created_s = 1700000000;
    o = open_output();
    c.finish_reason = "stop";
    c.stop_token = 2;
    cr_assert_eq(add(o, B, c, &err), PR_OK);
    snprintf(id, sizeof id, "%s", output_run_id(o));
    cr_expect_eq(strspn(id, "0123456789abcdef"), 12);
    close_output(o);
    sha_of(B, sha);
    snprintf(line, sizeof line,
             "{\"id\":\"prima-%s-1\",\"custom_id\":\"b\",\"response\":{\"status_code\":200,\"request_id\":"
             "\"req-%s-1\",\"body\":{"
             "\"object\":\"chat.completion\",\"created\":1700000000,\"model\":\"tiny "
             "\xEF\xBF\xBD\",\"choices\":[{\"index\":0,"
             "\"message\":{\"role\":\"assistant\",\"content\":\"hi\"},\"logprobs\":null,\"finish_reason\":"
             "\"stop\"}],\"usage\":" USAGE
             "}},\"error\":null,\"prima\":{\"input_sha256\":\"%s\",\"stop_reason\":2,\"timings\":" TIMINGS
             "}}\n",
             id, id, sha);
    expect_file(line);
}

Test(output, openai_text_completion)
{
    output *o = open_output();
    char sha[65], line[2000], id[32];
    must_add(o, C);
    snprintf(id, sizeof id, "%s", output_run_id(o));
    close_output(o);
    sha_of(C, sha);
    snprintf(line, sizeof line,
             "{\"id\":\"prima-%s-2\",\"custom_id\":\"c\",\"response\":{\"status_code\":200,\"request_id\":"
             "\"req-%s-2\",\"body\":{"
             "\"object\":\"text_completion\",\"created\":0,\"model\":\"tiny "
             "\xEF\xBF\xBD\",\"choices\":[{\"index\":0,\"text\":"
             "\"hello\",\"logprobs\":null,\"finish_reason\":\"length\"}],\"usage\":" USAGE
             "}},\"error\":null,\"prima\":{\"input_sha256\":\"%s\",\"stop_reason\":null,\"timings\":" TIMINGS
             "}}\n",
             id, id, sha);
    expect_file(line);
}

Test(output, errors_in_both_shapes)
{
    output *o = open_output();
    char sha_d[65], sha_e[65], line[4000], id[32];
    must_add(o, D);
    must_add(o, E);
    cr_expect_eq(output_count_failed(o), 2);
    snprintf(id, sizeof id, "%s", output_run_id(o));
    close_output(o);
    sha_of(D, sha_d);
    sha_of(E, sha_e);
    snprintf(line, sizeof line,
             "{\"id\":\"d\",\"text\":null,\"finish_reason\":null,\"stop_reason\":null,\"usage\":null,\"input_"
             "sha256\":\"%s\","
             "\"error\":{\"code\":\"invalid_value\",\"message\":\"temperature must be a number from 0 to "
             "100, found -1\",\"param\":"
             "\"temperature\",\"line\":4},\"timings\":null}\n"
             "{\"id\":\"prima-%s-4\",\"custom_id\":\"e\",\"response\":null,\"error\":{\"code\":\"unsupported_"
             "parameter\",\"message\":"
             "\"n is not supported (accepted is only 1, which changes nothing); remove "
             "it\",\"param\":\"n\",\"line\":5},\"prima\":{"
             "\"input_sha256\":\"%s\",\"stop_reason\":null,\"metadata\":{\"k\":\"v\"},\"timings\":null}}\n",
             sha_d, id, sha_e);
    expect_file(line);
}

/* Expected: what Python's bytes.decode("utf-8", "replace") gives. */
static const struct {
    const char *bytes, *repaired;
} broken[] = {
    {"caf\xC3", "caf\xEF\xBF\xBD"},
    {"\xE2\x82", "\xEF\xBF\xBD"},
    {"\xF0\x9F\x98", "\xEF\xBF\xBD"},
    {"\xE2\x28\xA1", "\xEF\xBF\xBD(\xEF\xBF\xBD"},
    {"\xC0\xAF", "\xEF\xBF\xBD\xEF\xBF\xBD"},
    {"\xED\xA0\x80", "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD"},
    {"\xF4\x90\x80\x80", "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD"},
    {"a\x80\xFF z", "a\xEF\xBF\xBD\xEF\xBF\xBD z"},
    {"\xF0\x9F\x98\x80 \xE2\x82\xAC \xC3\xA9", "\xF0\x9F\x98\x80 \xE2\x82\xAC \xC3\xA9"},
    {"\xF1\x80\x80\xE1\x80\xC2", "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD"},
};

Test(output, bytes_that_are_not_utf8_become_replacement_characters)
{
    for (size_t i = 0; i < sizeof broken / sizeof *broken; i++) {
        size_t n;
        char *s = text_repair(broken[i].bytes, strlen(broken[i].bytes), &n);
        cr_expect_str_eq(s, broken[i].repaired, "case %zu", i);
        cr_expect_eq(n, strlen(broken[i].repaired));
        cr_expect_eq(utf8_valid(s, n), n);
        free(s);
    }
    output *o = open_output();
    pr_err err = {0};
    cr_assert_eq(add(o, A, text("caf\xC3"), &err), PR_OK);
    close_output(o);
    char *file = read_file(options.path);
    cr_expect_not_null(strstr(file, "\"text\":\"caf\xEF\xBF\xBD\""));
    free(file);
}

Test(output, nul_in_a_completion)
{
    output *o = open_output();
    completion c = {.text = "a\0b", .text_len = 3, .finish_reason = "length", .stop_token = -1};
    pr_err err = {0};
    cr_assert_eq(add(o, A, c, &err), PR_OK);
    close_output(o);
    char *file = read_file(options.path);
    cr_expect_not_null(strstr(file, "\"text\":\"a\\u0000b\""));
    free(file);
}

/* --- log-probabilities --------------------------------------------------------------------------- */

static const sample_candidate top_a[] = {{TINY_BYTE + 'h', -0.5f}, {TINY_BYTE + 0xE2, -1.25f}};
static const sample_candidate top_b[] = {{TINY_EOS, -0.25f}, {TINY_BLANK, -INFINITY}};
static const token_logprob two_tokens[] = {
    {"h", 1, -0.5f, top_a, 2},
    {"\xE2\x82", 2, -2.0625f, top_b, 2},
};

static char *line_with_logprobs(size_t index)
{
    output *o = open_output();
    completion c = text("h\xE2\x82");
    pr_err err = {0};
    c.logprob = two_tokens;
    c.n_logprob = 2;
    cr_assert_eq(add(o, index, c, &err), PR_OK, "%s", err.msg);
    close_output(o);
    return read_file(options.path);
}

static void expect_contains(char *line, const char *part)
{
    cr_expect(strstr(line, part), "%s\nis not in\n%s", part, line);
    free(line);
}

Test(output, logprobs_of_a_chat)
{
    expect_contains(
        line_with_logprobs(G),
        "\"logprobs\":{\"content\":[{\"token\":\"h\",\"logprob\":-0.5,\"bytes\":[104],\"top_logprobs\":[{"
        "\"token\":\"h\","
        "\"logprob\":-0.5,\"bytes\":[104]},{\"token\":\"\xEF\xBF\xBD\",\"logprob\":-1.25,\"bytes\":[226]}]},"
        "{\"token\":\"\xEF\xBF\xBD\",\"logprob\":-2.0625,\"bytes\":[226,130],\"top_logprobs\":[{\"token\":\"<"
        "/s>\","
        "\"logprob\":-0.25,\"bytes\":[60,47,115,62]},{\"token\":\" "
        "\",\"logprob\":-9999.0,\"bytes\":[32]}]}]},"
        "\"finish_reason\"");
}

Test(output, logprobs_of_a_prompt)
{
    expect_contains(line_with_logprobs(F),
                    "\"logprobs\":{\"tokens\":[\"h\",\"bytes:\\\\xe2\\\\x82\"],\"token_logprobs\":[-0.5,-2."
                    "0625],\"top_logprobs\":["
                    "{\"h\":-0.5,\"bytes:\\\\xe2\":-1.25},{\"</s>\":-0.25,\" \":-9999.0}]},\"input_sha256\"");
}

Test(output, of_two_tokens_with_the_same_text_the_better_is_named)
{
    /* The blank of SPM and the byte 0x20 both read " "; JSON keys must be unique. */
    static const sample_candidate blanks[] = {{TINY_BLANK, -0.5f}, {TINY_BYTE + ' ', -1.5f}};
    static const token_logprob one_token[] = {{" ", 1, -0.5f, blanks, 2}};
    output *o = open_output();
    completion c = text(" ");
    pr_err err = {0};
    c.logprob = one_token;
    c.n_logprob = 1;
    cr_assert_eq(add(o, F, c, &err), PR_OK, "%s", err.msg);
    close_output(o);
    expect_contains(read_file(options.path), "\"top_logprobs\":[{\" \":-0.5}]}");
}

Test(output, logprobs_without_alternatives)
{
    expect_contains(line_with_logprobs(H), "\"token_logprobs\":[-0.5,-2.0625],\"top_logprobs\":null}");
}

Test(output, logprobs_nobody_asked_for_are_not_written)
{
    char *line = line_with_logprobs(A);
    cr_expect_null(strstr(line, "logprob"));
    free(line);
}

/* --- figures ------------------------------------------------------------------------------------- */

Test(output, rates)
{
    request_times t = times_of();
    request_rates r = request_rates_of(&t);
    cr_expect_float_eq(r.start_ms, 3, 1e-9);
    cr_expect_float_eq(r.queue_ms, 2, 1e-9);
    cr_expect_float_eq(r.ttft_ms, 4, 1e-9);
    cr_expect_float_eq(r.tpot_ms, 2, 1e-9);
    cr_expect_float_eq(r.e2e_ms, 12, 1e-9);
    cr_expect_float_eq(r.prefill_tps, 2000, 1e-6, "8 tokens computed in 4 ms");
    cr_expect_float_eq(r.decode_tps, 500, 1e-6);
    t.completion_tokens = 1;
    t.last_token_ns = t.first_token_ns;
    r = request_rates_of(&t);
    cr_expect(isnan(r.tpot_ms) && isnan(r.decode_tps), "one token: no gap");
    cr_expect_float_eq(r.e2e_ms, 4, 1e-9);
    t = (request_times){.run_start_ns = 5};
    r = request_rates_of(&t);
    cr_expect(isnan(r.start_ms) && isnan(r.queue_ms) && isnan(r.ttft_ms) && isnan(r.e2e_ms) &&
              isnan(r.prefill_tps));
}

Test(output, figures_that_do_not_apply_are_null)
{
    output *o = open_output();
    request r;
    request_times t = times_of();
    completion c = text("x");
    pr_err err = {0};
    t.completion_tokens = 1;
    t.last_token_ns = t.first_token_ns;
    cr_assert_eq(prompts_get(input, A, &r, &err), PR_OK);
    cr_assert_eq(output_completion(o, &r, &c, &t, &err), PR_OK);
    request_clear(&r);
    close_output(o);
    expect_contains(read_file(options.path), "\"timings\":{\"queue_ms\":2.0,\"ttft_ms\":4.0,\"tpot_ms\":null,"
                                             "\"e2e_ms\":4.0,\"prefill_tps\":2000.0,"
                                             "\"decode_tps\":null}}");
}

/* --- resuming ------------------------------------------------------------------------------------ */

Test(output, resume_goes_on_where_it_was)
{
    output *o = open_output();
    char id[32];
    snprintf(id, sizeof id, "%s", output_run_id(o));
    must_add(o, C);
    must_add(o, D);
    close_output(o);
    options.resume = true;
    o = open_output();
    cr_expect_str_eq(output_run_id(o), id);
    for (size_t i = 0; i < N_LINES; i++) cr_expect_eq(output_done(o, i), i == C || i == D, "%zu", i);
    cr_expect_eq(output_count_ok(o), 1);
    cr_expect_eq(output_count_failed(o), 1);
    must_add(o, A);
    cr_expect_eq(output_count_ok(o), 2);
    close_output(o);
    expect_ids("cda");
}

Test(output, resume_without_a_file_starts_one)
{
    options.resume = true;
    output *o = open_output();
    must_add(o, A);
    close_output(o);
    expect_ids("a");
}

Test(output, resume_of_a_run_that_was_stopped_before_its_first_line)
{
    output *o = open_output();
    close_output(o);
    options.resume = true;
    o = open_output();
    close_output(o);
    cr_assert_eq(unlink(in_dir("out.jsonl.manifest.json")), 0);
    o = open_output();
    close_output(o);
    cr_expect_eq(access(in_dir("out.jsonl.manifest.json"), F_OK), 0);
}

/* Nothing would be lost, so nothing is asked: also not whether it is the same run. */
Test(output, an_empty_file_is_begun_anew)
{
    output *o = open_output();
    char id[32];

    snprintf(id, sizeof id, "%s", output_run_id(o));
    close_output(o);
    cr_assert_eq(json_object_set_new(options.manifest, "isa", json_string("another")), 0);
    o = open_output();
    cr_expect_str_neq(output_run_id(o), id);
    must_add(o, A);
    close_output(o);
    expect_ids("a");
    pr_err err;
    cr_expect_eq(open_fails(&err), PR_EUSAGE, "now it has a line");
}

Test(output, retry_errors_tries_again_and_the_later_line_counts)
{
    output *o = open_output();
    request r;
    pr_err err = {0};
    must_add(o, A);
    must_add(o, D);
    /* B fails for once. */
    cr_assert_eq(prompts_get(input, B, &r, &err), PR_OK);
    r.error.code = REQ_INTERNAL;
    cr_assert_eq(output_error(o, &r, &err), PR_OK);
    request_clear(&r);
    close_output(o);

    options.resume = options.retry_errors = true;
    o = open_output();
    cr_expect(output_done(o, A) && !output_done(o, B) && !output_done(o, D));
    cr_expect_eq(output_count_failed(o), 0);
    must_add(o, B);
    must_add(o, D);
    cr_expect(output_done(o, D));
    cr_expect_eq(output_count_ok(o), 2);
    cr_expect_eq(output_count_failed(o), 1);
    close_output(o);
    expect_ids("adbb");

    options.retry_errors = false;
    o = open_output();
    cr_expect(output_done(o, A) && output_done(o, B) && output_done(o, D));
    cr_expect_eq(output_count_ok(o), 2, "the later line of B counts");
    cr_expect_eq(output_count_failed(o), 1);
    close_output(o);
}

static void append(const char *data, size_t n)
{
    int fd = open(options.path, O_WRONLY | O_APPEND);
    cr_assert_eq(write(fd, data, n), (ssize_t)n);
    close(fd);
}

struct torn_case {
    int n;
    char tail[32];
};
ParameterizedTestParameters(output, a_torn_last_line_is_cut_off_and_kept)
{
    static struct torn_case cases[] = {{7, "{\"id\":\""},   {1, "x"},          {16, ""},
                                       {9, "{\"id\":1}\n"}, {5, "\0\0\0\0\n"}, {1, "\n"}};
    return cr_make_param_array(struct torn_case, cases, sizeof cases / sizeof *cases);
}

ParameterizedTest(struct torn_case *c, output, a_torn_last_line_is_cut_off_and_kept)
{
    output *o = open_output();
    char torn[64];
    struct stat st;
    FILE *f;
    must_add(o, A);
    close_output(o);
    append(c->tail, (size_t)c->n);
    options.resume = true;
    o = open_output();
    cr_expect(output_done(o, A) && !output_done(o, B));
    must_add(o, B);
    close_output(o);
    expect_ids("ab");
    cr_assert_eq(stat(in_dir("out.jsonl.torn"), &st), 0);
    cr_expect_eq(st.st_size, c->n);
    f = fopen(in_dir("out.jsonl.torn"), "r");
    cr_assert_eq(fread(torn, 1, sizeof torn, f), (size_t)c->n);
    fclose(f);
    cr_expect_arr_eq(torn, c->tail, (size_t)c->n);
}

Test(output, a_strange_line_in_the_middle_is_refused)
{
    output *o = open_output();
    pr_err err;
    char *first;
    must_add(o, A);
    close_output(o);
    first = read_file(options.path);
    append("{\"what\":1}\n", 11);
    append(first, strlen(first));
    free(first);
    options.resume = true;
    cr_expect_eq(open_fails(&err), PR_EMISMATCH);
    cr_expect(strstr(err.msg, "line 2"), "%s", err.msg);
    options.force_resume = true;
    close_output(open_output());
}

/* --- what must agree --------------------------------------------------------------------------- */

static void start_and_stop(void)
{
    output *o = open_output();
    must_add(o, A);
    must_add(o, B);
    close_output(o);
    options.resume = true;
}

Test(output, a_changed_option_is_named)
{
    pr_err err;
    start_and_stop();
    json_object_set_new(json_object_get(options.manifest, "options"), "ctx", json_integer(2048));
    cr_expect_eq(open_fails(&err), PR_EMISMATCH);
    cr_expect(strstr(err.msg, "options.ctx is 4096 there and 2048 now"), "%s", err.msg);
    expect_ids("ab");
    options.force_resume = true;
    close_output(open_output());
    json_t *m = json_load_file(in_dir("out.jsonl.manifest.json"), 0, NULL);
    cr_expect_eq(json_integer_value(json_object_get(json_object_get(m, "options"), "ctx")), 2048,
                 "the facts are the new ones");
    cr_expect_str_eq(json_string_value(json_array_get(json_object_get(m, "forced"), 0)),
                     "options.ctx was 4096, became 2048");
    json_decref(m);
    options.force_resume = false;
    close_output(open_output());
}

Test(output, facts_that_come_or_go_differ_too)
{
    pr_err err;
    start_and_stop();
    json_object_set_new(options.manifest, "plan_sha256", json_string("new"));
    cr_expect_eq(open_fails(&err), PR_EMISMATCH);
    cr_expect(strstr(err.msg, "plan_sha256 is absent there and \"new\" now"), "%s", err.msg);
    json_object_del(options.manifest, "plan_sha256");
    json_object_del(options.manifest, "model_sha256");
    cr_expect_eq(open_fails(&err), PR_EMISMATCH);
    cr_expect(strstr(err.msg, "model_sha256"), "%s", err.msg);
}

Test(output, info_may_change)
{
    options.info = json_pack("{s:s}", "host", "a");
    start_and_stop();
    json_object_set_new(options.info, "host", json_string("b"));
    close_output(open_output());
    json_decref(options.info);
}

Test(output, a_changed_line_is_named)
{
    pr_err err;
    char *in;
    start_and_stop();
    in = read_file(options.input_path);
    strstr(in, "\"Hi\"")[1] = 'h';
    write_file(options.input_path, in);
    free(in);
    open_input();
    cr_expect_eq(open_fails(&err), PR_EMISMATCH);
    cr_expect(strstr(err.msg, "line 2") && strstr(err.msg, "\"b\""), "%s", err.msg);
    options.force_resume = true;
    output *o = open_output();
    cr_expect(output_done(o, A) && output_done(o, B));
    close_output(o);
}

Test(output, a_line_that_is_gone_is_named)
{
    pr_err err;
    start_and_stop();
    write_input(1);
    open_input();
    cr_expect_eq(open_fails(&err), PR_EMISMATCH);
    cr_expect(strstr(err.msg, "line 2") && strstr(err.msg, "\"b\""), "%s", err.msg);
    options.force_resume = true;
    output *o = open_output();
    cr_expect_eq(output_count_ok(o), 1);
    close_output(o);
}

Test(output, an_input_with_more_lines_differs)
{
    pr_err err;
    write_input(2);
    open_input();
    start_and_stop();
    write_input(N_LINES);
    open_input();
    cr_expect_eq(open_fails(&err), PR_EMISMATCH);
    cr_expect(strstr(err.msg, "input.sha256"), "%s", err.msg);
    options.force_resume = true;
    close_output(open_output());
}

Test(output, a_refused_resume_changes_nothing)
{
    pr_err err;
    char *before, *after;
    start_and_stop();
    append("{\"torn", 6);
    before = read_file(options.path);
    json_object_set_new(options.manifest, "model_sha256", json_string("other"));
    cr_expect_eq(open_fails(&err), PR_EMISMATCH);
    after = read_file(options.path);
    cr_expect_str_eq(before, after);
    cr_expect_neq(access(in_dir("out.jsonl.torn"), F_OK), 0);
    free(before);
    free(after);
}

Test(output, a_missing_or_damaged_manifest)
{
    pr_err err;
    start_and_stop();
    write_file(in_dir("out.jsonl.manifest.json"), "{\"schema\":");
    cr_expect_eq(open_fails(&err), PR_EMISMATCH);
    write_file(in_dir("out.jsonl.manifest.json"),
               "{\"schema\":\"prima/manifest/2\",\"run_id\":\"123456789012\"}");
    cr_expect_eq(open_fails(&err), PR_EMISMATCH);
    cr_expect(strstr(err.msg, "prima/manifest/1"), "%s", err.msg);
    unlink(in_dir("out.jsonl.manifest.json"));
    cr_expect_eq(open_fails(&err), PR_EMISMATCH);
    cr_expect(strstr(err.msg, "manifest.json is missing"), "%s", err.msg);
    options.force_resume = true;
    output *o = open_output();
    cr_expect_eq(output_count_ok(o), 2);
    close_output(o);
    options.force_resume = false;
    close_output(open_output());
}

Test(output, manifest)
{
    json_t *m, *in;
    options.info = json_pack("{s:s}", "prima_version", "1");
    start_and_stop();
    close_output(open_output());
    close_output(open_output());
    m = json_load_file(in_dir("out.jsonl.manifest.json"), 0, NULL);
    cr_assert_not_null(m);
    in = json_object_get(m, "input");
    cr_expect_str_eq(json_string_value(json_object_get(m, "schema")), "prima/manifest/1");
    cr_expect_eq(strlen(json_string_value(json_object_get(m, "run_id"))), 12);
    cr_expect_str_eq(json_string_value(json_object_get(in, "path")), options.input_path);
    cr_expect_eq((uint64_t)json_integer_value(json_object_get(in, "bytes")), prompts_bytes(input));
    cr_expect_str_eq(json_string_value(json_object_get(in, "sha256")), prompts_sha256(input));
    cr_expect_str_eq(json_string_value(json_object_get(m, "model_sha256")), "abc");
    cr_expect_str_eq(json_string_value(json_object_get(json_object_get(m, "info"), "prima_version")), "1");
    cr_expect_eq(strlen(json_string_value(json_object_get(m, "started_at"))), 20);
    cr_expect_eq(json_array_size(json_object_get(m, "resumed_at")), 2);
    cr_expect_eq(json_array_size(json_object_get(m, "forced")), 0);
    json_decref(m);
    json_decref(options.info);
}

Test(output, run_ids_differ_unless_the_run_is_to_be_reproducible)
{
    char id[4][32];
    for (int i = 0; i < 4; i++) {
        options.created_s = i < 2 ? 0 : 1700000000;
        output *o = open_output();
        snprintf(id[i], sizeof id[i], "%s", output_run_id(o));
        close_output(o);
        unlink(options.path);
    }
    cr_expect_str_eq(id[0], id[1]);
    cr_expect_str_neq(id[2], id[3]);
    cr_expect_str_neq(id[0], id[2]);
}

/* --- what is refused --------------------------------------------------------------------------- */

Test(output, an_existing_file_is_not_touched)
{
    pr_err err;
    write_file(options.path, "precious\n");
    cr_expect_eq(open_fails(&err), PR_EUSAGE);
    cr_expect(strstr(err.msg, "--resume"), "%s", err.msg);
    expect_file("precious\n");
}

Test(output, the_input_is_never_the_output)
{
    pr_err err;
    options.resume = true;
    options.path = options.input_path;
    cr_expect_eq(open_fails(&err), PR_EUSAGE);
    cr_assert_eq(symlink(options.input_path, in_dir("symbolic")), 0);
    options.path = in_dir("symbolic");
    cr_expect_eq(open_fails(&err), PR_EUSAGE);
    cr_assert_eq(link(options.input_path, in_dir("hard")), 0);
    options.path = in_dir("hard");
    cr_expect_eq(open_fails(&err), PR_EUSAGE);
    cr_expect(strstr(err.msg, "is the input"), "%s", err.msg);
    /* The manifest would be written over it. */
    cr_assert_eq(link(options.input_path, in_dir("new.manifest.json")), 0);
    options.path = in_dir("new");
    cr_expect_eq(open_fails(&err), PR_EUSAGE);
    cr_expect_neq(access(in_dir("new"), F_OK), 0);
    cr_expect_eq(count_lines(options.input_path), N_LINES);
}

Test(output, the_input_may_come_from_standard_input)
{
    pr_err err;
    int fd = open(options.input_path, O_RDWR);
    dup2(fd, 0);
    options.path = options.input_path;
    options.input_path = "-";
    options.resume = true;
    cr_expect_eq(open_fails(&err), PR_EUSAGE);
    close(fd);
}

Test(output, one_run_at_a_time)
{
    output *o = open_output();
    pr_err err;
    must_add(o, A);
    options.resume = true;
    cr_expect_eq(open_fails(&err), PR_EUSAGE);
    cr_expect(strstr(err.msg, "another prima run"), "%s", err.msg);
    must_add(o, B);
    close_output(o);
    o = open_output();
    cr_expect_eq(output_count_ok(o), 2);
    close_output(o);
}

Test(output, a_failed_start_leaves_no_file)
{
    pr_err err;
    cr_assert_eq(mkdir(in_dir("out.jsonl.manifest.json"), 0755), 0);
    cr_expect_eq(open_fails(&err), PR_ERESOURCE);
    cr_expect_neq(access(options.path, F_OK), 0);
    options.path = in_dir("no/such/folder");
    cr_expect_eq(open_fails(&err), PR_ERESOURCE);
}

Test(output, an_output_through_a_symbolic_link)
{
    cr_assert_eq(symlink(in_dir("real.jsonl"), options.path), 0);
    output *o = open_output();
    must_add(o, A);
    close_output(o);
    cr_expect_eq(count_lines(in_dir("real.jsonl")), 1);
}

/* --- order --------------------------------------------------------------------------------------- */

Test(output, ordered_lines_wait_for_their_predecessors)
{
    options.ordered = true;
    output *o = open_output();
    must_add(o, B);
    must_add(o, C);
    cr_expect(output_done(o, B));
    cr_expect_eq(count_lines(options.path), 0);
    must_add(o, A);
    cr_expect_eq(count_lines(options.path), 3);
    must_add(o, D);
    cr_expect_eq(count_lines(options.path), 4);
    must_add(o, G);
    must_add(o, F);
    cr_expect_eq(count_lines(options.path), 4);
    close_output(o);
    expect_ids("abcdfg");
}

Test(output, ordered_and_resumed)
{
    options.ordered = true;
    output *o = open_output();
    must_add(o, B);
    must_add(o, D);
    close_output(o);
    expect_ids("bd");
    options.resume = options.retry_errors = true;
    o = open_output();
    must_add(o, C);
    cr_expect_eq(count_lines(options.path), 2);
    must_add(o, A);
    cr_expect_eq(count_lines(options.path), 4, "b is there already");
    must_add(o, E);
    cr_expect_eq(count_lines(options.path), 4, "d is tried again");
    must_add(o, D);
    close_output(o);
    expect_ids("bdace");
}

/* --- when writing fails ---------------------------------------------------------------------------- */

static void limit_file_size(rlim_t bytes)
{
    struct rlimit l;
    cr_assert_eq(getrlimit(RLIMIT_FSIZE, &l), 0);
    l.rlim_cur = bytes;
    cr_assert_eq(setrlimit(RLIMIT_FSIZE, &l), 0);
}

Test(output, a_line_that_does_not_fit_is_taken_back)
{
    output *o = open_output();
    struct stat st;
    pr_err err = {0};
    must_add(o, A);
    cr_assert_eq(stat(options.path, &st), 0);
    limit_file_size((rlim_t)st.st_size + 20);
    cr_expect_eq(add(o, B, text("hello"), &err), PR_ERESOURCE);
    cr_expect(strstr(err.msg, "out.jsonl") && strstr(err.msg, strerror(EFBIG)), "%s", err.msg);
    cr_expect_not(output_done(o, B));
    limit_file_size(RLIM_INFINITY);
    expect_ids("a");
    must_add(o, C);
    close_output(o);
    expect_ids("ac");
}

Test(output, a_full_disk_with_ordered_lines)
{
    options.ordered = true;
    output *o = open_output();
    pr_err err = {0};
    struct stat st;
    must_add(o, A);
    must_add(o, C);
    cr_assert_eq(stat(options.path, &st), 0);
    limit_file_size((rlim_t)st.st_size + 20);
    cr_expect_eq(add(o, B, text("hello"), &err), PR_ERESOURCE);
    cr_expect_eq(output_close(o, &err), PR_ERESOURCE, "still full");
    limit_file_size(RLIM_INFINITY);
    expect_ids("a");
}

Test(output, a_device_that_is_full)
{
    pr_err err = {0};
    if (access("/dev/full", W_OK)) cr_skip_test("no /dev/full");
    options.path = "/dev/full";
    output *o = open_output();
    cr_expect_eq(add(o, A, text("hello"), &err), PR_ERESOURCE);
    cr_expect(strstr(err.msg, strerror(ENOSPC)), "%s", err.msg);
    output_close(o, NULL);
    cr_expect_neq(access("/dev/full.manifest.json", F_OK), 0);
}

/* --- standard output ------------------------------------------------------------------------------- */

Test(output, standard_output)
{
    pid_t child = fork();
    int status;
    if (child == 0) {
        pr_err err = {0};
        output *o = NULL;
        int fd = open(in_dir("stdout"), O_WRONLY | O_CREAT | O_TRUNC, 0644), bad = 0;
        dup2(fd, 1);
        options.path = "-";
        bad += output_open(&o, &options, input, &err) != PR_OK;
        bad += add(o, A, text("hello"), &err) != PR_OK;
        bad += output_tick(o, &err) != PR_OK;
        bad += output_close(o, &err) != PR_OK;
        options.resume = true;
        bad += output_open(&o, &options, input, &err) != PR_EUSAGE;
        _exit(bad);
    }
    waitpid(child, &status, 0);
    cr_expect(WIFEXITED(status) && WEXITSTATUS(status) == 0, "%d", status);
    cr_expect_eq(count_lines(in_dir("stdout")), 1);
    cr_expect_neq(access(in_dir("-.manifest.json"), F_OK), 0);
}

Test(output, standard_output_that_is_the_input)
{
    pid_t child = fork();
    int status;
    if (child == 0) {
        pr_err err = {0};
        output *o = NULL;
        dup2(open(options.input_path, O_WRONLY | O_APPEND), 1);
        options.path = "-";
        _exit(output_open(&o, &options, input, &err) != PR_EUSAGE);
    }
    waitpid(child, &status, 0);
    cr_expect(WIFEXITED(status) && WEXITSTATUS(status) == 0, "%d", status);
}

Test(output, fsync_each_and_tick)
{
    pr_err err = {0};
    options.fsync_each = true;
    output *o = open_output();
    must_add(o, A);
    cr_expect_eq(output_tick(o, &err), PR_OK);
    close_output(o);
    options.fsync_each = false;
    options.resume = true;
    o = open_output();
    must_add(o, B);
    cr_expect_eq(output_tick(o, &err), PR_OK);
    usleep(1100000);
    cr_expect_eq(output_tick(o, &err), PR_OK);
    close_output(o);
    cr_expect_eq(output_close(NULL, &err), PR_OK);
}
