/* Rings of several devices give the bytes of one (rule 3), and a half-precision wire what it should. */
#include "tests/cmd/ring_job.h"
#include "tests/common/data.h"

TestSuite(ring, .init = open_dir, .fini = close_dir, .timeout = 200);

/* --- rule 3 --------------------------------------------------------------------------------------------- */
static void check_ring(const char *model_path, size_t n, uint32_t k, uint32_t slots, const char *in_flight)
{
    char how[128];
    prima_result r;

    snprintf(how, sizeof how, "%zu devices, %u rounds, %u slots, %s in flight", n, k, slots, in_flight);
    r = run(save(new_plan(model_path, n, k, slots)), ARGS("--in-flight", in_flight));
    cr_assert_eq(r.status, 0, "%s: %s", how, r.err);
    assert_same(how);
    cr_assert_eq(count_workers(), 0, "%s: workers are left behind", how);
    forget_output();
}

Test(ring, any_devices_and_rounds_give_the_bytes_of_one)
{
    static const size_t devices[] = {1, 2, 3, 4, 6};
    static const uint32_t rounds[] = {1, 2, 3, 5}, slots[] = {4, 16, 1};
    static const char *const in_flight[] = {"1", "2", "3", "4", "8"};
    int way = 0;

    make_prompts(16, true);
    run_alone(MODEL);
    for (int i = 0; i < 5; i++)
        for (int j = 0; j < 4; j++, way++)
            check_ring(MODEL, devices[i], rounds[j], slots[way % 3], in_flight[(way + i) % 5]);
}

Test(ring, another_model)
{
    const char *path = test_data("models/stories260K.gguf");

    make_prompts(16, false);
    run_alone(path);
    check_ring(path, 2, 1, 16, "2");
    check_ring(path, 2, 3, 4, "5");
    check_ring(path, 3, 2, 1, "1");
    check_ring(path, 4, 1, 4, "4");
    check_ring(path, 6, 1, 16, "8");
}

/* The path goes into the plan, over the wire, and into the worker's cache of the model. */
Test(ring, a_model_of_any_name)
{
    char path[600], command[1400];
    prima_result r;
    plan *p;

    snprintf(path, sizeof path, "%s",
             in_dir("-m\xC3\xB6"
                    "del 'q' \xE6\x97\xA5.gguf"));
    snprintf(command, sizeof command, "cp '%s' \"%s\"", MODEL, path);
    cr_assert_eq(system(command), 0, "%s", command);
    setenv("PRIMA_CACHE",
           in_dir("c\xC3\xA4"
                  "che 'q'"),
           1);
    make_prompts(8, true);
    run_alone(path);
    check_ring(path, 3, 2, 4, "2");
    p = new_plan(path, 3, 1, 4); /* one gets its layers from the head, one has a file that is not there */
    *p->device[1].model = 0;
    snprintf(p->device[2].model, sizeof p->device[2].model, "%s",
             in_dir("\xC3\xA4"
                    "bsent.gguf"));
    r = run(save(p), NULL);
    cr_expect_eq(r.status, 0, "%s", r.err);
    cr_expect(strstr(r.err, "\xC3\xA4"
                            "bsent.gguf is not here: the head sends"),
              "%s", r.err);
    assert_same("with layers from the head");
}

/* 4 n - 1 at most; the rest is said. */
Test(ring, more_in_flight_than_it_holds)
{
    prima_result r;

    make_prompts(8, true);
    run_alone(MODEL);
    r = run(demo_plan(2, 1, 4), ARGS("--in-flight", "50"));
    cr_expect_eq(r.status, 0, "%s", r.err);
    cr_expect(strstr(r.err, "--in-flight 50: a ring of 2 devices holds at most 7 micro-batches at once, so 7 "
                            "are used"),
              "%s", r.err);
    assert_same("50 in flight");
}

/* Who has how many layers is the plan's business. */
Test(ring, uneven_windows)
{
    static const struct {
        size_t n;
        uint32_t rounds, end[4]; /* of windows in the order of computing; 0 ends them */
        uint8_t rank[4], round[4];
    } ways[] = {
        {2, 1, {8}, {1}, {0}},                            /* the head embeds and projects only */
        {3, 1, {1, 8}, {1, 2}, {0, 0}},                   /* so here, and one layer, and seven */
        {2, 2, {1, 2, 7, 8}, {0, 1, 0, 1}, {0, 0, 1, 1}}, /* uneven rounds */
        {2, 3, {3, 5, 8}, {1, 0, 1}, {0, 1, 2}},          /* rounds without one of the two */
    };

    make_prompts(12, true);
    run_alone(MODEL);
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        plan *p = new_plan(MODEL, ways[i].n, ways[i].rounds, 4);
        uint32_t first = 0;
        char how[32];
        prima_result r;

        for (size_t j = 0; j < p->n_devices; j++) p->device[j].n_windows = 0;
        for (int j = 0; j < 4 && ways[i].end[j]; first = ways[i].end[j++]) {
            plan_device *d = &p->device[ways[i].rank[j]];
            d->window[d->n_windows++] =
                (plan_window){ways[i].round[j], first, ways[i].end[j] - 1, PLACE_RAM, 0, 0};
        }
        snprintf(how, sizeof how, "way %zu", i);
        r = run(save(p), NULL);
        cr_assert_eq(r.status, 0, "%s: %s", how, r.err);
        assert_same(how);
        forget_output();
    }
}

/* Rounded hidden states give other bits: text of this small model goes astray sooner or later, but begins as
 * it should. And such a job is not gone on with in another way. */
Test(ring, half_precision_on_the_wire)
{
    static const char *const wire[] = {"f16", "bf16"};

    make_prompts(40, true);
    run_alone(MODEL);
    for (int i = 0; i < 2; i++) {
        json_t *exact, *half;
        size_t same = 0;
        prima_result r = run(demo_plan(3, 2, 16), ARGS("--wire", wire[i]));

        cr_assert_eq(r.status, 0, "%s", r.err);
        exact = read_jsonl_sorted(alone, true);
        half = read_jsonl_sorted(out, true);
        cr_assert_eq(json_array_size(half), 40);
        for (size_t j = 0; j < 40; j += 4) { /* the greedy ones */
            const char *a = json_string_value(json_object_get(json_array_get(exact, j), "text")),
                       *b = json_string_value(json_object_get(json_array_get(half, j), "text"));
            cr_assert(a && b && *b);
            same += strncmp(a, b, 12) == 0;
        }
        cr_expect_geq(same, 7, "%s: only %zu of 10 begin as they should", wire[i], same);
        json_decref(exact);
        json_decref(half);
        cr_expect_eq(run(plan_path, ARGS("--resume")).status, 5, "%s and then f32", wire[i]);
        forget_output();
    }
}
