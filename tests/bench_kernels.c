/* How near the products come to the limits of this machine, one thread: for each type and number of tokens
 * the weights read in GB/s and the operations in Gop/s (a multiply-add is two), beside what a loop that only
 * reads and a loop that only multiplies reach in the same run.
 *
 *   bench_kernels [--isa NAME] [--cols N] [TYPE...]     e.g. bench_kernels --isa avx2 Q4_K Q8_0
 *
 * The weights are a ring of 1 GiB, so that one token reads memory and not a cache; a call multiplies four
 * groups of 16 rows, as one thread's share of a matrix. Each figure is the best of many slices of 1.5 ms: on
 * a shared machine some of them run undisturbed. */
#include "kernels/kernels.h"
#include "src/base/clock.h"
#include "src/base/mem.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CHUNK_GROUPS = 4, TOKENS_MAX = 512, LINE = 64, SLICES = 50 };
static const size_t RING_BYTES = (size_t)1 << 30;
static const uint64_t SLICE_NS = 1500000;

static const uint32_t default_types[] = {Q_Q4_K, Q_Q5_K,   Q_Q6_K,   Q_Q3_K, Q_Q2_K, Q_Q8_0,
                                         Q_Q4_0, Q_IQ4_XS, Q_IQ4_NL, Q_F16,  Q_BF16, Q_F32};
static const size_t token_counts[] = {1, 2, 4, 8, 16, 64, TOKENS_MAX};

/* --- limits
 * ---------------------------------------------------------------------------------------------------- */

/* Reads with prefetch, as the products do. */
static double read_gb_per_s(const mem_region *ring)
{
    typedef uint64_t vec __attribute__((vector_size(16)));
    const size_t slice = 48 << 20;
    double best = 0;

    for (size_t at = 0; at < 4 * RING_BYTES; at += slice) {
        const uint8_t *p = (const uint8_t *)ring->p + at % (RING_BYTES - slice) / LINE * LINE;
        vec a = {0}, b = {0}, c = {0}, d = {0};
        uint64_t start = clock_ns();

        for (size_t i = 0; i < slice; i += LINE) {
            const vec *v = (const vec *)(p + i);
            __builtin_prefetch(p + i + 8192);
            a += v[0];
            b += v[1];
            c += v[2];
            d += v[3];
        }
        double rate = (double)slice / (double)(clock_ns() - start);
        volatile uint64_t keep = a[0] + b[0] + c[1] + d[1];
        (void)keep;
        if (rate > best) best = rate;
    }
    return best;
}

#if defined(__x86_64__)
/* 12 independent chains of one instruction, n times; registers 13 and 14 are its sources. */
#define CHAINS(REG, I)                                                                                       \
    I(REG, 0)                                                                                                \
    I(REG, 1)                                                                                                \
    I(REG, 2) I(REG, 3) I(REG, 4) I(REG, 5) I(REG, 6) I(REG, 7) I(REG, 8) I(REG, 9) I(REG, 10) I(REG, 11)
#define DPBUSD(REG, N)  "vpdpbusd %%" REG "13, %%" REG "14, %%" REG #N "\n\t"
#define MADDUBS(REG, N) "vpmaddubsw %%" REG "13, %%" REG "14, %%" REG #N "\n\t"
#define FMADD(REG, N)   "vfmadd231ps %%" REG "13, %%" REG "14, %%" REG #N "\n\t"
#define LOOP(NAME, REG, I)                                                                                   \
    static void NAME(long n)                                                                                 \
    {                                                                                                        \
        __asm__ volatile("vzeroall\n1:\n\t" CHAINS(REG, I) "dec %0\n\tjnz 1b\n\tvzeroupper"                  \
                         : "+r"(n)::"cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7",    \
                           "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15");            \
    }
LOOP(loop_dpbusd, "zmm", DPBUSD)
LOOP(loop_maddubs, "ymm", MADDUBS)
LOOP(loop_fma_512, "zmm", FMADD)
LOOP(loop_fma_256, "ymm", FMADD)

static double loop_gop_per_s(void (*loop)(long), int ops)
{
    const long n = 200000;
    double best = 0;

    for (int rep = 0; rep < 40; rep++) {
        uint64_t start = clock_ns();
        loop(n);
        double rate = (double)n * 12 * ops / (double)(clock_ns() - start);
        if (rate > best) best = rate;
    }
    return best;
}

/* Operations a second of the 8-bit and of the f32 multiply instruction of an instruction set. */
static void multiply_limits(const char *isa, double *int8, double *f32)
{
    bool wide = strcmp(isa, "avx512") == 0;

    *int8 = wide ? loop_gop_per_s(loop_dpbusd, 2 * 64) : loop_gop_per_s(loop_maddubs, 2 * 32);
    *f32 = wide ? loop_gop_per_s(loop_fma_512, 2 * 16) : loop_gop_per_s(loop_fma_256, 2 * 8);
}
#else
static void multiply_limits(const char *isa, double *int8, double *f32)
{
    (void)isa;
    *int8 = *f32 = 0; /* not known here: shares are left out */
}
#endif

/* --- products
 * -------------------------------------------------------------------------------------------------- */

typedef struct {
    uint32_t type;
    size_t n_cols, chunk_bytes, n_chunks;
    uint8_t *x;
    float *out;
    void *scratch;
} bench;

/* Random rows that are numbers: quantised where prima can, else any bytes with scales near 1/1000. */
static void fill_ring(const bench *b, uint8_t *ring)
{
    size_t rows = CHUNK_GROUPS * PACK_ROWS, row_bytes = quant_row_bytes(b->type, b->n_cols);
    size_t block_bytes = quant_info(b->type)->block_bytes;
    uint8_t *src = calloc(rows, row_bytes);
    float *values = malloc(b->n_cols * sizeof *values);

    for (size_t r = 0; r < rows; r++) {
        for (size_t i = 0; i < b->n_cols; i++) values[i] = (float)(rand() % 2001 - 1000) * 1e-3f;
        if (quant_quantize(b->type, values, src + r * row_bytes, b->n_cols)) continue;
        for (size_t i = 0; i < row_bytes; i++) src[r * row_bytes + i] = (uint8_t)(rand() % 64);
        for (size_t i = 1; i < row_bytes; i += block_bytes) src[r * row_bytes + i] = 0x10;
    }
    pack_rows(b->type, ring, src, rows, b->n_cols, 0, CHUNK_GROUPS);
    for (size_t c = 1; c < b->n_chunks; c++) memcpy(ring + c * b->chunk_bytes, ring, b->chunk_bytes);
    free(values);
    free(src);
}

static void fill_x(const kernel_table *k, bench *b)
{
    act_kind act = k->matmul_act[b->type];
    size_t stride = act_row_bytes(act, b->n_cols);
    float *values = malloc(b->n_cols * sizeof *values);

    for (size_t t = 0; t < TOKENS_MAX; t++) {
        for (size_t i = 0; i < b->n_cols; i++) values[i] = (float)(rand() % 2001 - 1000) * 1e-3f;
        k->quantize[act](b->x + t * stride, values, b->n_cols);
    }
    free(values);
}

/* Seconds for one chunk, the best of SLICES. */
static double chunk_s(const kernel_table *k, const bench *b, const uint8_t *ring, size_t n_tokens)
{
    static size_t at; /* goes on around the ring from case to case */
    matmul_args a = {.type = b->type,
                     .n_rows = CHUNK_GROUPS * PACK_ROWS,
                     .n_cols = b->n_cols,
                     .x = b->x,
                     .x_stride = act_row_bytes(k->matmul_act[b->type], b->n_cols),
                     .n_tokens = n_tokens,
                     .out = b->out,
                     .out_stride = CHUNK_GROUPS * PACK_ROWS};
    double best = 1e9;

    for (int slice = 0; slice < SLICES; slice++) {
        uint64_t start = clock_ns(), ns;
        size_t n = 0;
        do {
            a.pack = ring + at++ % b->n_chunks * b->chunk_bytes;
            k->matmul[b->type](&a, 0, CHUNK_GROUPS, b->scratch);
            n++;
            ns = clock_ns() - start;
        } while (ns < SLICE_NS);
        if ((double)ns * 1e-9 / (double)n < best) best = (double)ns * 1e-9 / (double)n;
    }
    return best;
}

static void bench_type(const kernel_table *k, bench *b, const mem_region *ring, double read, double multiply)
{
    size_t rows = CHUNK_GROUPS * PACK_ROWS;

    b->chunk_bytes = pack_bytes(b->type, rows, b->n_cols);
    b->n_chunks = RING_BYTES / b->chunk_bytes;
    fill_ring(b, ring->p);
    fill_x(k, b);
    for (size_t i = 0; i < sizeof token_counts / sizeof *token_counts; i++) {
        size_t T = token_counts[i];
        double s = chunk_s(k, b, ring->p, T), gb = (double)b->chunk_bytes / s * 1e-9;
        double gop = 2.0 * (double)(rows * b->n_cols * T) / s * 1e-9;

        printf("%-8s %4zu %8.2f %6.0f%% %9.1f", quant_info(b->type)->name, T, gb, 100 * gb / read, gop);
        if (multiply > 0) printf(" %6.0f%%", 100 * gop / multiply);
        printf("   %s\n", k->matmul_path[b->type]);
    }
}

static int usage(void)
{
    fprintf(stderr, "usage: bench_kernels [--isa avx2|avx512|neon] [--cols N] [TYPE...]\n");
    return 2;
}

static bool type_by_name(const char *name, uint32_t *type)
{
    for (*type = 0; *type < Q_TYPE_COUNT; ++*type) {
        if (quant_info(*type) && strcmp(quant_info(*type)->name, name) == 0) return true;
    }
    return false;
}

int main(int argc, char **argv)
{
    unsigned mask = ~0u;
    uint32_t types[Q_TYPE_COUNT];
    size_t n_types = 0;
    bench b = {.n_cols = 4096};

    for (int i = 1; i < argc; i++) {
        if (i + 1 < argc && strcmp(argv[i], "--isa") == 0) {
            if (!cpu_isa_mask(argv[++i], &mask)) return usage();
        } else if (i + 1 < argc && strcmp(argv[i], "--cols") == 0) {
            b.n_cols = strtoul(argv[++i], NULL, 10);
            if (b.n_cols == 0 || b.n_cols % 256 || b.n_cols > 65536) return usage();
        } else if (n_types == Q_TYPE_COUNT || !type_by_name(argv[i], &types[n_types++])) {
            return usage();
        }
    }
    if (!n_types) {
        n_types = sizeof default_types / sizeof *default_types;
        memcpy(types, default_types, sizeof default_types);
    }

    kernel_table k;
    mem_region ring;
    double read, int8, f32;
    kernels_init(&k, mask & cpu_features());
    b.x = mem_alloc_aligned(TOKENS_MAX * act_row_bytes(ACT_F32, b.n_cols));
    b.out = mem_alloc_aligned(TOKENS_MAX * CHUNK_GROUPS * PACK_ROWS * sizeof *b.out);
    b.scratch = mem_alloc_aligned(MATMUL_SCRATCH(TOKENS_MAX));
    if (!b.x || !b.out || !b.scratch || mem_region_new(&ring, RING_BYTES)) {
        fprintf(stderr, "bench_kernels: no memory for 1 GiB of weights\n");
        return 9;
    }
    memset(ring.p, 1, RING_BYTES);
    read = read_gb_per_s(&ring);
    multiply_limits(k.isa, &int8, &f32);
    printf("isa %s, rows of %zu, pages %s; limits: read %.1f GB/s, 8-bit %.0f Gop/s, f32 %.0f Gop/s\n", k.isa,
           b.n_cols, ring.pages, read, int8, f32);
    printf("%-8s %4s %8s %7s %9s %7s   path\n", "type", "T", "GB/s", "of read", "Gop/s", "of mul");
    for (size_t i = 0; i < n_types; i++) {
        b.type = types[i];
        bench_type(&k, &b, &ring, read, k.matmul_act[b.type] == ACT_F32 ? f32 : int8);
    }
    mem_region_free(&ring);
    mem_free_aligned(b.x);
    mem_free_aligned(b.out);
    mem_free_aligned(b.scratch);
    return 0;
}
