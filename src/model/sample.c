/* Logits -> token.
 *
 * A distribution is never sorted whole. The candidates go into a heap (best first: higher logit, then lower
 * id) and only as many are taken out as top-k and top-p look at. Whatever the filters keep is then described
 * by its worst member alone, because they all keep a prefix of that order; the draw is one walk over the ids,
 * in rising order, past those that are at least as good. Every sum is made in double and in that same order,
 * and the exponential is our own, so the choice depends neither on how the survivors were found nor on the
 * machine.
 *
 * Draw n uses the n-th number of a stream that is a function of (seed, n): there is no state to lose. */
#include "src/model/sample.h"
#include <assert.h>
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

const sample_params sample_defaults = {
    .temperature = 0,
    .top_p = 1,
    .top_k = 0,
    .min_p = 0,
    .repeat_penalty = 1,
    .repeat_last_n = 64,
    .presence_penalty = 0,
    .frequency_penalty = 0,
    .seed = 0,
};

enum { BLOCK = 512 }; /* ids whose weights are made together, and between two noted sums of them */

typedef struct {
    float logit;
    int32_t id;
} candidate;

struct sampler {
    sample_params p;
    size_t n_vocab, n_blocks;
    uint64_t draws;
    float *logits;      /* [n_blocks * BLOCK] penalised, without the banned; -inf behind n_vocab */
    double *sum_before; /* [n_blocks] see mass(); NULL when greedy */
    int32_t last_possible;
    candidate *heap; /* [n_vocab]; NULL when neither top-k nor top-p is on */
    int32_t *count;  /* [n_vocab] how often each id is in the window; NULL when there is no penalty */
    int32_t *window; /* [repeat_last_n] ring of the last tokens; NULL with repeat_last_n = -1 */
    size_t n_accepted;
};

static bool is_penalised(const sample_params *p)
{
    return p->repeat_last_n != 0 &&
           (p->repeat_penalty != 1 || p->presence_penalty != 0 || p->frequency_penalty != 0);
}

sampler *sampler_new(const sample_params *p, size_t n_vocab)
{
    sampler *s = calloc(1, sizeof *s);
    bool ok;

    assert(n_vocab > 0 && n_vocab < INT32_MAX);
    if (!s) return NULL;
    s->p = *p;
    s->n_vocab = n_vocab;
    s->n_blocks = (n_vocab + BLOCK - 1) / BLOCK;
    s->logits = malloc(s->n_blocks * BLOCK * sizeof *s->logits);
    ok = s->logits != NULL;
    for (size_t i = n_vocab; ok && i < s->n_blocks * BLOCK; i++) s->logits[i] = -INFINITY;
    if (p->temperature > 0) {
        s->sum_before = malloc(s->n_blocks * sizeof *s->sum_before);
        ok = ok && s->sum_before;
    }
    if (p->temperature > 0 && (p->top_k > 0 || p->top_p < 1)) {
        s->heap = malloc(n_vocab * sizeof *s->heap);
        ok = ok && s->heap;
    }
    if (is_penalised(p)) {
        s->count = calloc(n_vocab, sizeof *s->count);
        ok = ok && s->count;
        if (p->repeat_last_n > 0) {
            s->window = malloc((size_t)p->repeat_last_n * sizeof *s->window);
            ok = ok && s->window;
        }
    }
    if (ok) return s;
    sampler_free(s);
    return NULL;
}

void sampler_free(sampler *s)
{
    if (!s) return;
    free(s->logits);
    free(s->sum_before);
    free(s->heap);
    free(s->count);
    free(s->window);
    free(s);
}

void sampler_accept(sampler *s, int32_t id)
{
    if (!s->count || id < 0 || (size_t)id >= s->n_vocab) return;
    s->count[id]++;
    if (s->window) {
        size_t at = s->n_accepted % (size_t)s->p.repeat_last_n;
        if (s->n_accepted >= (size_t)s->p.repeat_last_n) s->count[s->window[at]]--;
        s->window[at] = id;
    }
    s->n_accepted++;
}

/* NaN counts as -inf; +inf as the largest number, so that differences stay numbers. */
static float clean(float logit)
{
    if (isnan(logit)) return -INFINITY;
    return logit > FLT_MAX ? FLT_MAX : logit;
}

/* In float, and in this order, as llama.cpp: penalised greedy choices agree with it. */
static float penalise(const sample_params *p, float logit, int32_t count)
{
    logit = logit > 0 ? logit / p->repeat_penalty : logit * p->repeat_penalty;
    return clean(logit - ((float)count * p->frequency_penalty + p->presence_penalty));
}

/* Cleaned, penalised and without the banned ids, into s->logits. */
static void prepare(sampler *s, const float *logits, const int32_t *banned, size_t n_banned)
{
    for (size_t i = 0; i < s->n_vocab; i++) {
        float logit = clean(logits[i]);
        s->logits[i] = s->count && s->count[i] > 0 ? penalise(&s->p, logit, s->count[i]) : logit;
    }
    for (size_t b = 0; b < n_banned; b++)
        if (banned[b] >= 0 && (size_t)banned[b] < s->n_vocab) s->logits[banned[b]] = -INFINITY;
}

static int32_t arg_max(const float *logits, size_t n)
{
    size_t best = 0;

    for (size_t i = 1; i < n; i++)
        if (logits[i] > logits[best]) best = i;
    return (int32_t)best;
}

static bool better(candidate a, candidate b)
{
    return a.logit > b.logit || (a.logit == b.logit && a.id < b.id);
}

/* Let the candidate at i sink to its place among heap[0, n), the best on top. */
static void sift_down(candidate *heap, size_t n, size_t i)
{
    candidate c = heap[i];

    for (size_t child; (child = 2 * i + 1) < n; i = child) {
        if (child + 1 < n && better(heap[child + 1], heap[child])) child++;
        if (!better(heap[child], c)) break;
        heap[i] = heap[child];
    }
    heap[i] = c;
}

/* The candidates from best to worst, brought into order only as far as asked for: c[0, n) holds those within
 * `depth` of the best, the first `taken` of the order at its end (the best one last), the rest as a heap. */
typedef struct {
    const sampler *s;
    float best;
    double depth;
    candidate *c;
    size_t n, taken;
} ranking;

static void collect(ranking *r, double depth)
{
    r->depth = depth;
    r->n = r->taken = 0;
    for (size_t i = 0; i < r->s->n_vocab; i++)
        if (r->s->logits[i] > -INFINITY && (double)r->s->logits[i] >= (double)r->best - depth)
            r->c[r->n++] = (candidate){r->s->logits[i], (int32_t)i};
    for (size_t i = r->n / 2; i-- > 0;) sift_down(r->c, r->n, i);
}

/* The candidate at a place (0 is the best); false when there are not so many. */
static bool ranked(ranking *r, size_t place, candidate *out)
{
    while (place >= r->n && r->depth < INFINITY) collect(r, r->depth < 64 ? 2 * r->depth : INFINITY);
    if (place >= r->n) return false;
    while (r->taken <= place) {
        size_t last = r->n - ++r->taken;
        candidate best = r->c[0];
        r->c[0] = r->c[last];
        r->c[last] = best;
        sift_down(r->c, last, 0);
    }
    *out = r->c[r->n - 1 - place];
    return true;
}

/* --- weights --------------------------------------------------------------------------------- */

/* e^x for -700 <= x <= 0: 2^k * e^r with |r| <= ln(2)/2, e^r by its series (the next term is below
 * 5e-18). Our own, because it is then the same on every machine, which the C library's is not, and because
 * the compiler makes vectors of it. */
static inline double exp_of(double x)
{
    const double magic = 0x1.8p52; /* added, it leaves the integer in the lowest bits */
    const double ln2_high = 0x1.62e42fep-1,
                 ln2_low = 0x1.f473de6af278fp-30; /* the high part is exact times k */
    double t = x * 0x1.71547652b82fep0 + magic, k = t - magic;
    double r = x - k * ln2_high - k * ln2_low;
    double p = 1. / 6227020800;
    uint64_t bits;

    p = p * r + 1. / 479001600;
    p = p * r + 1. / 39916800;
    p = p * r + 1. / 3628800;
    p = p * r + 1. / 362880;
    p = p * r + 1. / 40320;
    p = p * r + 1. / 5040;
    p = p * r + 1. / 720;
    p = p * r + 1. / 120;
    p = p * r + 1. / 24;
    p = p * r + 1. / 6;
    p = p * r + 0.5;
    p = p * r + 1;
    p = p * r + 1;
    memcpy(&bits, &t, sizeof bits);
    bits = (bits + 1023) << 52;
    memcpy(&k, &bits, sizeof k);
    return p * k;
}

/* What is so far below the best (also -inf) counts as this far below. */
static double bounded(double x)
{
    return x > -700 ? x : -700;
}

/* w[i] = e^((logit[i] - best) * scale) for a whole block. */
static void weigh(double w[BLOCK], const float *logit, float best, double scale)
{
    for (size_t i = 0; i < BLOCK; i++) w[i] = bounded(((double)logit[i] - (double)best) * scale);
    for (size_t i = 0; i < BLOCK; i++) w[i] = exp_of(w[i]); /* apart: this one becomes vectors */
}

/* The survivors of the filters are the ids at least as good as this. */
typedef struct {
    double logit;
    int32_t id;
} cut;

static bool survives(const sampler *s, size_t id, cut worst)
{
    double logit = (double)s->logits[id];
    return logit > worst.logit || (logit == worst.logit && (int32_t)id <= worst.id);
}

/* sum + the weights of the block's survivors one by one, until that exceeds `until`; *id is then the id where
 * it did, else the last that added anything. */
static double add_block(const sampler *s, size_t block, cut worst, float best, double scale, double sum,
                        double until, int32_t *id)
{
    size_t first = block * BLOCK, end = first + BLOCK < s->n_vocab ? first + BLOCK : s->n_vocab;
    double w[BLOCK];
    bool any = false;

    for (size_t i = first; i < end; i++) any |= (double)s->logits[i] >= worst.logit;
    if (!any) return sum;
    weigh(w, s->logits + first, best, scale);
    for (size_t i = first; i < end && sum <= until; i++) {
        if (s->logits[i] == -INFINITY || !survives(s, i, worst)) continue;
        sum += w[i - first];
        *id = (int32_t)i;
    }
    return sum;
}

/* Sum of the survivors' weights in rising id order; notes the running sum at the start of every block. */
static double mass(sampler *s, cut worst, float best, double scale)
{
    double sum = 0;

    for (size_t b = 0; b < s->n_blocks; b++) {
        s->sum_before[b] = sum;
        sum = add_block(s, b, worst, best, scale, sum, INFINITY, &s->last_possible);
    }
    return sum;
}

/* The first id at which the sum that mass() just made exceeds `until`, found in the one block where that
 * happens; the last one possible when rounding keeps the sum below. */
static int32_t walk(const sampler *s, cut worst, float best, double scale, double until)
{
    size_t b = s->n_blocks - 1;
    int32_t id = s->last_possible;

    while (b > 0 && s->sum_before[b] > until) b--;
    add_block(s, b, worst, best, scale, s->sum_before[b], until, &id);
    return id;
}

/* top-k, then top-p on what is left of the distribution at temperature 1, then min-p. */
static cut filter(sampler *s, float best)
{
    cut worst = {-INFINITY, INT32_MAX};
    size_t k = s->p.top_k > 0 ? (size_t)s->p.top_k : SIZE_MAX;

    if (s->heap) {
        ranking r = {s, best, 4, s->heap, 0, 0};
        candidate c;
        if (k < s->n_vocab && ranked(&r, k - 1, &c)) worst = (cut){(double)c.logit, c.id};
        if (s->p.top_p < 1) {
            double enough = (double)s->p.top_p * mass(s, worst, best, 1), sum = 0;
            for (size_t i = 0; i < k && (i == 0 || sum < enough) && ranked(&r, i, &c); i++) {
                sum += exp_of(bounded((double)c.logit - (double)best));
                worst = (cut){(double)c.logit, c.id};
            }
        }
    }
    if (s->p.min_p > 0) {
        double floor = (double)best + log((double)s->p.min_p);
        if (floor > worst.logit) worst = (cut){floor, INT32_MAX};
    }
    return worst;
}

static uint64_t mix(uint64_t x)
{
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
    return x ^ (x >> 31);
}

/* Number n of the stream `seed`, in [0, 1) with 53 bits: SplitMix64 (Steele, Lea, Flood 2014), which is a
 * hash of a counter, entered at n. The seed is hashed first, so that neighbouring seeds have unrelated
 * streams. */
static double uniform(uint64_t seed, uint64_t n)
{
    const uint64_t golden = 0x9E3779B97F4A7C15u;
    return (double)(mix(mix(seed + golden) + (n + 1) * golden) >> 11) * 0x1p-53;
}

int32_t sampler_next(sampler *s, const float *logits, const int32_t *banned, size_t n_banned)
{
    int32_t id;
    float best;
    cut worst;
    double temperature = (double)s->p.temperature, total;

    prepare(s, logits, banned, n_banned);
    id = arg_max(s->logits, s->n_vocab);
    best = s->logits[id];
    if (!(temperature > 0) || best == -INFINITY) return id;
    worst = filter(s, best);
    total = mass(s, worst, best, 1 / temperature);
    return walk(s, worst, best, 1 / temperature, uniform(s->p.seed, s->draws++) * total);
}

/* log(sum of e^logit); -inf when there is none. */
static double log_sum_exp(const float *logits, size_t n, float best)
{
    double sum = 0, w[BLOCK];
    float block[BLOCK];

    if (best == -INFINITY) return -INFINITY;
    for (size_t first = 0; first < n; first += BLOCK) {
        size_t n_here = n - first < BLOCK ? n - first : BLOCK;
        for (size_t i = 0; i < BLOCK; i++) block[i] = i < n_here ? clean(logits[first + i]) : -INFINITY;
        weigh(w, block, best, 1);
        for (size_t i = 0; i < n_here; i++) sum += w[i];
    }
    return (double)best + log(sum);
}

float sample_logprobs(const float *logits, size_t n_vocab, int32_t id, sample_candidate *top, size_t n_top)
{
    float best = -INFINITY;
    double log_sum;

    for (size_t i = 0; i < n_vocab; i++)
        if (clean(logits[i]) > best) best = clean(logits[i]);
    log_sum = log_sum_exp(logits, n_vocab, best);

    /* Insertion into a short list; ids come in rising order, so an equal one goes behind. */
    for (size_t i = 0; i < n_top; i++) top[i] = (sample_candidate){-1, -INFINITY};
    for (size_t i = 0; i < n_vocab && n_top > 0; i++) {
        float v = clean(logits[i]);
        size_t at = n_top;
        while (at > 0 && (top[at - 1].id < 0 || v > top[at - 1].logprob)) at--;
        if (at == n_top) continue;
        memmove(top + at + 1, top + at, (n_top - at - 1) * sizeof *top);
        top[at] = (sample_candidate){(int32_t)i, v};
    }
    if (best == -INFINITY) return -INFINITY;
    for (size_t i = 0; i < n_top && top[i].id >= 0; i++)
        top[i].logprob = (float)((double)top[i].logprob - log_sum);
    return id >= 0 && (size_t)id < n_vocab ? (float)((double)clean(logits[id]) - log_sum) : -INFINITY;
}
