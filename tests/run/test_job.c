/* What a worker is told to do: as it was sent, and refused when anything is missing, of another kind or out
 * of range; plans that this build cannot run say so. */
#include "kernels/cuda/device.h"
#include "src/run/job.h"
#include "tests/common/channel_pair.h"
#include "tests/common/ring_plan.h"
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const uint16_t ports[] = {9701, 9702, 9703};
static const job_sizes sizes = {.token = "0123456789abcdef0123456789abcdef",
                                .max_tokens = 64,
                                .merge_tokens = 128,
                                .max_out = 4,
                                .n_pages = 32,
                                .elem = FRAME_F16,
                                .heartbeat_s = 0.5,
                                .peer_s = 7.25,
                                .connect_s = 30,
                                .trace = true};
static char sha[65], *text;
static size_t n_text;
static pr_err err;

static plan *new_plan(uint32_t rounds)
{
    plan *p;

    memset(sha, 'a', 64);
    p = ring_plan_new(3, rounds, 8, sha, ports);
    cr_assert_not_null(p);
    return p;
}

/* The plan as text, which frees it. */
static void print(plan *p)
{
    cr_assert_not_null(text = plan_text(p, &n_text));
    plan_free(p);
}

static void setup(void)
{
    print(new_plan(2));
}

static void teardown(void)
{
    free(text);
}
TestSuite(job, .init = setup, .fini = teardown, .timeout = 30);

static json_t *message(void)
{
    json_t *m = job_to_json(text, n_text, 1, &sizes);
    cr_assert_not_null(m);
    return m;
}

/* As it comes out of the other end. */
static json_t *over_the_wire(json_t *m)
{
    char *line = json_line(m);
    json_t *read = json_parse(line, strlen(line), &err);

    cr_assert_not_null(read, "%s", err.msg);
    free(line);
    json_decref(m);
    return read;
}

Test(job, arrives_as_it_was_sent)
{
    json_t *m = over_the_wire(message());
    job *j;

    cr_assert_eq(job_from_json(&j, m, &err), PR_OK, "%s", err.msg);
    cr_expect_eq(j->rank, 1);
    cr_expect_str_eq(j->sizes.token, sizes.token);
    cr_expect_eq(j->sizes.max_tokens, 64);
    cr_expect_eq(j->sizes.merge_tokens, 128);
    cr_expect_eq(j->sizes.max_out, 4);
    cr_expect_eq(j->sizes.n_pages, 32);
    cr_expect_eq(j->sizes.elem, FRAME_F16);
    cr_expect(j->sizes.heartbeat_s == 0.5 && j->sizes.peer_s == 7.25 && j->sizes.connect_s == 30);
    cr_expect(j->sizes.trace);
    cr_expect_str_eq(job_device(j)->name, "d1");
    cr_expect_eq(j->plan->rounds, 2);
    /* 8 layers in 6 windows, which begin at floor(8 i / 6): 0 1 2 4 5 6 */
    cr_expect(j->window[0].first == 1 && j->window[0].end == 2);
    cr_expect(j->window[1].first == 5 && j->window[1].end == 6);
    json_decref(m);
    job_free(j);
    job_free(NULL);
}

Test(job, the_limits_of_its_frames)
{
    const hparams hp = {.n_embd = 96};
    job_sizes s = sizes;
    job *j;

    cr_assert_eq(job_new(&j, text, n_text, 1, &s, &err), PR_OK, "%s", err.msg);
    wire_limits l = job_limits(j, &hp);
    cr_expect(l.n_embd == 96 && l.max_tokens == 64 && l.max_out == 4 && l.n_pages == 32 && l.ctx == 256);
    cr_expect(l.elem == FRAME_F16 && l.max_runs == 4, "one run for each sequence");
    job_free(j);
    s.max_out = 100; /* more sequences than tokens */
    cr_assert_eq(job_new(&j, text, n_text, 1, &s, &err), PR_OK);
    cr_expect_eq(job_limits(j, &hp).max_runs, 64);
    job_free(j);
}

static const char *const elems[] = {"", "f32", "f16", "bf16"};

Test(job, every_type_of_hidden_states)
{
    for (int e = FRAME_F32; e <= FRAME_BF16; e++) {
        job_sizes s = sizes;
        json_t *m;
        job *j;
        s.elem = (frame_elem)e;
        m = over_the_wire(job_to_json(text, n_text, 2, &s));
        cr_expect_str_eq(json_string_value(json_object_get(m, "wire")), elems[e]);
        cr_assert_eq(job_from_json(&j, m, &err), PR_OK, "%s", err.msg);
        cr_expect(j->sizes.elem == (frame_elem)e && j->rank == 2);
        json_decref(m);
        job_free(j);
    }
}

/* --- fields ------------------------------------------------------------------------------------------------
 */
static void expect_refused(json_t *m, const char *key, const char *what)
{
    job *j = NULL;
    int rc = job_from_json(&j, m, &err);

    cr_expect(rc == PR_EPEER && strstr(err.msg, key), "%s %s: %d %s", key, what, rc, err.msg);
    if (!rc) job_free(j);
    json_decref(m);
}

static const char *const keys[] = {"plan",    "token", "rank",        "max_tokens", "merge_tokens", "max_out",
                                   "n_pages", "wire",  "heartbeat_s", "peer_s",     "connect_s"};

Test(job, every_field_is_needed)
{
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        json_t *m = message();
        json_object_del(m, keys[i]);
        expect_refused(m, keys[i], "missing");
    }
}

Test(job, trace_is_true_or_false)
{
    json_t *const values[] = {NULL, json_null(), json_integer(1), json_string("true"), json_array()};

    for (size_t v = 0; v < sizeof values / sizeof *values; v++) {
        json_t *m = message();
        json_object_del(m, "trace");
        if (values[v]) json_object_set_new(m, "trace", values[v]);
        expect_refused(m, "trace", "of another type");
    }
}

Test(job, every_field_has_its_type)
{
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        json_t *const values[] = {json_null(),  json_true(),      json_object(),
                                  json_array(), json_string("1"), json_real(2.5)};
        for (size_t v = 0; v < sizeof values / sizeof *values; v++) {
            json_t *m = message();
            bool seconds = strstr(keys[i], "_s") && !strstr(keys[i], "_size");
            bool fits =
                (json_is_string(values[v]) && (i < 2)) || (json_is_real(values[v]) && seconds && i > 7);
            json_object_set_new(m, keys[i], values[v]);
            if (fits) json_decref(m); /* of the right type; whether it makes sense is asked elsewhere */
            else expect_refused(m, keys[i], "of another type");
        }
    }
}

Test(job, numbers_have_their_ranges)
{
    static const struct {
        const char *key;
        json_int_t value;
        bool right;
    } cases[] = {
        {"rank", -1, false},
        {"rank", 2, true},
        {"rank", CLUSTER_MAX_DEVICES, false},
        {"rank", INT64_MAX, false},
        {"rank", 0, false}, /* the head is no worker */
        {"max_tokens", 0, false},
        {"max_tokens", -1, false},
        {"max_tokens", 1, true},
        {"max_tokens", 65537, false},
        {"max_tokens", (json_int_t)1 << 32, false},
        {"max_tokens", 129, false}, /* more than are computed together */
        {"merge_tokens", 63, false},
        {"merge_tokens", 64, true},
        {"merge_tokens", 65536, true},
        {"merge_tokens", 65537, false},
        {"max_out", 0, false},
        {"max_out", 65536, true},
        {"max_out", 65537, false},
        {"n_pages", 0, false},
        {"n_pages", 1 << 24, true},
        {"n_pages", (1 << 24) + 1, false},
        {"n_pages", -5, false},
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        json_t *m = message();
        char what[64];
        job *j;
        snprintf(what, sizeof what, "of %lld", (long long)cases[i].value);
        json_object_set_new(m, cases[i].key, json_integer(cases[i].value));
        if (!cases[i].right) {
            expect_refused(m, strcmp(cases[i].key, "max_tokens") ? cases[i].key : "tokens", what);
            continue;
        }
        cr_expect_eq(job_from_json(&j, m, &err), PR_OK, "%s %s: %s", cases[i].key, what, err.msg);
        json_decref(m);
        job_free(j);
    }
}

Test(job, seconds_have_their_ranges)
{
    static const char *const times[] = {"heartbeat_s", "peer_s", "connect_s"};
    static const double wrong[] = {0, -1, 1e7, 1e300}, right[] = {0.001, 1, 1e6};

    for (size_t k = 0; k < 3; k++) {
        for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
            json_t *m = message();
            json_object_set_new(m, times[k], json_real(wrong[i]));
            expect_refused(m, times[k], "out of range");
        }
        for (size_t i = 0; i < sizeof right / sizeof *right; i++) {
            json_t *m = message();
            job *j;
            json_object_set_new(m, times[k], json_real(right[i]));
            cr_expect_eq(job_from_json(&j, m, &err), PR_OK, "%s %g: %s", times[k], right[i], err.msg);
            json_decref(m);
            job_free(j);
        }
    }
}

Test(job, texts_have_their_lengths)
{
    char token[JOB_TOKEN_BYTES + 1];
    json_t *m = message();
    static const char *const wires[] = {"", "f64", "F32", "f32 ", "bfloat16"};

    memset(token, 'x', sizeof token);
    token[JOB_TOKEN_BYTES] = 0; /* one too long */
    json_object_set_new(m, "token", json_string(token));
    expect_refused(m, "token", "too long");
    m = message();
    json_object_set_new(m, "token", json_stringn("abc\0def", 7));
    expect_refused(m, "token", "with a NUL in it");
    for (size_t i = 0; i < sizeof wires / sizeof *wires; i++) {
        m = message();
        json_object_set_new(m, "wire", json_string(wires[i]));
        expect_refused(m, "wire", wires[i]);
    }
}

/* --- the plan --------------------------------------------------------------------------------------------
 */
static int read_plan(uint32_t rank)
{
    json_t *m = over_the_wire(job_to_json(text, n_text, rank, &sizes));
    job *j = NULL;
    int rc = job_from_json(&j, m, &err);

    json_decref(m);
    if (!rc) job_free(j);
    return rc;
}

static void replace(plan *p)
{
    free(text);
    print(p);
}

Test(job, a_plan_that_is_none)
{
    static const char *const plans[] = {"", "x", "schema: prima/plan/1\n", "\xff\xfe"};

    for (size_t i = 0; i < sizeof plans / sizeof *plans; i++) {
        job *j = NULL;
        cr_expect_neq(job_new(&j, plans[i], strlen(plans[i]), 0, &sizes, &err), PR_OK);
        cr_expect(!strncmp(err.msg, "plan", 4), "%s", err.msg);
    }
    text[n_text / 2]++; /* its digest says so */
    cr_expect_neq(read_plan(1), PR_OK);
}

Test(job, a_rank_that_the_plan_has_not)
{
    cr_expect_eq(read_plan(3), PR_EMISMATCH);
    cr_expect_str_eq(err.msg, "rank 3 of a plan with 3 devices");
}

Test(job, a_cache_of_another_type)
{
    plan *p = new_plan(1);

    snprintf(p->kv_type, sizeof p->kv_type, "q3_k");
    replace(p);
    cr_expect_eq(read_plan(1), PR_EMISMATCH);
    cr_expect(strstr(err.msg, "KV type 'q3_k' is not known"), "%s", err.msg);
}

/* A machine without a GPU says so for the device that it is asked of, and only for that. */
Test(job, layers_on_a_gpu)
{
    plan *p = new_plan(1);
    job *j;

    p->device[1].window[0].place = PLACE_GPU;
    p->device[1].bytes.budget_gpu = p->device[1].gpu[0].vram_bytes = 1 << 20;
    p->device[1].n_gpus = 1;
    replace(p);
    cr_expect_eq(read_plan(2), PR_OK, "%s", err.msg);
    cr_assert_eq(job_new(&j, text, n_text, 1, &sizes, &err), PR_OK, "%s", err.msg);
    cr_assert(j->n_gpu_parts == 1 && j->gpu_part[0].n_layers == 3 && j->gpu_part[0].window == 0);
    cr_expect(j->window[0].first == 2 && j->window[0].end == 5);
    job_free(j);
    if (gpu_count(NULL)) cr_skip_test("there is a GPU here");
    cr_expect_eq(read_plan(1), PR_EMISMATCH);
    cr_expect(strstr(err.msg, "d1: the plan puts layers 2 to 4 on the GPU, which cannot be done here"), "%s",
              err.msg);
}

/* Streamed pieces are counted round by round. */
Test(job, layers_on_disk)
{
    plan *p = new_plan(1);
    job *j;

    p->device[1].window[0].place = PLACE_DISK;
    p->device[1].window[0].streamed_pieces = 5;
    p->device[1].buffer_pieces = 2;
    replace(p);
    cr_assert_eq(job_new(&j, text, n_text, 1, &sizes, &err), PR_OK, "%s", err.msg);
    cr_expect_eq(j->streamed[0], 5);
    job_free(j);
}

Test(job, layers_on_disk_in_other_pieces)
{
    plan *p = new_plan(1);

    p->device[1].window[0].place = PLACE_DISK;
    p->device[1].window[0].streamed_pieces = p->device[1].buffer_pieces = 2;
    p->pieces = 4;
    replace(p);
    cr_expect_eq(read_plan(1), PR_EMISMATCH);
    cr_expect(strstr(err.msg, "cuts layers in 4 pieces, this build in 8"), "%s", err.msg);
}

/* --- the greeting of a data connection -------------------------------------------------------------------
 */
Test(job, names_itself_to_the_next_device)
{
    const frame_limits fl = {JOB_TOKEN_BYTES, FRAME_BIT(FRAME_JOIN)};
    uint8_t token[JOB_TOKEN_BYTES];
    channel *a, *b;
    frame f;
    job *j;

    cr_assert_eq(channel_pair(&a, &b, true, &err), PR_OK, "%s", err.msg);
    cr_assert_eq(job_new(&j, text, n_text, 2, &sizes, &err), PR_OK);
    cr_assert_eq(job_send_join(j, a, UINT64_C(1) << 40, sock_deadline(1), &err), PR_OK);
    cr_assert_eq(frame_recv(b, &f, token, &fl, sock_deadline(1), &err), PR_OK, "%s", err.msg);
    cr_expect(f.rank == 2 && f.session == UINT64_C(1) << 40 && f.payload_bytes == 32);
    cr_expect(memcmp(token, sizes.token, 32) == 0);
    job_free(j);
    channel_close(a);
    channel_close(b);
}
