/* The kernels of every instruction set that this CPU has, checked by a plain program that needs libc and libm
 * only: so it can be cross-built for aarch64, where Criterion is not, and run under qemu-user (neon.test.sh).
 * Prints TAP.
 *
 *   products     matmul_q8_ref's result, bit for bit: every type, 1 to 8 tokens, odd rows, odd stretches of
 * groups quantisers   the reference's bytes, and so kv_put operations   the reference (in double) within a
 * stated error attention    the reference within a stated error; bits that depend on position and values
 * alone all ISAs     one checksum over operations and attention: kernels/vec/ promises the same bits on all
 */
#include "kernels/kernels.h"
#include "kernels/pack.h"
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What operations and attention give for fixed inputs, on every instruction set. It changes when their order
 * of arithmetic does, and then for all of them at once; it says nothing about right and wrong. */
static const uint32_t SAME_BITS = 0x4ff18f6c;

static int n_tests, n_failed;
static const char *isa;
static uint64_t rng;

/* One line of TAP. */
static void report(bool ok, const char *format, ...)
{
    va_list ap;

    va_start(ap, format);
    n_tests++;
    n_failed += !ok;
    printf("%s %d - %s: ", ok ? "ok" : "not ok", n_tests, isa);
    vprintf(format, ap);
    printf("\n");
    fflush(stdout);
    va_end(ap);
}

static uint32_t rnd(void)
{
    rng = rng * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(rng >> 32);
}

/* Within +-size; a multiple of size * 2^-23. */
static float rnd_float(float size)
{
    return ((float)(rnd() & 0xffffff) * 0x1p-23f - 1) * size;
}

static void *buffer(size_t bytes)
{
    void *p = aligned_alloc(64, (bytes + 63) / 64 * 64);

    if (!p) {
        printf("Bail out! out of memory\n");
        exit(1);
    }
    return memset(p, 0xff, (bytes + 63) / 64 * 64);
}

static float *floats(size_t n, float size)
{
    float *x = buffer(n * sizeof *x);
    for (size_t i = 0; i < n; i++) x[i] = rnd_float(size);
    return x;
}

/* n values of kind 0..N_ODD - 1: nothing, next to nothing, very much, not finite, and half way between two
 * steps of a block whose largest is 127. */
enum { N_ODD = 10 };
static void odd_values(float *x, size_t n, size_t kind)
{
    static const float odd[] = {0, -0.0f, 1e-40f, 0x1p-111f, 0x1p-109f, 3e38f, INFINITY, -INFINITY, NAN};

    for (size_t i = 0; i < n; i++) {
        if (kind == N_ODD - 1) x[i] = i % 32 ? (float)(rnd() % 253) - 126.5f : 127;
        else if (kind < 6) x[i] = i & 1 ? -odd[kind] : odd[kind];
        else x[i] = i == n / 3 ? odd[kind] : rnd_float(2);
    }
}

/* --- products ------------------------------------------------------------------------------ */

enum { RANDOM, ALL_ONES, SIGN_BITS, KINDS };
enum { T_MAX = 13 };

/* One block with finite scales: every f16 number is made smaller than 2 (other 16-bit fields do not mind). */
static void make_block(uint32_t type, int kind, uint8_t *block)
{
    const quant_type *t = quant_info(type);
    float f = rnd_float(2);

    for (size_t i = 0; i < t->block_bytes; i++) {
        block[i] = kind == RANDOM ? (uint8_t)rnd() : kind == ALL_ONES ? 0xff : 0x80;
    }
    for (const pack_field *field = pack_fields(type); field->bytes; field++) {
        if (field->bytes == 2) block[field->offset + 1] &= 0xbf;
    }
    if (type == Q_IQ1_M) block[55] &= 0xbf;
    if (t->block_values == 1) quant_quantize(type, &f, block, 1);
}

typedef struct {
    matmul_args args;
    uint8_t *rows, *pack, *x;
} product;

static void product_init(product *p, const kernel_table *k, uint32_t type, int kind, size_t n_rows,
                         size_t n_cols)
{
    size_t row_bytes = quant_row_bytes(type, n_cols), block = quant_info(type)->block_bytes;
    act_kind act = act_for_type(type);
    float *x = floats(n_cols, 3);

    p->rows = buffer(n_rows * row_bytes);
    p->pack = buffer(pack_bytes(type, n_rows, n_cols));
    p->x = buffer(T_MAX * act_row_bytes(act, n_cols));
    for (size_t at = 0; at < n_rows * row_bytes; at += block) make_block(type, kind, p->rows + at);
    pack_rows(type, p->pack, p->rows, n_rows, n_cols, 0, pack_groups(n_rows));
    for (size_t t = 0; t < T_MAX; t++) {
        for (size_t i = 0; i < n_cols; i++) x[i] = kind == RANDOM ? rnd_float(3) : t % 2 ? -5 : 5;
        k->quantize[act](p->x + t * act_row_bytes(act, n_cols), x, n_cols);
    }
    p->args = (matmul_args){.type = type,
                            .pack = p->pack,
                            .n_rows = n_rows,
                            .n_cols = n_cols,
                            .x = p->x,
                            .x_stride = act_row_bytes(act, n_cols),
                            .out_stride = pack_groups(n_rows) * PACK_ROWS};
    free(x);
}

static void product_clear(product *p)
{
    free(p->rows);
    free(p->pack);
    free(p->x);
}

/* n_tokens rows of output, the groups in two calls. */
static float *multiply(const product *p, matmul_fn fn, size_t n_tokens)
{
    matmul_args a = p->args;
    size_t groups = pack_groups(a.n_rows);
    void *scratch = buffer(MATMUL_SCRATCH(n_tokens));

    a.n_tokens = n_tokens;
    a.out = buffer(n_tokens * a.out_stride * sizeof(float));
    fn(&a, 0, groups / 2, scratch);
    fn(&a, groups / 2, groups, scratch);
    free(scratch);
    return a.out;
}

static bool same_product(const kernel_table *k, uint32_t type, int kind, size_t n_rows, size_t n_cols)
{
    static const size_t tokens[] = {1, 2, 3, 4, 7, 8, 13};
    bool same = true;
    product p;

    product_init(&p, k, type, kind, n_rows, n_cols);
    for (size_t i = 0; same && i < sizeof tokens / sizeof *tokens; i++) {
        float *want = multiply(&p, matmul_q8_ref, tokens[i]), *got = multiply(&p, k->matmul[type], tokens[i]);

        for (size_t t = 0; same && t < tokens[i]; t++) {
            for (size_t row = 0; same && row < n_rows; row++) {
                const float *w = want + t * p.args.out_stride + row, *g = got + t * p.args.out_stride + row;
                same = memcmp(w, g, sizeof *w) == 0;
                if (same) continue;
                printf("# %zu x %zu, kind %d, token %zu of %zu, row %zu: %a, expected %a\n", n_rows, n_cols,
                       kind, t, tokens[i], row, (double)*g, (double)*w);
            }
        }
        free(want);
        free(got);
    }
    product_clear(&p);
    return same;
}

static void check_products(const kernel_table *k)
{
    for (uint32_t type = 0; type < Q_TYPE_COUNT; type++) {
        const quant_type *t = quant_info(type);
        size_t unit = t ? t->block_values : 1;
        bool same = true;

        if (!t || k->matmul[type] == matmul_q8_ref) continue;
        for (int kind = 0; kind < KINDS; kind++) {
            same = same && same_product(k, type, kind, 1, unit == 256 ? 256 : 32);
            same = same && same_product(k, type, kind, 37, unit == 256 ? 768 : 352);
            same = same && same_product(k, type, kind, 16, unit == 1 ? 301 : 1024);
        }
        report(same, "product of %s (%s) is the definition's, bit for bit", t->name, k->matmul_path[type]);
    }
}

/* --- quantisers ---------------------------------------------------------------------------- */

static void check_quantiser(const kernel_table *k, const kernel_table *ref, act_kind act)
{
    enum { N = 256 * (N_ODD + 3) };
    float *x = floats(N, 2);
    size_t bytes = act_row_bytes(act, N);
    uint8_t *want = buffer(bytes), *got = buffer(bytes);

    for (size_t b = 0; b < N_ODD; b++) odd_values(x + 256 * b, 256, b);
    ref->quantize[act](want, x, N);
    k->quantize[act](got, x, N);
    report(memcmp(want, got, bytes) == 0, "activations %s: the reference's bytes",
           act == ACT_Q8_256 ? "Q8_256" : "Q8_32");
    free(x);
    free(want);
    free(got);
}

static void check_kv_put(const kernel_table *k, const kernel_table *ref)
{
    static const char *const names[] = {"F16", "Q8_0", "F32"};
    enum { SIZE = 96 };

    for (kv_type type = KV_F16; type <= KV_F32; type++) {
        size_t bytes = kv_page_bytes(type, SIZE);
        uint8_t *want = buffer(bytes), *got = buffer(bytes);

        for (size_t slot = 0; slot < N_ODD; slot++) {
            float x[2 * SIZE];

            odd_values(x, SIZE, slot);
            odd_values(x + SIZE, SIZE, N_ODD - 1 - slot);
            ref->kv_put(type, want, slot * 3, x, x + SIZE, SIZE);
            k->kv_put(type, got, slot * 3, x, x + SIZE, SIZE);
        }
        report(memcmp(want, got, bytes) == 0, "kv_put %s: the reference's bytes for odd values", names[type]);
        free(want);
        free(got);
    }
}

/* --- operations ---------------------------------------------------------------------------- */

static uint32_t checksum;

static void add_to_checksum(const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, x + i, sizeof bits);
        checksum = (checksum ^ bits) * 16777619u;
    }
}

/* Largest difference relative to `size`, or to the expected value where size is 0. */
static double worst(const float *got, const float *want, size_t n, double size)
{
    double most = 0;

    for (size_t i = 0; i < n; i++) {
        double d = fabs((double)got[i] - want[i]) / (size > 0 ? size : fabs((double)want[i]) + 1e-30);
        if (!(d <= most)) most = d;
    }
    return most;
}

/* The tolerances: 2^-24 is one rounding. The norm's sum has n / 16 + 4 additions in a chain, of which the
 * root takes half, and six more roundings follow; a rotation has two products and a sum; SiLU has an
 * exponential of 4 roundings and four more operations. */
static void check_ops(const kernel_table *k, const kernel_table *ref)
{
    static const size_t lengths[] = {1, 15, 16, 17, 172, 4099};
    double norm = 0, silu = 0, sum = 0;

    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        size_t n = lengths[i];
        float *x = floats(n, 30), *y = floats(n, 2), *got = buffer(n * sizeof *got),
              *want = buffer(n * sizeof *want);

        k->rms_norm(got, x, y, n, 1e-5f);
        ref->rms_norm(want, x, y, n, 1e-5f);
        norm = fmax(norm, worst(got, want, n, 0) / (double)(n / 32 + 9));
        add_to_checksum(got, n);
        memcpy(got, x, n * sizeof *x);
        memcpy(want, x, n * sizeof *x);
        k->silu_mul(got, y, n);
        ref->silu_mul(want, y, n);
        silu = fmax(silu, worst(got, want, n, 0));
        add_to_checksum(got, n);
        k->add(got, y, n);
        for (size_t j = 0; j < n; j++) sum = fmax(sum, fabs(got[j] - (want[j] + y[j])));
        free(x);
        free(y);
        free(got);
        free(want);
    }
    report(norm <= 0x1p-24, "rms_norm within its roundings (%.2f of them)", norm * 0x1p24);
    report(silu <= 8 * 0x1p-24, "silu_mul within 8 roundings (%.2f)", silu * 0x1p24);
    report(sum <= 60 * 8 * 0x1p-24, "add (%g)", sum);
}

static void check_rope(const kernel_table *k, const kernel_table *ref)
{
    static const struct {
        size_t n_heads, head_size, n_rot;
    } shapes[] = {{5, 8, 8}, {3, 80, 20}, {4, 64, 32}, {2, 96, 96}, {32, 128, 128}};
    double error = 0;

    for (size_t i = 0; i < 2 * sizeof shapes / sizeof *shapes; i++) {
        size_t n = shapes[i / 2].n_heads * shapes[i / 2].head_size;
        float *got = floats(n, 2), *want = buffer(n * sizeof *want), *cs = floats(shapes[i / 2].n_rot, 1);

        memcpy(want, got, n * sizeof *want);
        k->rope(got, shapes[i / 2].n_heads, shapes[i / 2].head_size, shapes[i / 2].n_rot, cs, i % 2);
        ref->rope(want, shapes[i / 2].n_heads, shapes[i / 2].head_size, shapes[i / 2].n_rot, cs, i % 2);
        error = fmax(error, worst(got, want, n, 4));
        add_to_checksum(got, n);
        free(got);
        free(want);
        free(cs);
    }
    report(error <= 2 * 0x1p-24, "rope within 2 roundings of the products (%.2f)", error * 0x1p24);
}

/* --- attention ----------------------------------------------------------------------------- */

enum { N_KEYS = 1061, N_PAGES = (N_KEYS + KV_PAGE - 1) / KV_PAGE + 1, G_MAX = 5 };
static const char *const kv_names[] = {"F16", "Q8_0", "F32"};

typedef struct {
    kv_type type;
    size_t size, page_bytes;
    uint8_t *pool;
    int32_t pages[N_PAGES];
    float *q; /* [N_KEYS][G_MAX][size] */
} sequence;

static void sequence_init(sequence *s, const kernel_table *k, kv_type type, size_t size)
{
    *s = (sequence){.type = type, .size = size, .page_bytes = kv_page_bytes(type, size)};
    s->pool = buffer(N_PAGES * s->page_bytes); /* all NaN where no token is stored */
    s->q = floats(N_KEYS * G_MAX * size, 2);
    for (int p = 0; p < N_PAGES; p++) s->pages[p] = (p * 3 + 3) % N_PAGES;
    for (size_t t = 0; t < N_KEYS; t++) {
        float *kv = floats(2 * size, 2);
        uint8_t *page = s->pool + (size_t)s->pages[t / KV_PAGE] * s->page_bytes;

        k->kv_put(type, page, t % KV_PAGE, kv, kv + size, size);
        free(kv);
    }
}

static void sequence_clear(sequence *s)
{
    free(s->pool);
    free(s->q);
}

/* Heads [first, first + n_group) of queries [pos, pos + n). */
static float *attend(attn_fn fn, const sequence *s, size_t pos, size_t n, size_t first, size_t n_group)
{
    float *out = buffer(n * n_group * s->size * sizeof *out);
    void *scratch = buffer(ATTN_SCRATCH(s->size, n_group));
    attn_args a = {.type = s->type,
                   .head_size = s->size,
                   .n_group = n_group,
                   .scale = 0.125f,
                   .kv = s->pool,
                   .page_stride = s->page_bytes,
                   .pages = s->pages,
                   .q = s->q + (pos * G_MAX + first) * s->size,
                   .out = out,
                   .q_stride = G_MAX * s->size,
                   .out_stride = n_group * s->size,
                   .n_queries = n,
                   .pos = pos};

    fn(&a, scratch);
    free(scratch);
    return out;
}

/* Over page borders and the border of the second span. (Two spans, the third begun: a row whose span ended is
 * left alone while others go on.) */
static const struct {
    size_t pos, n;
} stretches[] = {{0, 1}, {0, 37}, {31, 2}, {1019, 8}, {1023, 1}, {1024, 1}, {1060, 1}};
enum { N_STRETCHES = sizeof stretches / sizeof *stretches };

/* Values lie within +-2. Scores: `size` products of up to 4 in f32 against double, times the scale, errors
 * adding up like a random walk: some 1e-6, which is the relative error of a weight; 1061 weights and values
 * add as much. */
static double attention_error(const kernel_table *k, const kernel_table *ref, const sequence *s)
{
    double error = 0;

    for (size_t i = 0; i < N_STRETCHES; i++) {
        size_t group = i % 2 ? 1 : 3, n = stretches[i].n;
        float *got = attend(k->attention, s, stretches[i].pos, n, 0, group);
        float *want = attend(ref->attention, s, stretches[i].pos, n, 0, group);

        error = fmax(error, worst(got, want, n * group * s->size, 2));
        add_to_checksum(got, n * group * s->size);
        free(got);
        free(want);
    }
    return error;
}

/* Long stretches in a group of 5, against short ones, single queries and single heads. */
static bool same_attention(const kernel_table *k, const sequence *s)
{
    enum { N = 42 };
    float *first_n = attend(k->attention, s, 0, N, 0, G_MAX);
    float *last_n = attend(k->attention, s, N_KEYS - N, N, 0, G_MAX);
    bool same = true;

    for (size_t i = 0; i < N_STRETCHES; i++) {
        for (size_t group = 1; group <= G_MAX; group += 2) {
            size_t pos = stretches[i].pos, n = stretches[i].n, head = G_MAX - group;
            float *some = attend(k->attention, s, pos, n, head, group);

            for (size_t q = 0; q < n; q++) {
                const float *long_one = pos < N ? first_n + pos * G_MAX * s->size
                                                : last_n + (pos - (N_KEYS - N)) * G_MAX * s->size;
                const float *want = long_one + (q * G_MAX + head) * s->size;
                same = same && memcmp(some + q * group * s->size, want, group * s->size * sizeof *want) == 0;
            }
            free(some);
        }
    }
    free(first_n);
    free(last_n);
    return same;
}

static void check_attention(const kernel_table *k, const kernel_table *ref)
{
    static const size_t sizes[] = {8, 80, 128};

    for (kv_type type = KV_F16; type <= KV_F32; type++) {
        bool stored = true, same = true;
        double error = 0;

        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
            sequence s, t;
            uint64_t seed = rng;

            if (type == KV_Q8_0 && sizes[i] % 32) continue;
            sequence_init(&s, k, type, sizes[i]);
            rng = seed;
            sequence_init(&t, ref, type, sizes[i]);
            stored = stored && memcmp(s.pool, t.pool, N_PAGES * s.page_bytes) == 0;
            error = fmax(error, attention_error(k, ref, &s));
            same = same && same_attention(k, &s);
            sequence_clear(&s);
            sequence_clear(&t);
        }
        report(stored, "kv_put %s: the reference's bytes", kv_names[type]);
        report(error <= 5e-6, "attention %s within 5e-6 of the values (%.1e)", kv_names[type], error);
        report(same, "attention %s: bits depend on position and values alone", kv_names[type]);
    }
}

static void check_isa(unsigned mask)
{
    kernel_table k, ref;

    kernels_init(&k, mask);
    kernels_init(&ref, 0);
    rng = 1;
    checksum = 2166136261u;
    check_ops(&k, &ref);
    check_rope(&k, &ref);
    check_attention(&k, &ref);
    report(checksum == SAME_BITS,
           "operations and attention: the same bits as every other instruction set (0x%08x)",
           (unsigned)checksum);
    check_kv_put(&k, &ref);
    check_quantiser(&k, &ref, ACT_Q8_256);
    check_quantiser(&k, &ref, ACT_Q8_32);
    check_products(&k);
}

int main(void)
{
    /* Instruction sets, and their faster ways to the same products. */
    static const struct {
        const char *name, *name_of_way;
        unsigned way;
    } sets[] = {{"avx2", "avx2 with AVX-VNNI", CPU_AVXVNNI},
                {"avx512", "avx512 with AMX", CPU_AMX},
                {"neon", "neon with i8mm", CPU_I8MM}};

    for (size_t i = 0; i < sizeof sets / sizeof *sets; i++) {
        unsigned mask;

        isa = sets[i].name;
        if (!cpu_isa_mask(isa, &mask) || (mask & cpu_features()) != mask) continue;
        check_isa(mask & ~(unsigned)CPU_WAYS);
        if (mask & sets[i].way) {
            kernel_table k;

            isa = sets[i].name_of_way;
            kernels_init(&k, mask);
            check_products(&k);
        }
    }
    if (n_tests == 0) printf("1..0 # SKIP this CPU has no instruction set that prima knows\n");
    else printf("1..%d\n", n_tests);
    return n_failed != 0;
}
