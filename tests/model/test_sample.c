/* The sampler against a second implementation that sorts everything, against its own definition in words, and
 * against the distribution it should draw from. */
#include "src/model/sample.h"
#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Inputs: a fixed generator of our own (xorshift64*), independent of the one under test. */
static uint64_t state = 88172645463325252u;
static uint64_t next_u64(void)
{
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    return state * 2685821657736338717u;
}
static double next_unit(void)
{
    return (double)(next_u64() >> 11) / 9007199254740992.0;
}
static float next_normal(void)
{
    return (float)(sqrt(-2 * log(1 - next_unit())) * cos(6.283185307179586 * next_unit()));
}

static sample_params params(float temperature)
{
    sample_params p = sample_defaults;
    p.temperature = temperature;
    p.seed = 1;
    return p;
}

static int32_t once(const sample_params *p, const float *logits, size_t n)
{
    sampler *s = sampler_new(p, n);
    int32_t id = sampler_next(s, logits, NULL, 0);
    sampler_free(s);
    return id;
}

/* --- greedy ---------------------------------------------------------------------------------- */

Test(sample, greedy_takes_the_largest_and_the_lowest_id_of_equals)
{
    sample_params p = params(0);
    const float logits[] = {1, 3, 2, 3, -1};
    cr_expect_eq(once(&p, logits, 5), 1);
    cr_expect_eq(once(&p, logits, 1), 0);
}

Test(sample, nan_and_infinities)
{
    const float inf = INFINITY;
    for (int t = 0; t < 2; t++) {
        sample_params p = params((float)t);
        p.top_k = t;
        cr_expect_eq(once(&p, (const float[]){NAN, -inf, -5, NAN}, 4), 2);
        cr_expect_eq(once(&p, (const float[]){NAN, NAN, -inf}, 3), 0, "nothing possible: id 0");
        cr_expect_eq(once(&p, (const float[]){1, inf, 2}, 3), 1);
        p.top_k = 0;
        p.min_p = 0.5f;
        p.top_p = 0.5f;
        cr_expect_eq(once(&p, (const float[]){1, inf, 2, NAN}, 4), 1);
    }
}

Test(sample, banned_ids_are_never_chosen)
{
    const float logits[] = {0, 50, 40, 30};
    const int32_t banned[] = {1, 2, -1, 77};
    for (int t = 0; t < 2; t++) {
        sample_params p = params((float)t);
        sampler *s = sampler_new(&p, 4);
        for (int i = 0; i < 50; i++) cr_expect_eq(sampler_next(s, logits, banned, 4), 3);
        sampler_free(s);
    }
    cr_expect_eq(logits[1], 50, "the logits are left as they were");
}

/* --- penalties: expected values by hand
 * ------------------------------------------------------------------------- */

Test(sample, repeat_penalty_divides_positive_and_multiplies_negative_logits)
{
    sample_params p = params(0);
    p.repeat_penalty = 2;
    sampler *s = sampler_new(&p, 4);
    sampler_accept(s, 0);
    sampler_accept(s, 2);
    /* 8/2 = 4 < 5; and among negatives -1*2 = -2 < -1.5. */
    cr_expect_eq(sampler_next(s, (const float[]){8, 5, 4.5f, 3}, NULL, 0), 1);
    cr_expect_eq(sampler_next(s, (const float[]){-1, -1.5f, -1, -9}, NULL, 0), 1);
    sampler_free(s);
}

Test(sample, presence_counts_once_and_frequency_every_time)
{
    sample_params p = params(0);
    p.presence_penalty = 1.5f;
    sampler *s = sampler_new(&p, 3);
    for (int i = 0; i < 5; i++) sampler_accept(s, 0);
    cr_expect_eq(sampler_next(s, (const float[]){5, 3.4f, 0}, NULL, 0), 0, "5 - 1.5 = 3.5");
    cr_expect_eq(sampler_next(s, (const float[]){5, 3.6f, 0}, NULL, 0), 1);
    sampler_free(s);

    p = params(0);
    p.frequency_penalty = 0.5f;
    s = sampler_new(&p, 3);
    for (int i = 0; i < 3; i++) sampler_accept(s, 0);
    sampler_accept(s, 1);
    cr_expect_eq(sampler_next(s, (const float[]){5, 3.9f, 0}, NULL, 0), 0,
                 "5 - 1.5 = 3.5 against 3.9 - 0.5 = 3.4");
    cr_expect_eq(sampler_next(s, (const float[]){5, 4.1f, 0}, NULL, 0), 1);
    sampler_free(s);
}

Test(sample, only_the_last_tokens_are_penalised)
{
    const float logits[] = {5, 4, 0};
    sample_params p = params(0);
    p.presence_penalty = 2;
    p.repeat_last_n = 2;
    sampler *s = sampler_new(&p, 3);
    sampler_accept(s, 0);
    sampler_accept(s, 2);
    cr_expect_eq(sampler_next(s, logits, NULL, 0), 1, "0 is in the window");
    sampler_accept(s, 2);
    cr_expect_eq(sampler_next(s, logits, NULL, 0), 0, "0 has left it");
    sampler_free(s);

    p.repeat_last_n = 0;
    s = sampler_new(&p, 3);
    sampler_accept(s, 0);
    cr_expect_eq(sampler_next(s, logits, NULL, 0), 0, "no window");
    sampler_free(s);

    p.repeat_last_n = -1;
    s = sampler_new(&p, 3);
    sampler_accept(s, 0);
    for (int i = 0; i < 1000; i++) sampler_accept(s, 2);
    cr_expect_eq(sampler_next(s, logits, NULL, 0), 1, "everything is in the window");
    sampler_free(s);
}

/* --- filters: which ids can come out, by sorting
 * -------------------------------------------------------------------- */

static const float *sort_by;
static int by_logit(const void *a, const void *b)
{
    int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    if (sort_by[x] != sort_by[y]) return sort_by[x] > sort_by[y] ? -1 : 1;
    return x - y;
}

/* Probabilities after all filters, straight from the description in sample.h. */
static void expected_distribution(const sample_params *p, const float *logits, size_t n, double *prob)
{
    int32_t *order = malloc(n * sizeof *order);
    size_t left = n, kept = 0;
    double sum = 0, cumulated = 0, best, total = 0;

    for (size_t i = 0; i < n; i++) order[i] = (int32_t)i;
    sort_by = logits;
    qsort(order, n, sizeof *order, by_logit);
    best = (double)logits[order[0]];
    if (p->top_k > 0 && (size_t)p->top_k < left) left = (size_t)p->top_k;
    for (size_t i = 0; i < left; i++) sum += exp((double)logits[order[i]] - best);
    while (kept < left) {
        cumulated += exp((double)logits[order[kept++]] - best) / sum;
        if (p->top_p < 1 && cumulated >= (double)p->top_p) break;
    }
    while (kept > 1 && exp((double)logits[order[kept - 1]] - best) < (double)p->min_p) kept--;
    memset(prob, 0, n * sizeof *prob);
    for (size_t i = 0; i < kept; i++) {
        prob[order[i]] = exp(((double)logits[order[i]] - best) / (double)p->temperature);
        total += prob[order[i]];
    }
    for (size_t i = 0; i < n; i++) prob[i] /= total;
    free(order);
}

/* Upper tail of chi-square by Wilson and Hilferty: z of the value, about normal. */
static double chi_square_z(double x, double k)
{
    return (cbrt(x / k) - (1 - 2 / (9 * k))) / sqrt(2 / (9 * k));
}

struct draw_case {
    float temperature, top_p, min_p;
    int top_k, n;
};

ParameterizedTestParameters(sample, draws_follow_the_filtered_distribution)
{
    static struct draw_case cases[] = {
        {1, 1, 0, 0, 40},
        {0.5f, 1, 0, 0, 40},
        {1.7f, 1, 0, 0, 1000},
        {1, 1, 0, 5, 40},
        {1, 1, 0, 40, 40},
        {1, 1, 0, 1, 40},
        {1, 0.9f, 0, 0, 40},
        {0.7f, 0.3f, 0, 0, 2000},
        {1, 1e-9f, 0, 0, 40},
        {2, 0.999f, 0, 0, 700},
        {1, 1, 0.05f, 0, 40},
        {1, 1, 0.9999f, 0, 40},
        {0.8f, 0.95f, 0, 20, 2000},
        {1.3f, 0.9f, 0.02f, 30, 2000},
        {3, 1, 0.2f, 10, 600},
        {1, 0.5f, 0, 3, 511},
        {1, 1, 0, 0, 512},
        {1, 1, 0, 0, 513},
        {1, 1, 0, 0, 1},
        {0.01f, 1, 0, 0, 40},
    };
    return cr_make_param_array(struct draw_case, cases, sizeof cases / sizeof *cases);
}

ParameterizedTest(struct draw_case *c, sample, draws_follow_the_filtered_distribution, .timeout = 60)
{
    enum { DRAWS = 40000 };
    size_t n = (size_t)c->n, cells = 0;
    float *logits = malloc(n * sizeof *logits);
    double *prob = malloc(n * sizeof *prob), chi = 0, rest_p = 0, rest_n = 0;
    unsigned *seen = calloc(n, sizeof *seen);
    sample_params p = params(c->temperature);
    sampler *s;

    p.top_p = c->top_p;
    p.min_p = c->min_p;
    p.top_k = c->top_k;
    p.seed = 4711;
    /* Rounded to quarters: many equal logits, so ties at the edges of the filters happen. */
    for (size_t i = 0; i < n; i++) logits[i] = roundf(next_normal() * 8) / 4;
    expected_distribution(&p, logits, n, prob);
    s = sampler_new(&p, n);
    for (int i = 0; i < DRAWS; i++) seen[sampler_next(s, logits, NULL, 0)]++;
    for (size_t i = 0; i < n; i++) {
        double want = prob[i] * DRAWS;
        if (prob[i] == 0) cr_assert_eq(seen[i], 0, "id %zu is filtered out and came %u times", i, seen[i]);
        if (want >= 10) {
            chi += ((double)seen[i] - want) * ((double)seen[i] - want) / want;
            cells++;
        } else {
            rest_p += want;
            rest_n += (double)seen[i];
        }
    }
    if (rest_p >= 10) {
        chi += (rest_n - rest_p) * (rest_n - rest_p) / rest_p;
        cells++;
    }
    /* Fixed seeds: it passes or it does not. 4 sigma: 1 in 30,000 for a right sampler and another seed. */
    if (cells > 1)
        cr_expect_lt(fabs(chi_square_z(chi, (double)cells - 1)), 4, "chi-square %g with %zu cells", chi,
                     cells);
    sampler_free(s);
    free(logits);
    free(prob);
    free(seen);
}

Test(sample, large_vocabularies_with_ties_everywhere)
{
    /* 150,000 ids in 5 steps of logits: the first k of the order are the lowest ids of the best step. */
    enum { N = 150000, K = 1000 };
    float *logits = malloc(N * sizeof *logits);
    sample_params p = params(100);
    p.top_k = K;
    for (int i = 0; i < N; i++) logits[i] = (float)(i % 5);
    sampler *s = sampler_new(&p, N);
    for (int i = 0; i < 500; i++) {
        int32_t id = sampler_next(s, logits, NULL, 0);
        cr_assert(id % 5 == 4 && id < 5 * K, "%d", id);
    }
    sampler_free(s);
    free(logits);
}

/* --- the stream of numbers --------------------------------------------------------------------- */

static void draw_many(uint64_t seed, int32_t *out, int n)
{
    static float flat[4096];
    sample_params p = params(1);
    p.seed = seed;
    sampler *s = sampler_new(&p, 4096);
    for (int i = 0; i < n; i++) out[i] = sampler_next(s, flat, NULL, 0);
    sampler_free(s);
}

Test(sample, same_seed_same_draws_other_seed_others)
{
    int32_t a[200], b[200], c[200];
    int same = 0;
    draw_many(7, a, 200);
    draw_many(7, b, 200);
    draw_many(8, c, 200);
    cr_expect_arr_eq(a, b, sizeof a);
    for (int i = 0; i < 200; i++) same += a[i] == c[i];
    cr_expect_lt(same, 5, "200 draws of 4096: 0.05 expected to agree");
}

/* SplitMix64 as its authors publish it, with a state; draw n of ours must be its n-th number, started at the
 * hash of the seed (its own output function applied to seed + golden ratio). */
static uint64_t splitmix64(uint64_t *x)
{
    uint64_t z = (*x += 0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
}

Test(sample, the_stream_is_splitmix64)
{
    const uint64_t seeds[] = {0, 1, 42, UINT64_MAX};
    uint64_t known = 1234567;
    cr_assert_eq(splitmix64(&known), 6457827717110365317u, "published first value for 1234567");
    for (size_t k = 0; k < 4; k++) {
        uint64_t start = seeds[k], at = splitmix64(&start);
        int32_t got[100];
        draw_many(seeds[k], got, 100);
        for (int i = 0; i < 100; i++)
            cr_expect_eq(got[i], (int32_t)(splitmix64(&at) >> 52), "flat over 4096 ids: the top 12 bits");
    }
}

Test(sample, draws_do_not_depend_on_what_other_draws_were_from)
{
    /* Draw 1 gives the same number whatever the logits of draw 0 were. */
    static float flat[512];
    float peaked[512] = {0};
    sample_params p = params(1);
    peaked[9] = 100;
    sampler *a = sampler_new(&p, 512), *b = sampler_new(&p, 512);
    sampler_next(a, flat, NULL, 0);
    sampler_next(b, peaked, NULL, 0);
    cr_expect_eq(sampler_next(a, flat, NULL, 0), sampler_next(b, flat, NULL, 0));
    sampler_free(a);
    sampler_free(b);
}

/* --- log-probabilities -------------------------------------------------------------------------- */

Test(sample, logprobs_by_hand)
{
    /* exp: 1, 2, 4, 1 of 8 */
    const float logits[] = {0, (float)log(2), (float)log(4), 0};
    sample_candidate top[3];
    cr_expect_float_eq(sample_logprobs(logits, 4, 1, top, 3), log(0.25), 1e-6);
    cr_expect_eq(top[0].id, 2);
    cr_expect_float_eq(top[0].logprob, log(0.5), 1e-6);
    cr_expect_eq(top[1].id, 1);
    cr_expect_eq(top[2].id, 0, "of equals the lower id first");
    cr_expect_float_eq(top[2].logprob, log(0.125), 1e-6);
    cr_expect_float_eq(sample_logprobs(logits, 4, 3, NULL, 0), log(0.125), 1e-6);
}

Test(sample, logprobs_of_odd_logits)
{
    sample_candidate top[5];
    const float some[] = {NAN, 1, -INFINITY}, none[] = {NAN, -INFINITY};
    cr_expect_float_eq(sample_logprobs(some, 3, 1, top, 5), 0, 1e-7);
    cr_expect_eq(top[0].id, 1);
    cr_expect_eq(top[3].id, -1, "more places than ids");
    cr_expect_eq(sample_logprobs(some, 3, 0, NULL, 0), -INFINITY);
    cr_expect_eq(sample_logprobs(none, 2, 0, top, 2), -INFINITY);
    cr_expect_eq(sample_logprobs(some, 3, 99, NULL, 0), -INFINITY);
}

Test(sample, logprobs_against_sorting)
{
    enum { N = 5000, TOP = 20 };
    float *logits = malloc(N * sizeof *logits);
    int32_t order[N];
    double sum = 0;
    sample_candidate top[TOP];

    for (int i = 0; i < N; i++) {
        logits[i] = roundf(next_normal() * 40) / 8;
        order[i] = i;
        sum += exp((double)logits[i]);
    }
    sort_by = logits;
    qsort(order, N, sizeof *order, by_logit);
    sample_logprobs(logits, N, 0, top, TOP);
    for (int i = 0; i < TOP; i++) {
        cr_expect_eq(top[i].id, order[i]);
        cr_expect_float_eq(top[i].logprob, (double)logits[order[i]] - log(sum), 1e-5);
    }
    free(logits);
}
