/* launch_attention against softmax(q k) v in double; and every way to come to the same token against every
 * other, bit for bit: decoding, prompts cut anywhere, alone, among others.
 *
 * Sequences are there whole before anything is asked for, so that any position of any of them can be asked
 * for in any batch: keys behind it are then real keys, which must not matter. Slots behind a sequence's end
 * are 0xff (NaN as f16 and as f32), and so is all of the pool that no sequence uses. */
#include "kernels/cuda/cuda_impl.h"
#include "kernels/gpu_kv.h"
#include "kernels/gpu_step.h"
#include "kernels/quant.h"
#include "tests/gpu/harness.h"
#include <criterion/parameterized.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static void free_arrays(void);
TestSuite(attention, .timeout = 300, .fini = free_arrays);

enum { MAX_SEQUENCES = 8, MAX_KEYS = 704, MAX_RUNS = 704 };

/* --- a cache and its sequences ----------------------------------------------------------------------------
 */
struct shape {
    kv_type type;
    size_t S, H, K;
};

typedef struct {
    size_t n_keys;
    int32_t pages[MAX_KEYS / KV_PAGE + 1];
    float *k, *v; /* [n_keys][K][S] what the cache says, as numbers */
    float *q;     /* [n_keys][H][S] */
} sequence;

typedef struct {
    struct shape shape;
    float scale;
    size_t n_sequences, n_pages;
    sequence sequence[MAX_SEQUENCES];
    uint8_t *pool, *vram; /* [n_pages][K] pages */
} cache;

/* Zeros; freed when the test ends. */
static void **arrays;
static size_t n_arrays;

static void *new_array(size_t n, size_t size)
{
    void *p = calloc(n, size);

    arrays = realloc(arrays, (n_arrays + 1) * sizeof *arrays);
    cr_assert(p && arrays);
    return arrays[n_arrays++] = p;
}
static void free_arrays(void)
{
    for (size_t i = 0; i < n_arrays; i++) free(arrays[i]);
    free(arrays);
}

static uint8_t *page_of(const cache *c, const sequence *s, size_t pos, size_t head)
{
    return c->pool + ((size_t)s->pages[pos / KV_PAGE] * c->shape.K + head) *
                         gpu_kv_page_bytes(c->shape.type, c->shape.S);
}

static void set_f16(const cache *c, const sequence *s, size_t pos, size_t head, size_t dim, bool value,
                    float x)
{
    uint16_t *page = (uint16_t *)(void *)page_of(c, s, pos, head), h = quant_f32_to_f16(x);
    size_t S = c->shape.S, slot = pos % KV_PAGE;

    page[value ? gpu_kv_value_at(KV_F16, S, slot, dim) : gpu_kv_key_at(KV_F16, S, slot, dim)] = h;
    (value ? s->v : s->k)[(pos * c->shape.K + head) * S + dim] = quant_f16_to_f32(h);
}

static void set_scale(const cache *c, const sequence *s, size_t pos, size_t head, size_t dim, bool value,
                      float x)
{
    float *scales = (float *)(void *)(page_of(c, s, pos, head) + gpu_kv_scales(c->shape.S));
    size_t S = c->shape.S, slot = pos % KV_PAGE;

    scales[value ? gpu_kv_value_scale_at(S, slot, dim) : gpu_kv_key_scale_at(slot, dim)] = x;
}

/* Random 8-bit numbers with the extremes among them, and a scale of their own for each 32. */
static void set_q8(const cache *c, const sequence *s, size_t pos, size_t head, bool value)
{
    int8_t *page = (int8_t *)page_of(c, s, pos, head);
    size_t S = c->shape.S, slot = pos % KV_PAGE;
    float scale = 0;

    for (size_t dim = 0; dim < S; dim++) {
        int q = random_below(20) ? (int)random_below(255) - 127 : random_below(2) ? 127 : -127;
        if (dim % 32 == 0) {
            scale = (1.5f + random_float()) / 127;
            set_scale(c, s, pos, head, dim, value, scale);
        }
        page[value ? gpu_kv_value_at(KV_Q8_0, S, slot, dim) : gpu_kv_key_at(KV_Q8_0, S, slot, dim)] =
            (int8_t)q;
        (value ? s->v : s->k)[(pos * c->shape.K + head) * S + dim] = scale * (float)q;
    }
}

static void set_token(const cache *c, const sequence *s, size_t pos)
{
    for (size_t head = 0; head < c->shape.K; head++) {
        for (int value = 0; value < 2; value++) {
            if (c->shape.type == KV_Q8_0) set_q8(c, s, pos, head, value);
            for (size_t i = 0; c->shape.type == KV_F16 && i < c->shape.S; i++)
                set_f16(c, s, pos, head, i, value, random_float());
        }
    }
}

/* Every page of the pool belongs to one sequence or none. */
static void deal_pages(cache *c)
{
    int32_t *deck = new_array(c->n_pages, sizeof *deck);
    size_t left = c->n_pages;

    for (size_t i = 0; i < left; i++) deck[i] = (int32_t)i;
    for (size_t i = 0; i < c->n_sequences; i++) {
        for (size_t p = 0; p * KV_PAGE < c->sequence[i].n_keys; p++) {
            size_t at = random_below((uint32_t)left);
            c->sequence[i].pages[p] = deck[at];
            deck[at] = deck[--left];
        }
    }
}

static void upload(cache *c)
{
    size_t bytes = c->n_pages * c->shape.K * gpu_kv_page_bytes(c->shape.type, c->shape.S);

    if (c->vram) vram_write(c->vram, c->pool, bytes);
    else c->vram = vram_from(c->pool, bytes);
}

static cache *new_cache(const struct shape *shape, const size_t *n_keys, size_t n_sequences)
{
    cache *c = new_array(1, sizeof *c);
    size_t bytes, row;

    *c = (cache){.shape = *shape, .n_sequences = n_sequences, .n_pages = 3};
    row = shape->K * shape->S;
    c->scale = 1 / sqrtf((float)shape->S);
    for (size_t i = 0; i < n_sequences; i++) c->n_pages += (n_keys[i] + KV_PAGE - 1) / KV_PAGE;
    bytes = c->n_pages * shape->K * gpu_kv_page_bytes(shape->type, shape->S);
    c->pool = new_array(bytes, 1);
    memset(c->pool, 0xff, bytes);
    for (size_t i = 0; i < n_sequences; i++) c->sequence[i].n_keys = n_keys[i];
    deal_pages(c);
    for (size_t i = 0; i < n_sequences; i++) {
        sequence *s = &c->sequence[i];
        s->k = new_array(s->n_keys * row, sizeof(float));
        s->v = new_array(s->n_keys * row, sizeof(float));
        s->q = new_array(s->n_keys * shape->H * shape->S, sizeof(float));
        random_floats(s->q, s->n_keys * shape->H * shape->S, 6);
        for (size_t pos = 0; pos < s->n_keys; pos++) set_token(c, s, pos);
    }
    upload(c);
    return c;
}

/* --- what is right ----------------------------------------------------------------------------------------
 */
static void expected_head(const cache *c, const sequence *s, size_t pos, size_t head, float *out)
{
    size_t S = c->shape.S, row = c->shape.K * S, kv = head / (c->shape.H / c->shape.K) * S;
    const float *q = s->q + (pos * c->shape.H + head) * S;
    double score[MAX_KEYS], top = -INFINITY, total = 0;

    for (size_t key = 0; key <= pos; key++) {
        score[key] = 0;
        for (size_t i = 0; i < S; i++) score[key] += (double)q[i] * s->k[key * row + kv + i];
        score[key] *= c->scale;
        if (score[key] > top) top = score[key];
    }
    for (size_t key = 0; key <= pos; key++) total += score[key] = exp(score[key] - top);
    for (size_t i = 0; i < S; i++) {
        double sum = 0;
        for (size_t key = 0; key <= pos; key++) sum += score[key] * s->v[key * row + kv + i];
        out[i] = (float)(sum / total);
    }
}

/* Values are -1 .. 1 (Q8_0: up to 2.5). What is rounded to f16: q, in scores up to about 10, hence weights to
 * 10 x 2^-12 at worst; weights to 2^-12; Q8_0's values twice to 2^-12. */
static void expect_right(const cache *c, const sequence *s, size_t pos, const float *got)
{
    size_t S = c->shape.S;
    float expected[256];

    for (size_t head = 0; head < c->shape.H; head++) {
        double error = 0, size = 0;

        expected_head(c, s, pos, head, expected);
        expect_close(got + head * S, expected, S, 2e-3f, c->shape.type == KV_F16 ? 2e-3f : 5e-3f,
                     "attention");
        for (size_t i = 0; i < S; i++) {
            double d = (double)got[head * S + i] - expected[i];
            error += d * d;
            size += (double)expected[i] * expected[i];
        }
        cr_assert(error <= 1.5e-3 * 1.5e-3 * size, "position %zu, head %zu: rms error %g of the values'", pos,
                  head, sqrt(error / size));
    }
}

/* --- asking ------------------------------------------------------------------------------------------------
 */
typedef struct {
    size_t sequence, pos, n;
} piece;

/* WIDE: with blocks for more spans than there are; MIXED: pieces of one token as DECODE, the others as PROMPT
 */
typedef enum { DECODE, DECODE_WIDE, MIXED, PROMPT } way;

/* [tokens of all pieces][H * S] */
static float *attend(const cache *c, const piece *p, size_t n_pieces, way w)
{
    size_t row = c->shape.H * c->shape.S, q_stride = row + 4, out_stride = row + 8, T = 0;
    gpu_run *runs = new_array(n_pieces, sizeof *runs);
    float none = 0, *q, *out, *packed;

    for (size_t i = 0; i < n_pieces; i++) {
        runs[i] = (gpu_run){T, p[i].n, p[i].pos, c->sequence[p[i].sequence].pages};
        T += p[i].n;
        cr_assert(p[i].pos + p[i].n <= c->sequence[p[i].sequence].n_keys);
    }
    q = new_array(T * q_stride, sizeof *q);
    out = new_array(T * out_stride, sizeof *out);
    packed = new_array(T * row, sizeof *packed);
    memset(q, 0xff, T * q_stride * sizeof *q);
    for (size_t i = 0; i < n_pieces; i++) {
        for (size_t t = 0; t < p[i].n; t++)
            memcpy(q + (runs[i].first + t) * q_stride, c->sequence[p[i].sequence].q + (p[i].pos + t) * row,
                   row * sizeof *q);
    }

    gpu_shape shape = {.n_heads = c->shape.H, .n_kv_heads = c->shape.K};
    gpu_batch batch = {.n_tokens = T, .n_runs = n_pieces, .run = runs, .rope = &none};
    gpu_step_layout l = gpu_step_layout_of(&batch, &shape, MAX_KEYS / KV_PAGE + 1, 16);
    uint8_t *step = new_array(l.bytes, 1), *at;
    gpu_step_fill(step, &l, &batch, &shape);
    at = vram_from(step, l.bytes);
    cr_assert(w == PROMPT || w == MIXED || l.is_decoding);

    size_t n_split = w == PROMPT ? 0 : l.n_single, n_spans = l.single_bucket + (w == DECODE_WIDE ? 3 : 0);
    gpu_attention_args a = {.q = vram_from(q, T * q_stride * sizeof *q),
                            .out = vram_new(T * out_stride * sizeof *out),
                            .q_stride = q_stride,
                            .out_stride = out_stride,
                            .n_heads = c->shape.H,
                            .n_kv_heads = c->shape.K,
                            .head_size = c->shape.S,
                            .scale = c->scale,
                            .type = c->shape.type,
                            .kv = c->vram,
                            .step = {.pos = (int32_t *)(void *)(at + l.pos),
                                     .tile = (int32_t *)(void *)(at + l.tile),
                                     .first = (int32_t *)(void *)(at + l.first),
                                     .pages = (int32_t *)(void *)(at + l.pages),
                                     .max_pages = l.page_stride},
                            .n_tiles = l.n_tiles,
                            .n_split = n_split,
                            .n_spans = n_spans};
    if (n_split) a.partial = vram_new(gpu_attention_scratch(n_split, c->shape.H, c->shape.S, n_spans));
    run(launch_attention(&a, test_stream()));
    vram_read(out, a.out, T * out_stride * sizeof *out);
    for (size_t t = 0; t < T; t++) {
        memcpy(packed + t * row, out + t * out_stride, row * sizeof *out);
        for (size_t i = row; i < out_stride; i++)
            cr_assert(isnan(out[t * out_stride + i]), "written behind token %zu", t);
    }
    return packed;
}

static float *attend_one(const cache *c, size_t sequence_index, size_t pos, size_t n, way w)
{
    return attend(c, &(piece){sequence_index, pos, n}, 1, w);
}

static size_t row_of(const cache *c)
{
    return c->shape.H * c->shape.S;
}

/* Positions of a sequence, each decoded, in one batch: the first 40, those from `first` on, and one in
 * `rarely` of the others. out [n_keys][H * S] */
typedef struct {
    float *out;
    bool *is_there;
} decoded;

static decoded decode_some(const cache *c, size_t sequence_index, size_t first, uint32_t rarely)
{
    size_t n_keys = c->sequence[sequence_index].n_keys, n = 0, row = row_of(c);
    piece *p = new_array(n_keys, sizeof *p);
    decoded d = {new_array(n_keys * row, sizeof *d.out), new_array(n_keys, sizeof *d.is_there)};
    float *got;

    for (size_t pos = 0; pos < n_keys; pos++) {
        d.is_there[pos] = pos < 40 || pos >= first || random_below(rarely) == 0;
        if (d.is_there[pos]) p[n++] = (piece){sequence_index, pos, 1};
    }
    got = attend(c, p, n, DECODE);
    for (size_t i = 0; i < n; i++) memcpy(d.out + p[i].pos * row, got + i * row, row * sizeof *got);
    return d;
}

/* got: positions [pos, pos + n) */
static void expect_same(const cache *c, const float *got, const decoded *d, size_t pos, size_t n,
                        const char *what)
{
    for (size_t i = 0; i < n; i++)
        if (d->is_there[pos + i])
            expect_same_bits(got + i * row_of(c), d->out + (pos + i) * row_of(c), row_of(c), what);
}

/* --- right -------------------------------------------------------------------------------------------------
 */
static const struct shape shapes[] = {
    {KV_F16, 64, 8, 2},  {KV_F16, 80, 7, 1},   {KV_F16, 128, 8, 1},  {KV_F16, 128, 2, 2},
    {KV_F16, 96, 4, 1},  {KV_Q8_0, 64, 7, 1},  {KV_Q8_0, 96, 4, 1},  {KV_Q8_0, 128, 16, 2},
    {KV_F16, 256, 4, 1}, {KV_Q8_0, 256, 2, 1}, {KV_F16, 8, 3, 3},    {KV_F16, 24, 2, 1},
    {KV_F16, 72, 5, 1},  {KV_F16, 120, 2, 1},  {KV_Q8_0, 32, 2, 1},  {KV_F16, 200, 2, 2},
    {KV_F16, 16, 64, 1}, {KV_F16, 48, 20, 1},  {KV_Q8_0, 160, 2, 1},
};
enum { N_SHAPES = sizeof shapes / sizeof *shapes };

struct attention_case {
    size_t shape;
};
static struct criterion_test_params first_shapes(size_t n)
{
    static struct attention_case cases[N_SHAPES];

    for (size_t i = 0; i < n; i++) cases[i].shape = i;
    return cr_make_param_array(struct attention_case, cases, n);
}

/* One step of sequences of all sorts of lengths. The prompts' kernel gives the same bits for it. */
ParameterizedTestParameters(attention, decoding_is_right)
{
    return first_shapes(N_SHAPES);
}
ParameterizedTest(struct attention_case *x, attention, decoding_is_right)
{
    static const size_t n_keys[] = {1, 31, 700, 32, 33, 257, 255, 256};
    piece p[8];
    cache *c;
    float *steps, *prompted;

    need_gpu();
    c = new_cache(&shapes[x->shape], n_keys, 8);
    for (size_t i = 0; i < 8; i++) p[i] = (piece){i, n_keys[i] - 1, 1};
    steps = attend(c, p, 8, DECODE);
    for (size_t i = 0; i < 8; i++) expect_right(c, &c->sequence[i], n_keys[i] - 1, steps + i * row_of(c));
    prompted = attend(c, p, 8, PROMPT);
    expect_same_bits(prompted, steps, 8 * row_of(c), "as prompts");
    expect_same_bits(attend(c, p, 8, DECODE_WIDE), steps, 8 * row_of(c), "blocks for more spans");
    for (size_t i = 0; i < 8; i += 2)
        expect_same_bits(attend_one(c, i, n_keys[i] - 1, 1, DECODE), steps + i * row_of(c), row_of(c),
                         "alone");
}

/* A prompt, whole and cut in pieces that are in one batch with pieces of another one: the same bits as each
 * token decoded, which are right. */
ParameterizedTestParameters(attention, prompts_are_decoding)
{
    return first_shapes(7);
}
ParameterizedTest(struct attention_case *x, attention, prompts_are_decoding)
{
    static const size_t n_keys[] = {290, 75};
    decoded d[2];
    piece p[64];
    cache *c;

    need_gpu();
    c = new_cache(&shapes[x->shape], n_keys, 2);
    for (size_t i = 0; i < 2; i++) {
        d[i] = decode_some(c, i, 240, 5);
        for (size_t pos = i; pos < n_keys[i]; pos++)
            if (d[i].is_there[pos] && pos % 4 == 0)
                expect_right(c, &c->sequence[i], pos, d[i].out + pos * row_of(c));
        expect_same(c, attend_one(c, i, 0, n_keys[i], PROMPT), &d[i], 0, n_keys[i], "whole prompt");
    }
    for (int trial = 0; trial < 2; trial++) {
        size_t n = 0, done[2] = {0, 0}, at = 0;
        const float *got;

        while (n < 64 && (done[0] < n_keys[0] || done[1] < n_keys[1])) {
            size_t i = random_below(2), left = n_keys[i] - done[i];
            size_t take = random_below(3) ? 1 + random_below(trial ? 40 : 9) : 1;
            if (!left) continue;
            if (take > left || n >= 62) take = left;
            p[n++] = (piece){i, done[i], take};
            done[i] += take;
        }
        got = attend(c, p, n, trial ? MIXED : PROMPT);
        for (size_t i = 0; i < n; i++) {
            expect_same(c, got + at * row_of(c), &d[p[i].sequence], p[i].pos, p[i].n, "pieces in one batch");
            at += p[i].n;
        }
    }
}

/* Sequences that decode, among them long ones, in one step with prompts in front of them, between and behind:
 * each as alone. */
ParameterizedTestParameters(attention, mixed_steps_are_each_alone)
{
    return first_shapes(8);
}
ParameterizedTest(struct attention_case *x, attention, mixed_steps_are_each_alone)
{
    static const size_t n_keys[] = {300, 700, 33, 520, 513, 1};
    static const piece p[] = {{0, 265, 35}, {1, 699, 1}, {2, 0, 33}, {4, 512, 1}, {3, 500, 20}, {5, 0, 1}};
    cache *c;
    const float *got;

    need_gpu();
    c = new_cache(&shapes[x->shape], n_keys, 6);
    got = attend(c, p, 6, MIXED);
    for (size_t i = 0; i < 6; got += p[i++].n * row_of(c)) {
        way alone = p[i].n == 1 ? DECODE : PROMPT;
        expect_same_bits(got, attend(c, &p[i], 1, alone), p[i].n * row_of(c), "alone");
    }
}

/* --- numbers that are none
 * ---------------------------------------------------------------------------------- */
/* A token whose value is NaN or infinite, whose key is NaN, whose query is: who does not see it, does not
 * notice; and it does not matter how the batch is cut. */
static const struct shape hostile_shapes[] = {{KV_F16, 64, 4, 1}, {KV_F16, 80, 3, 1}, {KV_Q8_0, 64, 2, 1}};

static void spoil(const cache *c, size_t what, size_t pos)
{
    sequence *s = (sequence *)&c->sequence[0];

    if (what == 3) { /* a query beyond what f16 holds, another NaN */
        for (size_t i = 0; i < c->shape.S; i++) s->q[pos * row_of(c) + i] = i % 2 ? 1e30f : -1e30f;
        s->q[(pos + 1) * row_of(c)] = NAN;
    } else if (c->shape.type == KV_Q8_0) {
        set_scale(c, s, pos, 0, 32, what > 0, what == 2 ? INFINITY : NAN);
    } else {
        set_f16(c, s, pos, 0, 7, what > 0, what == 2 ? INFINITY : NAN);
    }
}

/* What is spoilt is: it does not get lost either. */
static void expect_spoilt(const cache *c, size_t what, size_t pos, const decoded *before,
                          const decoded *after)
{
    size_t S = c->shape.S, row = row_of(c), next = (pos + 1) * row;
    const float *out = after->out + pos * row;

    if (what == 0) cr_assert(isnan(out[0]));
    if (what == 1 || what == 2) cr_assert(!isfinite(out[c->shape.type == KV_F16 ? 7 : 40]));
    if (what < 3) return;
    cr_assert(isnan(out[0]) && isnan(out[row + 0]));
    expect_same_bits(after->out + next + S, before->out + next + S,
                     (c->sequence[0].n_keys - pos - 1) * row - S, "other heads and tokens");
}

ParameterizedTestParameters(attention, spoilt_tokens)
{
    static struct attention_case cases[] = {{0}, {1}, {2}};
    return cr_make_param_array(struct attention_case, cases, 3);
}
ParameterizedTest(struct attention_case *x, attention, spoilt_tokens)
{
    static const size_t n_keys[] = {290}, spoilt = 263;
    const piece cut[] = {{0, 0, 258}, {0, 258, 3}, {0, 261, 29}};
    decoded before, after;
    cache *c;

    need_gpu();
    for (size_t what = 0; what < 4; what++) {
        c = new_cache(&hostile_shapes[x->shape], n_keys, 1);
        before = decode_some(c, 0, 256, 50);
        spoil(c, what, spoilt);
        upload(c);
        after = decode_some(c, 0, 256, 50);
        for (size_t pos = 0; pos < spoilt; pos++)
            if (before.is_there[pos] && after.is_there[pos])
                expect_same(c, after.out + pos * row_of(c), &before, pos, 1, "before the spoilt token");
        expect_spoilt(c, what, spoilt, &before, &after);
        expect_same(c, attend_one(c, 0, 0, n_keys[0], PROMPT), &after, 0, n_keys[0], "whole prompt");
        expect_same(c, attend(c, cut, 3, PROMPT), &after, 0, n_keys[0], "cut");
    }
}

/* Large scores: one key takes all, or all of a span are far behind those of another one. */
Test(attention, large_scores)
{
    static const struct shape shape = {KV_F16, 64, 4, 1};
    static const size_t n_keys[] = {600};
    cache *c;
    sequence *s;
    float *out, *expected = new_array(256, sizeof *expected);

    need_gpu();
    c = new_cache(&shape, n_keys, 1);
    s = &c->sequence[0];
    for (size_t i = 0; i < 64; i++) {
        set_f16(c, s, 300, 0, i, false, i % 2 ? 200.0f : -200.0f);
        for (size_t h = 0; h < 4; h++) {
            s->q[(599 * 4 + h) * 64 + i] = (i % 2 ? 100.0f : -100.0f) * (h < 2 ? 1 : -1);
        }
    }
    upload(c);
    out = attend_one(c, 0, 599, 1, DECODE);
    for (size_t h = 0; h < 2; h++) /* q k = 1.28e6 x 0.125: its value alone is the answer */
        expect_same_bits(out + h * 64, s->v + 300 * 64, 64, "the one key");
    for (size_t h = 2; h < 4; h++) {
        expected_head(c, s, 599, h, expected);
        for (size_t i = 0; i < 64; i++) cr_assert(isfinite(out[h * 64 + i]) && isfinite(expected[i]));
    }
    expect_same_bits(attend_one(c, 0, 560, 40, PROMPT) + 39 * 256, out, 256, "in a prompt");
}

/* Keys whose score is -inf have no weight, and a page or a span of nothing else no influence. */
Test(attention, minus_infinity)
{
    static const struct shape shape = {KV_F16, 64, 2, 1};
    static const size_t n_keys[] = {520};
    decoded d;
    cache *c;
    sequence *s;

    need_gpu();
    c = new_cache(&shape, n_keys, 1);
    s = &c->sequence[0];
    for (size_t pos = 0; pos < 520; pos++) {
        bool hidden = pos > 0 && (pos < 40 || (pos >= 256 && pos < 300) || pos >= 512);
        for (size_t h = 0; h < 2; h++) s->q[(pos * 2 + h) * 64 + 7] = 1;
        if (hidden) set_f16(c, s, pos, 0, 7, false, -INFINITY);
    }
    upload(c);
    d = decode_some(c, 0, 480, 10);
    for (size_t pos = 0; pos < 520; pos++)
        if (d.is_there[pos]) expect_right(c, s, pos, d.out + pos * row_of(c));
    expect_same(c, attend_one(c, 0, 0, 520, PROMPT), &d, 0, 520, "in a prompt");
}

/* A GPU with little shared memory takes fewer rows at a time, and fewer pages: the same bits. */
Test(attention, small_shared_memory)
{
    static const struct shape shape[] = {{KV_F16, 256, 4, 1}, {KV_Q8_0, 256, 4, 1}, {KV_F16, 128, 4, 1}};
    static const size_t n_keys[] = {100};

    need_gpu();
    if (!is_emulated()) cr_skip_test("only an emulated GPU changes its size");
    for (size_t i = 0; i < 3; i++) {
        cache *c = new_cache(&shape[i], n_keys, 1);
        float *large = attend_one(c, 0, 60, 40, PROMPT);
        static const char *const arch[] = {"75", "86"};

        for (size_t k = 0; k < 2; k++) {
            setenv("PRIMA_EMULATE_ARCH", arch[k], 1);
            expect_same_bits(attend_one(c, 0, 60, 40, PROMPT), large, 40 * row_of(c), "on a smaller GPU");
            unsetenv("PRIMA_EMULATE_ARCH");
        }
    }
}
