/* `prima run --check`: everything is started, connected and measured, nothing computed. And what the devices
 * compute with. */
#include "tests/cmd/ring_job.h"
#include <jansson.h>

TestSuite(ring_check, .init = open_dir, .fini = close_dir, .timeout = 200);

Test(ring_check, check_computes_nothing)
{
    prima_result r;

    make_prompts(4, true);
    r = run(demo_plan(3, 2, 4), ARGS("--check"));
    cr_expect_eq(r.status, 0, "%s", r.err);
    cr_expect_eq(access(out, F_OK), -1, "an output was made");
    cr_expect_eq(count_workers(), 0);
    r = prima_run(NULL, ARGS("run", plan_path, "--check"));
    cr_expect_eq(r.status, 0, "without prompts: %s", r.err);
    cr_expect(strstr(r.err, "links: "), "nothing about the links: %s", r.err);
    cr_expect_eq(count_workers(), 0);
    cr_expect_eq(prima_run(NULL, ARGS("run", plan_path)).status, 2, "a run needs prompts");
}

/* Every link once, from each device to the next one; the plan's figures are of no link here. */
Test(ring_check, every_link_is_measured)
{
    static const char *const row[] = {"links: d0               d1  ", "links: d1               d2  ",
                                      "links: d2               d0  "};
    plan *p = new_plan(MODEL, 3, 1, 4);
    double way_us, rate, hop_ms;
    const char *at;
    prima_result r;

    p->prefill_tokens = 64; /* hops of 200 ms and 2.5 MB/s: slower by far than this machine, however busy */
    for (size_t i = 0; i < 3; i++) {
        p->device[i].cost.hop_ms = 200;
        p->device[i].cost.prefill_hop_ms = 208;
    }
    r = prima_run(NULL, ARGS("run", save(p), "--check"));
    cr_assert_eq(r.status, 0, "%s", r.err);
    cr_expect(strstr(r.err, "rtt/2 us") && strstr(r.err, "instruction sets: "), "%s", r.err);
    for (size_t i = 0; i < 3; i++) {
        cr_assert_not_null(at = strstr(r.err, row[i]), "%s: %s", row[i], r.err);
        cr_assert_eq(sscanf(at + strlen(row[i]), "%lf %*s %lf %*s %lf", &way_us, &rate, &hop_ms), 3, "%s",
                     at);
        cr_expect(way_us > 1 && way_us < 95000, "%g us", way_us);
        cr_expect(rate > 6, "%g MB/s", rate);
        cr_expect(hop_ms > way_us / 1e3 && hop_ms < 100, "%g ms", hop_ms);
        cr_expect_null(strstr(at + strlen(row[i]), row[i]), "once");
    }
    cr_expect(strstr(r.err, "off by more than 2x: faster"), "%s", r.err);
    cr_expect(strstr(r.err, "plan again"), "%s", r.err);
    cr_expect_eq(count_workers(), 0);
}

/* --- instruction sets -------------------------------------------------------------------------------------
 */
static json_t *manifest_options(void)
{
    json_t *m = json_load_file(in_dir("out.manifest.json"), 0, NULL), *o;

    cr_assert_not_null(m);
    cr_expect_eq(json_object_get(m, "plan_sha256") != NULL,
                 strchr(json_string_value(json_object_get(json_object_get(m, "options"), "isa")), '+') !=
                     NULL,
                 "the split of layers decides the bytes when instruction sets differ, and only then");
    o = json_incref(json_object_get(m, "options"));
    json_decref(m);
    return o;
}

/* A worker that listens computes with what the head was told, run by run, unless it was told something else.
 */
Test(ring_check, instruction_set_reaches_workers_started_by_hand)
{
    plan *p = new_plan(MODEL, 2, 1, 4);
    uint16_t port = p->device[1].port;
    prima_result r;
    json_t *o;

    make_prompts(4, true);
    save(p);
    start_by_hand(port, NULL);
    r = run(plan_path, ARGS("--isa", "ref"));
    cr_assert_eq(r.status, 0, "%s", r.err);
    cr_expect_null(strstr(r.err, "different instruction sets"), "%s", r.err);
    cr_expect(strstr(r.err, "d1: ") && strstr(r.err, " s, ref\n"), "%s", r.err);
    o = manifest_options();
    cr_expect_str_eq(json_string_value(json_object_get(o, "isa")), "ref");
    json_decref(o);
    forget_output();

    r = run(plan_path, NULL);
    cr_assert_eq(r.status, 0, "%s", r.err);
    cr_expect_null(strstr(r.err, "different instruction sets"), "its own choice again: %s", r.err);
    o = manifest_options();
    char *best = strdup(json_string_value(json_object_get(o, "isa")));
    json_decref(o);
    end_by_hand();
    forget_output();
    if (!strcmp(best, "ref")) cr_skip_test("this CPU has no other than the reference");

    start_by_hand(port, "ref");
    r = run(plan_path, ARGS("--isa", best));
    cr_expect_eq(r.status, 5, "exit status %d: %s", r.status, r.err);
    cr_expect(strstr(r.err, "d1: this worker was started with --isa ref, and the head has --isa "), "%s",
              r.err);
    cr_expect(access(out, F_OK), "nothing has begun");
    end_by_hand();
    free(best);
}

/* The best of this CPU here, the reference there. */
Test(ring_check, different_instruction_sets_are_told_and_kept)
{
    plan *p = new_plan(MODEL, 2, 1, 4);
    uint16_t port = p->device[1].port;
    json_t *o;
    prima_result r;

    make_prompts(4, true);
    run_alone(MODEL);
    save(p);
    start_by_hand(port, "ref");
    r = run(plan_path, ARGS("--isa", "ref"));
    cr_assert_eq(r.status, 0, "%s", r.err);
    cr_expect_null(strstr(r.err, "different instruction sets"), "they are the same: %s", r.err);
    o = manifest_options();
    cr_expect_str_eq(json_string_value(json_object_get(o, "isa")), "ref");
    json_decref(o);
    forget_output();

    r = run(plan_path, NULL);
    cr_assert_eq(r.status, 0, "%s", r.err);
    if (!strstr(r.err, "different instruction sets"))
        cr_skip_test("this CPU has no other than the reference");
    cr_expect(strstr(r.err, ", d1 ref)") && strstr(r.err, "give --isa ref here"), "%s", r.err);
    o = manifest_options();
    cr_expect(strstr(json_string_value(json_object_get(o, "isa")), "+ref"));
    json_decref(o);
    end_by_hand();

    r = run(plan_path, ARGS("--resume")); /* the worker is started now, with what the head has */
    cr_expect_eq(r.status, 5, "exit status %d: %s", r.status, r.err);
    cr_expect(strstr(r.err, "options.isa is ") && strstr(r.err, "--force-resume"), "%s", r.err);
    cr_expect_eq(run(plan_path, ARGS("--resume", "--force-resume")).status, 0);
}
