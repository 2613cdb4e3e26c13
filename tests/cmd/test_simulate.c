/* prima simulate as a user runs it, on a plan of the four machines and the 70B model that the README asks
 * about. */
#include "src/base/json.h"
#include "tests/common/prima.h"
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void make_plan(void)
{
    prima_result r;

    test_dir_new();
    setenv("SOURCE_DATE_EPOCH", "1700000000", 1);
    r = prima_run(NULL, (const char *const[]){"plan", "datasets/clusters/paper-home.yaml", "--shape",
                                              "datasets/shapes/llama-3-70b.yaml", "--objective", "latency",
                                              "--slots", "1", "--ctx", "1024", "--max-rounds", "9", "-o",
                                              in_dir("plan.yaml"), NULL});
    cr_assert_eq(r.status, 0, "%s", r.err);
}

TestSuite(simulate_cmd, .init = make_plan, .fini = test_dir_remove, .timeout = 120);

enum { MAX_MORE = 6 };
static prima_result simulate_with(const char *const *more)
{
    const char *argv[MAX_MORE + 3] = {"simulate", in_dir("plan.yaml")};
    size_t n = 2;

    while (more && *more) argv[n++] = *more++;
    return prima_run(in_dir("out"), argv);
}
#define SIMULATE(...) simulate_with((const char *const[]){__VA_ARGS__, NULL})

static double number_after(const char *text, const char *what)
{
    const char *at = strstr(text, what);

    cr_assert_not_null(at, "not said: %s; but: %s", what, text);
    return strtod(at + strlen(what), NULL);
}

Test(simulate_cmd, a_pass_and_a_prompt_beside_what_was_predicted)
{
    prima_result r = SIMULATE("--prompt", "512", "--trace", in_dir("trace.json"));
    char *out = read_file(in_dir("out")), *trace, *prompt;
    double simulated, first;
    json_t *root;

    cr_assert_eq(r.status, 0, "%s", r.err);
    simulated = number_after(out, "simulated  ");
    cr_assert_float_eq(number_after(out, "predicted  ") / simulated, 1, 0.2, "%s", out);
    prompt = strstr(out, "predicted  ");
    first = number_after(prompt, "simulated  ");
    cr_assert_not_null(strstr(prompt, "ms to the first token of a prompt of 512 ("), "%s", out);
    cr_assert(first > simulated, "%s", out);
    cr_assert_float_eq(number_after(strstr(prompt, "simulated"), "predicted  ") / first, 1, 0.5, "%s", out);

    trace = read_file(in_dir("trace.json"));
    root = json_parse(trace, strlen(trace), NULL);
    cr_assert(json_array_size(json_object_get(root, "traceEvents")) > 1000);
    cr_assert(strstr(trace, "\"name\":\"prefill\"") && strstr(trace, "\"name\":\"compute\""));
    json_decref(root);
    free(trace);
    free(out);
}

Test(simulate_cmd, without_a_prompt)
{
    prima_result r = SIMULATE("--passes", "12", "--in-flight", "3");
    char *out = read_file(in_dir("out"));

    cr_assert_eq(r.status, 0, "%s", r.err);
    cr_assert(strstr(out, "3 micro-batches of 1 in flight") && !strstr(out, "first token"), "%s", out);
    free(out);
}

Test(simulate_cmd, refusals)
{
    prima_result r = SIMULATE("--passes", "2");

    cr_assert_eq(r.status, 2);
    cr_assert(strstr(r.err, "passes"), "%s", r.err);
    r = SIMULATE("--trace", in_dir("no/such/folder"));
    cr_assert_eq(r.status, 9);
    cr_assert(strstr(r.err, "no/such/folder"), "%s", r.err);
}
