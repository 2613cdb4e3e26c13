/* Attention and the pages of the KV cache, every instruction set and the reference, against a plain softmax
 * in double over the keys and values as the page holds them.
 *
 * Slots that hold no token yet are full of NaN: what a page held before must not reach anybody (a weight of
 * zero does not help, 0 x NaN is NaN). */
#include "kernels/kernels.h"
#include "tests/kernels/blocks.h"
#include "tests/kernels/isas.h"
#include <criterion/parameterized.h>
#include <math.h>

enum { N_PAGES = 36, N_KEYS = N_PAGES * KV_PAGE }; /* 1152 keys: two whole spans and a piece of the third */

static const size_t head_sizes[] = {8, 32, 64, 80, 96, 128};
static const kv_type kv_types[] = {KV_F16, KV_Q8_0, KV_F32};
enum { N_HEAD_SIZES = sizeof head_sizes / sizeof *head_sizes };

struct attn_case {
    int isa;
    kv_type type;
    size_t head_size;
};

static struct criterion_test_params every_case(void)
{
    static struct attn_case cases[ISA_COUNT * 3 * N_HEAD_SIZES];
    size_t n = 0;

    for (int isa = 0; isa < ISA_COUNT; isa++) {
        for (int t = 0; t < 3; t++) {
            for (size_t s = 0; s < N_HEAD_SIZES; s++) {
                if (kv_types[t] == KV_Q8_0 && head_sizes[s] % 32) continue;
                cases[n++] = (struct attn_case){isa, kv_types[t], head_sizes[s]};
            }
        }
    }
    return cr_make_param_array(struct attn_case, cases, n);
}

/* --- reading a page, written here from the layout in kernels.h -------------------------------- */

static float page_key(kv_type t, const uint8_t *page, size_t slot, size_t i, size_t S)
{
    if (t == KV_F16) return quant_f16_to_f32(((const uint16_t *)page)[i * 32 + slot]);
    if (t == KV_F32) return ((const float *)page)[i * 32 + slot];
    return (float)((const int8_t *)page)[i * 32 + slot] *
           ((const float *)(page + 32 * S))[i / 32 * 32 + slot];
}

static float page_value(kv_type t, const uint8_t *page, size_t slot, size_t i, size_t S)
{
    if (t == KV_F16) return quant_f16_to_f32(((const uint16_t *)page)[32 * S + slot * S + i]);
    if (t == KV_F32) return ((const float *)page)[32 * S + slot * S + i];
    page += 32 * S + S / 32 * 32 * 4;
    return (float)((const int8_t *)page)[slot * S + i] *
           ((const float *)(page + 32 * S))[slot * (S / 32) + i / 32];
}

/* Every slot a NaN: 0xffff and 0xffffffff are NaN as f16 and f32 (the scales of Q8_0). */
static void empty_page(uint8_t *page, size_t bytes)
{
    memset(page, 0xff, bytes);
}

/* --- storing ---------------------------------------------------------------------------------- */

/* kv_put stores the nearest f16, the value, or 8 bits by the rule, in its own slot and nowhere else. */
ParameterizedTestParameters(kv, put_stores_one_token)
{
    return every_case();
}
ParameterizedTest(struct attn_case *c, kv, put_stores_one_token)
{
    size_t S = c->head_size, bytes = kv_page_bytes(c->type, S);
    uint8_t *page = test_alloc(bytes), *before = test_alloc(bytes), *ref_page = test_alloc(bytes);
    float *k_in = test_alloc((S + 1) * sizeof *k_in), *v_in = test_alloc((S + 1) * sizeof *v_in);
    uint64_t state = 11;
    kernel_table k, ref;

    kernels_init(&ref, 0);
    isa_table(&k, c->isa);
    empty_page(page, bytes);
    empty_page(ref_page, bytes);
    for (size_t n = 0; n < 40; n++) {
        size_t slot = n * 7 % KV_PAGE;
        float *kx = k_in + n % 2, *vx = v_in + n % 2, size = n % 5 == 4 ? 1e-6f : n % 5 == 3 ? 0 : 3;

        for (size_t i = 0; i < S; i++)
            kx[i] = rnd_float(&state) * size, vx[i] = rnd_float(&state) * size * 10;
        memcpy(before, page, bytes);
        k.kv_put(c->type, page, slot, kx, vx, S);
        ref.kv_put(c->type, ref_page, slot, kx, vx, S);
        cr_assert_arr_eq(page, ref_page, bytes, "token %zu: other bytes than the reference", n);
        for (size_t i = 0; i < S; i++) {
            float kf = page_key(c->type, page, slot, i, S), vf = page_value(c->type, page, slot, i, S);
            float k_max = 0, v_max = 0;

            if (c->type == KV_F32) cr_assert(kf == kx[i] && vf == vx[i]);
            if (c->type == KV_F16) {
                cr_assert_eq(kf, quant_f16_to_f32(quant_f32_to_f16(kx[i])));
                cr_assert_eq(vf, quant_f16_to_f32(quant_f32_to_f16(vx[i])));
            }
            if (c->type != KV_Q8_0) continue;
            for (size_t j = i / 32 * 32; j < i / 32 * 32 + 32; j++) {
                k_max = fmaxf(k_max, fabsf(kx[j]));
                v_max = fmaxf(v_max, fabsf(vx[j]));
            }
            cr_assert_leq(fabsf(kf - kx[i]), k_max / 127 * 0.50001f,
                          "half a step of 1/127 of the block's largest");
            cr_assert_leq(fabsf(vf - vx[i]), v_max / 127 * 0.50001f);
        }
        for (size_t other = 0; other < KV_PAGE; other++) {
            for (size_t i = 0; other != slot && i < S; i++) {
                float a = page_key(c->type, page, other, i, S), b = page_key(c->type, before, other, i, S);
                float va = page_value(c->type, page, other, i, S),
                      vb = page_value(c->type, before, other, i, S);
                cr_assert(memcmp(&a, &b, 4) == 0 && memcmp(&va, &vb, 4) == 0, "slot %zu changed with %zu",
                          other, slot);
            }
        }
    }
    free(page);
    free(before);
    free(ref_page);
    free(k_in);
    free(v_in);
}

/* --- one sequence ----------------------------------------------------------------------------- */

struct sequence {
    kv_type type;
    size_t S, n_group, n_keys, page_stride;
    uint8_t *pool;
    int32_t pages[N_PAGES];
    float *q; /* [N_KEYS][n_group + 1][S]: a query of every position; the last head is nobody's */
    size_t q_stride;
    float scale;
    uint64_t keys_state;
};

static void sequence_clear(struct sequence *s)
{
    free(s->pool);
    free(s->q);
}

/* Append random tokens until there are n_keys. */
static void sequence_grow(struct sequence *s, size_t n_keys)
{
    kernel_table ref;
    float k[128], v[128];

    kernels_init(&ref, 0);
    for (; s->n_keys < n_keys; s->n_keys++) {
        uint8_t *page = s->pool + s->page_stride * (size_t)s->pages[s->n_keys / KV_PAGE];

        for (size_t i = 0; i < s->S; i++) {
            k[i] = rnd_float(&s->keys_state) * 2;
            v[i] = rnd_float(&s->keys_state);
        }
        ref.kv_put(s->type, page, s->n_keys % KV_PAGE, k, v, s->S);
    }
}

/* No tokens yet; pages lie in the pool in another order for every `shuffle`. */
static void sequence_init(struct sequence *s, const struct attn_case *c, size_t n_group, float q_size,
                          int shuffle)
{
    uint64_t state = 21;

    *s = (struct sequence){.type = c->type, .S = c->head_size, .n_group = n_group, .keys_state = 22};
    s->page_stride = kv_page_bytes(c->type, s->S) * 2 + 64; /* another head's page in between */
    s->scale = 1 / sqrtf((float)s->S);
    s->q_stride = (n_group + 1) * s->S;
    s->pool = test_alloc(N_PAGES * s->page_stride);
    s->q = test_alloc(N_KEYS * s->q_stride * sizeof(float));
    empty_page(s->pool, N_PAGES * s->page_stride);
    for (int p = 0; p < N_PAGES; p++) s->pages[p] = (p * 7 + 5 + shuffle * 11) % N_PAGES; /* 7, 36 coprime */
    for (size_t i = 0; i < N_KEYS * s->q_stride; i++) s->q[i] = rnd_float(&state) * q_size;
}

/* Queries [pos, pos + n) in one call; out rows are n_group * S floats, poisoned before. */
static float *attend(const kernel_table *k, const struct sequence *s, size_t pos, size_t n)
{
    size_t stride = s->n_group * s->S + 16, bytes = ATTN_SCRATCH(s->S, s->n_group);
    float *out = test_alloc(n * stride * sizeof *out);
    uint8_t *scratch = test_alloc(bytes + 64);
    attn_args a = {.type = s->type,
                   .head_size = s->S,
                   .n_group = s->n_group,
                   .scale = s->scale,
                   .kv = s->pool,
                   .page_stride = s->page_stride,
                   .pages = s->pages,
                   .q = s->q + pos * s->q_stride,
                   .out = out,
                   .q_stride = s->q_stride,
                   .out_stride = stride,
                   .n_queries = n,
                   .pos = pos};

    memset(scratch, 0xff, bytes + 64);
    memset(out, 0xff, n * stride * sizeof *out);
    k->attention(&a, scratch);
    for (size_t i = 0; i < 64; i++) cr_assert_eq(scratch[bytes + i], 0xff, "wrote past its scratch");
    for (size_t i = 0; i < n; i++) {
        for (size_t j = s->n_group * s->S; j < stride; j++)
            cr_assert(isnan(out[i * stride + j]), "wrote past the heads");
        memmove(out + i * s->n_group * s->S, out + i * stride, s->n_group * s->S * sizeof *out);
    }
    free(scratch);
    return out;
}

/* The definition, and the error that f32 arithmetic may add. For a score: S products and sums, each rounded,
 * and the scale: (S + 3) EPS of the sum of magnitudes, which is the relative error of its weight; exp 4 EPS
 * and one for the difference from the maximum (a rounding of a number up to twice the largest score). Sums
 * over n keys in any order: n EPS, twice (values and weights); rescalings page by page and span by span: 4
 * EPS a page. */
static void check_query(const struct sequence *s, size_t pos, const float *q, const float *got)
{
    const double eps = 0x1p-24;
    size_t n = pos + 1;
    double *w = malloc(n * sizeof *w), top = -INFINITY, total = 0, score_error = 0;

    for (size_t key = 0; key < n; key++) {
        const uint8_t *page = s->pool + s->page_stride * (size_t)s->pages[key / KV_PAGE];
        double dot = 0, size = 0;
        for (size_t i = 0; i < s->S; i++) {
            double term = (double)q[i] * page_key(s->type, page, key % KV_PAGE, i, s->S) * s->scale;
            dot += term;
            size += fabs(term);
        }
        w[key] = dot;
        top = fmax(top, dot);
        score_error = fmax(score_error, (double)(s->S + 6) * eps * size);
    }
    for (size_t key = 0; key < n; key++) total += w[key] = exp(w[key] - top);
    for (size_t i = 0; i < s->S; i++) {
        double sum = 0, size = 0;
        for (size_t key = 0; key < n; key++) {
            const uint8_t *page = s->pool + s->page_stride * (size_t)s->pages[key / KV_PAGE];
            double term = w[key] / total * page_value(s->type, page, key % KV_PAGE, i, s->S);
            sum += term;
            size += fabs(term);
        }
        double bound = (2 * score_error + (double)(2 * n + 4 * (n / KV_PAGE + 1) + 12) * eps) * size;
        cr_assert_leq(fabs(got[i] - sum), bound, "position %zu dimension %zu: %g, expected %g within %g", pos,
                      i, (double)got[i], sum, bound);
    }
    free(w);
}

/* Stretches of positions, ends rising: from the start, over page borders, over span borders (512, 1024), the
 * last. */
static const struct {
    size_t pos, n;
} stretches[] = {{0, 1}, {0, 40}, {31, 2}, {60, 9}, {500, 30}, {511, 1}, {512, 1}, {1010, 33}, {1151, 1}};
enum { N_STRETCHES = sizeof stretches / sizeof *stretches };

static void table_or_skip(kernel_table *k, const struct attn_case *c)
{
    kernel_table ref;

    kernels_init(&ref, 0);
    isa_table(k, c->isa);
    if (c->isa != ISA_REF && k->attention == ref.attention) cr_skip_test("none in %s", isa_names[c->isa]);
}

ParameterizedTestParameters(attention, is_a_softmax)
{
    return every_case();
}
ParameterizedTest(struct attn_case *c, attention, is_a_softmax, .timeout = 60)
{
    static const size_t groups[] = {1, 2, 5, 8};
    kernel_table k;

    table_or_skip(&k, c);
    for (size_t g = 0; g < sizeof groups / sizeof *groups; g++) {
        struct sequence s;

        sequence_init(&s, c, groups[g], g == 2 ? 30 : 1, 0); /* 30: scores far apart, most weights vanish */
        for (size_t i = 0; i < N_STRETCHES; i++) {
            size_t pos = stretches[i].pos, n = stretches[i].n;

            if (pos > 600 && g > 1) continue;
            sequence_grow(&s, pos + n);
            float *out = attend(&k, &s, pos, n);
            for (size_t j = 0; j<n; j += n> 4 ? 3 : 1) {
                for (size_t h = 0; h < groups[g]; h += h ? 3 : 1) {
                    check_query(&s, pos + j, s.q + (pos + j) * s.q_stride + h * s.S,
                                out + (j * groups[g] + h) * s.S);
                }
            }
            free(out);
        }
        sequence_clear(&s);
    }
}

/* The bits of a query depend on its position, its input and its keys alone: not on the queries in the same
 * call, not on where pages lie, not on keys after it. */
ParameterizedTestParameters(attention, depends_on_the_position_alone)
{
    return every_case();
}
ParameterizedTest(struct attn_case *c, attention, depends_on_the_position_alone, .timeout = 60)
{
    enum { G = 3, WHOLE = 600 };
    struct sequence s, moved;
    kernel_table k;
    size_t row = G * c->head_size;

    table_or_skip(&k, c);
    size_t whole_n = c->isa == ISA_REF ? 70 : WHOLE; /* the reference is slow */
    sequence_init(&s, c, G, 1, 0);
    sequence_grow(&s, whole_n);
    sequence_init(&moved, c, G, 1, 1);
    sequence_grow(&moved, N_KEYS); /* the same keys first, then more */
    float *whole = attend(&k, &s, 0, whole_n);
    for (size_t i = 0; i < N_STRETCHES; i++) {
        size_t pos = stretches[i].pos, n = stretches[i].n;

        if (pos + n > whole_n) continue;
        float *many = attend(&k, &moved, pos, n);
        cr_assert_arr_eq(many, whole + pos * row, n * row * sizeof *many, "%zu queries from %zu on", n, pos);
        for (size_t j = 0; j < n; j++) {
            float *one = attend(&k, &s, pos + j, 1);
            cr_assert_arr_eq(one, whole + (pos + j) * row, row * sizeof *one, "query %zu alone", pos + j);
            free(one);
        }
        free(many);
    }
    free(whole);
    sequence_clear(&s);
    sequence_clear(&moved);
}

/* A head gets the same bits in a group of any size, and at any place in it. */
ParameterizedTestParameters(attention, heads_do_not_meet)
{
    return every_case();
}
ParameterizedTest(struct attn_case *c, attention, heads_do_not_meet, .timeout = 60)
{
    enum { G = 11 }; /* more than the rows of any register tile */
    size_t n_keys = c->isa == ISA_REF ? 40 : N_KEYS, n = 12, pos = n_keys - n;
    struct sequence s;
    kernel_table k;

    table_or_skip(&k, c);
    sequence_init(&s, c, G, 1, 0);
    sequence_grow(&s, n_keys);
    float *all = attend(&k, &s, pos, n);
    for (size_t first = 0; first < G; first++) {
        struct sequence some = s;

        some.q = s.q + first * s.S;
        some.n_group = first % 3 + 1 < G - first ? first % 3 + 1 : G - first;
        float *out = attend(&k, &some, pos, n);
        for (size_t i = 0; i < n; i++) {
            cr_assert_arr_eq(out + i * some.n_group * s.S, all + (i * G + first) * s.S,
                             some.n_group * s.S * sizeof *out, "heads %zu and on, query %zu", first, i);
        }
        free(out);
    }
    free(all);
    sequence_clear(&s);
}

/* Keys and values that are not finite change nothing before their position, and everything from there on: a
 * broken sequence must not look like a working one. */
ParameterizedTestParameters(attention, nan_stays_where_it_is)
{
    return every_case();
}
ParameterizedTest(struct attn_case *c, attention, nan_stays_where_it_is)
{
    enum { G = 2, N = 75 };
    static const float odd[] = {NAN, INFINITY};
    static const size_t places[] = {0, 1, 31, 32, 44, 74};
    struct sequence s;
    kernel_table k, ref;
    float bad[128];

    table_or_skip(&k, c);
    kernels_init(&ref, 0);
    sequence_init(&s, c, G, 1, 0);
    sequence_grow(&s, N);
    float *good = attend(&k, &s, 0, N);
    for (size_t p = sizeof places / sizeof *places; p-- > 0;) { /* from the back: what is bad stays bad */
        size_t at = places[p];

        for (size_t i = 0; i < s.S; i++) bad[i] = odd[p % 2];
        ref.kv_put(s.type, s.pool + s.page_stride * (size_t)s.pages[at / KV_PAGE], at % KV_PAGE, bad, bad,
                   s.S);
        float *out = attend(&k, &s, 0, N);
        cr_assert_arr_eq(out, good, at * G * s.S * sizeof *out, "before %zu", at);
        for (size_t i = at * G * s.S; i < N * G * s.S; i++) cr_assert(isnan(out[i]), "from %zu on", at);
        free(out);
    }
    free(good);
    sequence_clear(&s);
}
