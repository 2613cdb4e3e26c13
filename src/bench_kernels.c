/* Suite `kernels`: how near the products come to the limits of this machine, one thread. For each type,
 * instruction set and number of tokens: weights in GB/s and operations in Gop/s (a multiply-add is two),
 * beside what a loop that only reads, loops that only multiply, and OpenBLAS reach.
 *
 * The weights are a ring of matrices, eight times the largest cache (at most 1 GiB), so that one token reads
 * memory. A call is what the engine's is (src/model/exec.c): 16 groups of 16 rows, and where the thread goes
 * on. On a shared machine the same loop takes twice as long a second later: so each case is rounds of short
 * slices, a product, a read, a multiplication in turn, and of each the best counts. Some slices run
 * undisturbed, and those of product and limit are of the same half second. */
#include "kernels/kernels.h"
#include "src/base/clock.h"
#include "src/base/csv.h"
#include "src/base/log.h"
#include "src/base/mem.h"
#include "src/bench.h"
#include "src/blas.h"
#include "src/cmd.h"
#include "src/multiply_rate.h"
#include "src/options.h"
#include "src/probe.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

enum {
    RANGE_GROUPS = 16, /* of a call */
    RANGE_ROWS = RANGE_GROUPS * PACK_ROWS,
    MATRIX_RANGES = 8, /* of a matrix, or fewer where the ring is too small */
    MADE_GROUPS = 4,   /* that are made; the others are copies */
    MADE_ROWS = MADE_GROUPS * PACK_ROWS,
    LINE = 64,
    MAX_TOKENS = 512,
    MAX_LIST = 32
};
enum { BLAS_ROWS = 1024, BLAS_MIN_TOKENS = 16, BLAS_MS = 150 };
#define RING_MOST  ((size_t)1 << 30)
#define RING_LEAST ((size_t)64 << 20)
#define READ_BYTES ((size_t)32 << 20) /* of a slice */
static const uint64_t SLICE_NS = 1500000;

static const struct {
    const char *name;
    unsigned features;
} sets[] = {{"avx2", CPU_AVX2},
            {"avx2+vnni", CPU_AVX2 | CPU_AVXVNNI},
            {"avx512", CPU_AVX2 | CPU_AVX512 | CPU_AVXVNNI},
            {"avx512+amx", CPU_AVX2 | CPU_AVX512 | CPU_AVXVNNI | CPU_AMX},
            {"neon", CPU_NEON},
            {"neon+i8mm", CPU_NEON | CPU_I8MM},
            {"ref", 0}};
enum { N_SETS = sizeof sets / sizeof *sets };

typedef struct {
    const char *output, *types, *tokens, *isa;
    size_t reps, n_cols;
} given;

typedef struct {
    const given *g;
    size_t n_types, n_counts, n_sets;
    uint32_t type[MAX_LIST];
    size_t count[MAX_LIST]; /* of tokens */
    size_t set[MAX_LIST];   /* index in sets */
    kernel_table k;         /* of the set at hand */
    mem_region ring;
    size_t range_bytes, n_ranges; /* of the ring: whole matrices of matrix_ranges */
    size_t matrix_ranges, next_range, next_read;
    uint8_t *x;
    float *out;
    void *scratch;
    csv *csv;
} bench;

/* GB/s of the weights, Gop/s; limits likewise. NAN: not known. */
typedef struct {
    double gb, gop, read, multiply, sgemm;
} figures;

/* --- lists -------------------------------------------------------------------------------------------- */
/* The next of "a,b,c", copied; false: there is none, or it is longer than any name. */
static bool next_word(char word[32], const char **at)
{
    size_t n = strcspn(*at, ",");

    if (!n || n >= 32) return false;
    memcpy(word, *at, n);
    word[n] = 0;
    *at += n;
    if (**at == ',' && (*at)[1]) ++*at;
    return true;
}

static bool type_named(const char *name, uint32_t *type)
{
    for (*type = 0; *type < Q_TYPE_COUNT; ++*type)
        if (quant_info(*type) && !strcasecmp(quant_info(*type)->name, name)) return true;
    return false;
}

static int parse_types(bench *b, const char *at, pr_err *err)
{
    char word[32];

    if (!strcmp(at, "all")) {
        for (uint32_t type = 0; type < Q_TYPE_COUNT; type++)
            if (quant_info(type)) b->type[b->n_types++] = type;
        return PR_OK;
    }
    while (b->n_types < MAX_LIST && next_word(word, &at)) {
        if (!type_named(word, &b->type[b->n_types++]))
            return pr_fail(err, PR_EUSAGE, "--types %s: expected all, or names like Q4_K,Q8_0", word);
    }
    return *at || !b->n_types
               ? pr_fail(err, PR_EUSAGE, "--types: expected names separated by commas (at %s)", at)
               : PR_OK;
}

static int parse_counts(bench *b, const char *at, pr_err *err)
{
    char word[32], *end;

    while (b->n_counts < MAX_LIST && next_word(word, &at)) {
        unsigned long n = strtoul(word, &end, 10);
        if (*end || n < 1 || n > MAX_TOKENS)
            return pr_fail(err, PR_EUSAGE, "--tokens %s: expected numbers from 1 to %d", word, MAX_TOKENS);
        b->count[b->n_counts++] = n;
    }
    return *at || !b->n_counts
               ? pr_fail(err, PR_EUSAGE, "--tokens: expected numbers separated by commas (at %s)", at)
               : PR_OK;
}

static bool is_here(size_t set)
{
    return (sets[set].features & ~cpu_features()) == 0;
}

static int parse_sets(bench *b, const char *at, pr_err *err)
{
    char word[32];

    for (size_t i = 0; !at && i < N_SETS; i++)
        if (sets[i].features && is_here(i)) b->set[b->n_sets++] = i;
    while (at && b->n_sets < MAX_LIST && next_word(word, &at)) {
        size_t i = 0;
        while (i < N_SETS && strcmp(sets[i].name, word)) i++;
        if (i == N_SETS)
            return pr_fail(err, PR_EUSAGE,
                           "--isa %s: expected avx2, avx2+vnni, avx512, avx512+amx, neon, neon+i8mm or ref",
                           word);
        if (!is_here(i)) return pr_fail(err, PR_EUSAGE, "--isa %s: this CPU has it not", word);
        b->set[b->n_sets++] = i;
    }
    if (!b->n_sets && !at) b->set[b->n_sets++] = N_SETS - 1; /* a CPU with no fast set has the reference */
    return at && (*at || !b->n_sets)
               ? pr_fail(err, PR_EUSAGE, "--isa: expected names separated by commas (at %s)", at)
               : PR_OK;
}

/* --- what is multiplied --------------------------------------------------------------------------------- */
static size_t ring_bytes(void)
{
    size_t n = 8 * probe_cache_bytes(1), room = (size_t)mem_available_bytes() / 4;

    if (n > RING_MOST) n = RING_MOST;
    if (room && n > room) n = room;
    return n < RING_LEAST ? RING_LEAST : n;
}

static int prepare(bench *b, pr_err *err)
{
    size_t n = ring_bytes();

    b->x = mem_alloc_aligned(MAX_TOKENS * act_row_bytes(ACT_F32, b->g->n_cols));
    b->out = mem_alloc_aligned((size_t)MAX_TOKENS * MATRIX_RANGES * RANGE_ROWS * sizeof *b->out);
    b->scratch = mem_alloc_aligned(MATMUL_SCRATCH(MAX_TOKENS));
    if (!b->x || !b->out || !b->scratch) return pr_fail(err, PR_ERESOURCE, "out of memory");
    if (mem_region_new(&b->ring, n))
        return pr_fail_errno(err, PR_ERESOURCE, "no memory for %zu bytes of weights", n);
    memset(b->ring.p, 1, b->ring.n);
    return PR_OK;
}

static void release(bench *b)
{
    mem_region_free(&b->ring);
    mem_free_aligned(b->x);
    mem_free_aligned(b->out);
    mem_free_aligned(b->scratch);
}

static void some_values(float *x, size_t n, unsigned *seed)
{
    for (size_t i = 0; i < n; i++)
        x[i] = (float)((*seed = *seed * 1664525u + 1013904223u) >> 8) * 0x1p-23f - 1;
}

/* Rows that are numbers: quantised where prima can, else bytes whose f16 scales lie near 1/1000. */
static void fill_rows(uint32_t type, uint8_t *rows, float *values, size_t n_cols)
{
    size_t row_bytes = quant_row_bytes(type, n_cols), block_bytes = quant_info(type)->block_bytes;
    unsigned seed = 1;

    for (size_t r = 0; r < MADE_ROWS; r++, rows += row_bytes) {
        some_values(values, n_cols, &seed);
        if (quant_quantize(type, values, rows, n_cols)) continue;
        for (size_t i = 0; i < row_bytes; i++) rows[i] = (uint8_t)((i * 37 + r * 11) % 64);
        for (size_t i = 1; i < row_bytes; i += block_bytes) rows[i] = 0x10;
    }
}

static int fill_ring(bench *b, uint32_t type, pr_err *err)
{
    size_t made_bytes = pack_bytes(type, MADE_ROWS, b->g->n_cols);
    uint8_t *rows = calloc(MADE_ROWS, quant_row_bytes(type, b->g->n_cols)), *ring = b->ring.p;
    float *values = malloc(b->g->n_cols * sizeof *values);
    int rc = rows && values ? PR_OK : pr_fail(err, PR_ERESOURCE, "out of memory");

    if (!rc) {
        b->range_bytes = pack_bytes(type, RANGE_ROWS, b->g->n_cols);
        b->n_ranges = b->ring.n / b->range_bytes;
        b->matrix_ranges = b->n_ranges < MATRIX_RANGES ? b->n_ranges : MATRIX_RANGES;
        b->n_ranges -= b->n_ranges % b->matrix_ranges;
        b->next_range = 0;
        fill_rows(type, rows, values, b->g->n_cols);
        pack_rows(type, ring, rows, MADE_ROWS, b->g->n_cols, 0, MADE_GROUPS);
        for (size_t at = made_bytes; at < b->n_ranges * b->range_bytes; at += made_bytes)
            memcpy(ring + at, ring, made_bytes);
    }
    free(rows);
    free(values);
    return rc;
}

static int fill_inputs(bench *b, uint32_t type, pr_err *err)
{
    act_kind act = b->k.matmul_act[type];
    size_t stride = act_row_bytes(act, b->g->n_cols);
    float *values = malloc(b->g->n_cols * sizeof *values);
    unsigned seed = 2;

    if (!values) return pr_fail(err, PR_ERESOURCE, "out of memory");
    for (size_t t = 0; t < MAX_TOKENS; t++) {
        some_values(values, b->g->n_cols, &seed);
        b->k.quantize[act](b->x + t * stride, values, b->g->n_cols);
    }
    free(values);
    return PR_OK;
}

/* --- slices --------------------------------------------------------------------------------------------- */
/* GB/s of reading with prefetch, as the products do. */
static double read_slice(bench *b)
{
    typedef uint64_t vec __attribute__((vector_size(16)));
    size_t n = b->ring.n / 2 < READ_BYTES ? b->ring.n / 2 : READ_BYTES;
    const uint8_t *p = (const uint8_t *)b->ring.p + b->next_read % (b->ring.n - n) / LINE * LINE;
    vec s0 = {0}, s1 = {0}, s2 = {0}, s3 = {0};
    uint64_t start = clock_ns();
    volatile uint64_t keep;
    double rate;

    for (size_t i = 0; i < n; i += LINE) {
        const vec *v = (const vec *)(p + i);
        __builtin_prefetch(p + i + 8192);
        s0 += v[0];
        s1 += v[1];
        s2 += v[2];
        s3 += v[3];
    }
    rate = (double)n / (double)(clock_ns() - start);
    keep = s0[0] + s1[0] + s2[1] + s3[1];
    (void)keep;
    b->next_read += n;
    return rate;
}

/* The next range of the ring, as the engine's one thread takes it. */
static void multiply_range(bench *b, matmul_args *a)
{
    size_t at = b->next_range % b->matrix_ranges, first = at * RANGE_GROUPS, end = first + RANGE_GROUPS;

    a->pack = (const uint8_t *)b->ring.p + (b->next_range - at) * b->range_bytes;
    a->next_group = at + 1 < b->matrix_ranges ? end : 0;
    b->k.matmul[a->type](a, first, end, b->scratch);
    b->next_range = (b->next_range + 1) % b->n_ranges;
}

/* Ranges a second: as many as there is time for. */
static double product_slice(bench *b, uint32_t type, size_t n_tokens)
{
    matmul_args a = {.type = type,
                     .n_rows = b->matrix_ranges * RANGE_ROWS,
                     .n_cols = b->g->n_cols,
                     .x = b->x,
                     .x_stride = act_row_bytes(b->k.matmul_act[type], b->g->n_cols),
                     .n_tokens = n_tokens,
                     .out = b->out,
                     .out_stride = MATRIX_RANGES * RANGE_ROWS};
    uint64_t start = clock_ns(), ns;
    size_t n = 0;

    do {
        multiply_range(b, &a);
        n++;
        ns = clock_ns() - start;
    } while (ns < SLICE_NS);
    return (double)n * 1e9 / (double)ns;
}

static figures measure(bench *b, uint32_t type, size_t set, size_t n_tokens)
{
    bool is_f32 = b->k.matmul_act[type] == ACT_F32;
    double ranges = 0;
    figures f = {.read = 0, .multiply = 0, .sgemm = NAN};

    for (size_t i = 0; i < b->g->reps; i++) {
        multiply_rate m = multiply_rate_slice(sets[set].features);
        ranges = fmax(ranges, product_slice(b, type, n_tokens));
        f.read = fmax(f.read, read_slice(b));
        f.multiply = fmax(f.multiply, is_f32 ? m.f32 : m.int8);
    }
    f.gb = ranges * (double)b->range_bytes * 1e-9;
    f.gop = ranges * 2.0 * (double)n_tokens * RANGE_ROWS * (double)b->g->n_cols * 1e-9;
    if (f.multiply == 0) f.multiply = NAN;
    if (is_f32 && n_tokens >= BLAS_MIN_TOKENS)
        f.sgemm = blas_gop_per_s(sets[set].features, 1, n_tokens, BLAS_ROWS, b->g->n_cols, BLAS_MS, NULL);
    return f;
}

/* --- the suite ------------------------------------------------------------------------------------------ */
static const char header[] =
    "schema,build,isa,path,type,cols,tokens,reps,gb_per_s,read_limit_gb_per_s,read_pct,gop_per_s,"
    "multiply_limit_gop_per_s,multiply_pct,sgemm_gop_per_s,pages";

static int write_row(bench *b, uint32_t type, size_t set, size_t n_tokens, const figures *f, pr_err *err)
{
    csv_str(b->csv, "prima/bench-kernels/1");
    csv_str(b->csv, prima_version);
    csv_str(b->csv, sets[set].name);
    csv_str(b->csv, b->k.matmul_path[type]);
    csv_str(b->csv, quant_info(type)->name);
    csv_int(b->csv, (int64_t)b->g->n_cols);
    csv_int(b->csv, (int64_t)n_tokens);
    csv_int(b->csv, (int64_t)b->g->reps);
    csv_num(b->csv, f->gb, 4);
    csv_num(b->csv, f->read, 3);
    csv_num(b->csv, 100 * f->gb / f->read, 1);
    csv_num(b->csv, f->gop, 3);
    csv_num(b->csv, f->multiply, 3);
    csv_num(b->csv, 100 * f->gop / f->multiply, 1);
    csv_num(b->csv, f->sgemm, 3);
    csv_str(b->csv, b->ring.pages);
    return csv_row(b->csv, err);
}

/* One type on one instruction set: its rows, and a line of the log with the nearer limit of each. */
static int run_type(bench *b, uint32_t type, size_t set, pr_err *err)
{
    char line[512] = "";
    int rc;

    kernels_init(&b->k, sets[set].features);
    rc = fill_inputs(b, type, err);
    for (size_t i = 0; i < b->n_counts && !rc; i++) {
        size_t at = strlen(line);
        figures f;
        double read, multiply;

        log_progress("%s, %s: %zu tokens", quant_info(type)->name, sets[set].name, b->count[i]);
        f = measure(b, type, set, b->count[i]);
        read = 100 * f.gb / f.read;
        multiply = 100 * f.gop / f.multiply;
        if (multiply > read)
            snprintf(line + at, sizeof line - at, "  %zu: %.0f Gop/s (%.0f %%)", b->count[i], f.gop,
                     multiply);
        else snprintf(line + at, sizeof line - at, "  %zu: %.1f GB/s (%.0f %%)", b->count[i], f.gb, read);
        rc = write_row(b, type, set, b->count[i], &f, err);
    }
    log_progress("%s", "");
    log_info("%-7s %-9s%s", quant_info(type)->name, sets[set].name, line);
    return rc;
}

/* Set number s of the list has no code of its own for this type: one before it is measured in its place. */
static bool runs_as_before(const bench *b, uint32_t type, size_t s)
{
    kernel_table k, before;

    kernels_init(&k, sets[b->set[s]].features);
    for (size_t i = 0; i < s; i++) {
        kernels_init(&before, sets[b->set[i]].features);
        if (before.matmul[type] == k.matmul[type]) return true;
    }
    return false;
}

static int run_all(bench *b, pr_err *err)
{
    pr_err why = {0};
    int rc = prepare(b, err);

    if (!rc && isnan(blas_gop_per_s(0, 1, 1, 1, 1, 0, &why))) log_info("without sgemm: %s", why.msg);
    if (!rc)
        log_info("one thread, rows of %zu, weights on pages of %s; share of the nearer limit in brackets",
                 b->g->n_cols, b->ring.pages);
    for (size_t t = 0; t < b->n_types && !rc; t++) {
        rc = fill_ring(b, b->type[t], err);
        for (size_t s = 0; s < b->n_sets && !rc; s++)
            if (!runs_as_before(b, b->type[t], s)) rc = run_type(b, b->type[t], b->set[s], err);
    }
    release(b);
    return rc;
}

static int parse(bench *b, given *g, int argc, char **argv, pr_err *err)
{
    const opt table[] = {
        {"output", 'o', OPT_STRING, &g->output, "DIR", 0, 0,
         "folder of kernels.csv; rows are added (results)"},
        {"types", 0, OPT_STRING, &g->types, "T,...", 0, 0,
         "weight types, or all (those with kernels of their own)"},
        {"tokens", 0, OPT_STRING, &g->tokens, "N,...", 0, 0, "numbers of tokens (1,2,4,8,16,64,512)"},
        {"isa", 0, OPT_STRING, &g->isa, "NAME,...", 0, 0,
         "avx2, avx2+vnni, avx512, avx512+amx, neon, neon+i8mm, ref (what this CPU has, without ref)"},
        {"cols", 0, OPT_COUNT, &g->n_cols, "N", 256, 65536, "length of a row, a multiple of 256 (4096)"},
        {"reps", 'r', OPT_COUNT, &g->reps, "N", 1, 10000, "slices of 1.5 ms of which the best counts (100)"},
        {0}};
    const opt_spec spec = {
        "[options]",
        "Measures the matrix products of one thread beside this machine's limits: adds rows to "
        "DIR/kernels.csv (two minutes), writes DIR/machine.txt.",
        table, 0, 0};
    int first, rc = options_parse(&spec, argc, argv, &first, err);

    if (rc) return rc;
    if (g->n_cols % 256) return pr_fail(err, PR_EUSAGE, "--cols %zu: expected a multiple of 256", g->n_cols);
    if ((rc = parse_types(b, g->types, err)) || (rc = parse_counts(b, g->tokens, err))) return rc;
    return parse_sets(b, g->isa, err);
}

int bench_kernels(int argc, char **argv, pr_err *err)
{
    given g = {.output = "results",
               .types = "Q4_K,Q5_K,Q6_K,Q3_K,Q2_K,Q8_0,Q4_0,IQ4_XS,IQ4_NL,F16,BF16,F32",
               .tokens = "1,2,4,8,16,64,512",
               .reps = 100,
               .n_cols = 4096};
    bench b = {.g = &g};
    char path[4096];
    int rc = parse(&b, &g, argc, argv, err), rc2;

    if (rc) return rc == OPTIONS_HELP ? PR_OK : rc;
    if ((rc = bench_machine(g.output, err))) return rc;
    snprintf(path, sizeof path, "%s/kernels.csv", g.output);
    if (!(rc = csv_open(&b.csv, path, header, true, err))) rc = run_all(&b, err);
    rc2 = csv_close(b.csv, rc ? NULL : err);
    return rc ? rc : rc2;
}
