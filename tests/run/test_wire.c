/* Micro-batches as frames: the bytes as wire.h has them, built by hand; what is read is what was written;
 * every limit, just inside and just outside; descriptions cut and forged at every byte, in blocks of exactly
 * their size, so that a sanitizer sees a read behind the end; rounding against the values of the formats. */
#include "kernels/kernels.h"
#include "src/run/wire.h"
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { EMBD = 2, MAX_WORDS = 64 };
static const wire_limits limits = {
    .n_embd = EMBD, .max_tokens = 4, .max_runs = 2, .max_out = 3, .n_pages = 8, .ctx = 64, .elem = FRAME_F32};

/* --- a frame, byte by byte -------------------------------------------------------------------------------
 */
/* Two runs: 2 tokens from position 31 on (so 33 positions: two pages), 1 token at position 0. */
static const uint8_t golden[] = {
    'P',  'R',  'M', 'A',                     /* magic */
    1,    0,    8,   0,                       /* protocol, type: FRAME_PASS */
    0,    0,    0,   0,                       /* flags */
    68,   0,    0,   0,                       /* payload: 24 of matrix, 44 of description */
    0x4d, 0,    0,   0,    0,  0, 0,    0x80, /* session */
    0x02, 0x01, 0,   0,    0,  0, 0,    0,    /* batch 258 */
    3,    0,    0,   0,                       /* round */
    12,   0,    0,   0,                       /* layer */
    3,    0,    0,   0,    2,  0, 0,    0,    /* rows, cols */
    5,    0,    1,   0,                       /* rank, elem: f32 */
    44,   0,    0,   0,                       /* extra */
    0,    0,    0,   0,    0,  0, 0,    0,    0, 0, 0x80, 0x3f, 0, 0, 0, 0xc0, /* 1, -2 */
    0,    0,    0,   0x3f, 0,  0, 0x80, 0x7f,                                  /* 0.5, infinity */
    1,    0,    0,   0,    0,  0, 0,    0x80,                                  /* the smallest float, -0 */
    2,    0,    0,   0,    3,  0, 0,    0,                                     /* runs, tokens */
    2,    0,    0,   0,    31, 0, 0,    0,                                     /* a run: tokens, position */
    1,    0,    0,   0,    0,  0, 0,    0,    5, 0, 0,    0,    7, 0, 0, 0,
    3,    0,    0,   0,                    /* pages: two of the first, one of the second */
    1,    0,    0,   0,    2,  0, 0,    0, /* rows wanted */
};
static const int32_t golden_pages[] = {5, 7, 3}, golden_out[] = {1, 2};
static const batch_run golden_runs[] = {{0, 2, 31, golden_pages}, {2, 1, 0, golden_pages + 2}};
static const batch golden_batch = {
    .n_tokens = 3, .n_runs = 2, .run = golden_runs, .n_out = 2, .out = golden_out};

static void same_batch(const batch *a, const batch *b)
{
    cr_assert_eq(a->n_tokens, b->n_tokens);
    cr_assert_eq(a->n_runs, b->n_runs);
    cr_assert_eq(a->n_out, b->n_out);
    for (size_t i = 0; i < a->n_runs; i++) {
        const batch_run *x = &a->run[i], *y = &b->run[i];
        cr_assert(x->first == y->first && x->n == y->n && x->pos == y->pos, "run %zu", i);
        for (size_t p = 0; p * KV_PAGE < x->pos + x->n; p++) cr_assert_eq(x->pages[p], y->pages[p]);
    }
    for (size_t i = 0; i < a->n_out; i++) cr_assert_eq(a->out[i], b->out[i]);
}

Test(wire, writes_the_bytes_of_the_specification)
{
    static const float hidden[] = {1, -2, 0.5f, INFINITY, 0x1p-149f, -0.0f};
    uint8_t *room = malloc(sizeof golden);
    parcel x = {.room = room, .payload = room + FRAME_HEADER_BYTES};

    x.f = (frame){.type = FRAME_PASS,
                  .session = UINT64_C(0x800000000000004d),
                  .batch = 258,
                  .round = 3,
                  .layer = 12,
                  .rank = 5};
    wire_pack(x.payload, hidden, 6, FRAME_F32);
    wire_write(&x, &limits, &golden_batch);
    frame_encode(room, &x.f);
    cr_assert_eq(FRAME_HEADER_BYTES + x.f.payload_bytes, sizeof golden);
    for (size_t i = 0; i < sizeof golden; i++)
        cr_expect_eq(room[i], golden[i], "byte %zu: %02x, expected %02x", i, room[i], golden[i]);
    free(room);
}

Test(wire, reads_the_bytes_of_the_specification)
{
    const frame_limits fl = {(uint32_t)wire_max_bytes(&limits), FRAME_BIT(FRAME_PASS)};
    uint8_t payload[sizeof golden - FRAME_HEADER_BYTES];
    parcel x = {.payload = payload};
    float hidden[6];
    wire_batch w;
    pr_err err = {0};

    memcpy(payload, golden + FRAME_HEADER_BYTES, sizeof payload);
    cr_assert_eq(frame_decode(&x.f, golden, &fl, &err), PR_OK, "%s", err.msg);
    cr_assert_eq(wire_batch_init(&w, &limits, &err), PR_OK);
    cr_assert_eq(wire_read(&w, &limits, &x, &err), PR_OK, "%s", err.msg);
    cr_expect_null(w.b.token);
    same_batch(&w.b, &golden_batch);
    cr_expect_eq(x.f.session, UINT64_C(0x800000000000004d));
    cr_expect(x.f.batch == 258 && x.f.round == 3 && x.f.layer == 12 && x.f.rank == 5);
    wire_unpack(hidden, x.payload, 6, FRAME_F32);
    cr_expect(hidden[0] == 1 && hidden[1] == -2 && hidden[2] == 0.5f && isinf(hidden[3]) &&
              hidden[4] == 0x1p-149f && signbit(hidden[5]));
    wire_batch_clear(&w);
}

Test(wire, behind_the_last_layer_only_rows_travel)
{
    parcel x = {.f = {.type = FRAME_PASS, .extra = 44, .payload_bytes = 68}};

    wire_write_last(&x, &limits, 2);
    cr_expect(x.f.rows == 2 && x.f.cols == EMBD && x.f.elem == FRAME_F32 && !x.f.extra);
    cr_expect_eq(x.f.payload_bytes, 16);
    wire_write_last(&x, &limits, 0); /* a chunk in the middle of a prompt: nothing is wanted */
    cr_expect(!x.f.rows && !x.f.cols && x.f.elem == FRAME_NO_ELEM && !x.f.extra && !x.f.payload_bytes);
}

/* --- forged descriptions ------------------------------------------------------------------------------- */
typedef struct {
    const char *name;
    uint32_t rows; /* of the frame; 0 = as in the description */
    uint32_t word[MAX_WORDS];
    size_t n;
    const char *says; /* NULL: accepted */
} description;
#define WORDS(...) {__VA_ARGS__}, sizeof((uint32_t[]){__VA_ARGS__}) / 4

static const description descriptions[] = {
    {"as it is", 0, WORDS(2, 3, 2, 31, 1, 0, 5, 7, 3, 1, 2), NULL},
    {"nothing wanted", 0, WORDS(1, 1, 1, 0, 0), NULL},
    {"all that is allowed", 0, WORDS(2, 4, 3, 61, 1, 63, 7, 0, 7, 0, 1, 2, 3), NULL},
    {"a page boundary", 0, WORDS(1, 1, 1, 31, 6), NULL},
    {"behind a page boundary", 0, WORDS(1, 1, 1, 32, 6, 6), NULL},
    {"rows of the frame: more", 4, WORDS(2, 3, 2, 31, 1, 0, 5, 7, 3), "tokens 3"},
    {"rows of the frame: fewer", 2, WORDS(2, 3, 2, 31, 1, 0, 5, 7, 3), "tokens 3"},
    {"too many tokens", 0, WORDS(1, 5, 5, 0, 1), "tokens 5, expected at most 4"},
    {"no runs", 1, WORDS(0, 1, 1, 0, 1), "runs 0"},
    {"too many runs", 0, WORDS(3, 3, 1, 0, 1, 0, 1, 0, 1, 2, 3), "runs 3, expected at most 2"},
    {"runs without end", 1, WORDS(0xffffffff, 1, 1, 0, 1), "runs 4294967295"},
    {"an empty run", 0, WORDS(2, 1, 0, 0, 1, 0, 1, 1), "tokens of a run 0"},
    {"a run of more tokens than there are", 0, WORDS(1, 2, 3, 0, 1), "tokens of a run 3, expected at most 2"},
    {"a second run that does not fit", 0, WORDS(2, 3, 2, 0, 2, 0, 1, 2),
     "tokens of a run 2, expected at most 1"},
    {"a run of 2^32 - 1", 0, WORDS(2, 3, 2, 0, 0xffffffff, 0, 1, 2), "tokens of a run 4294967295"},
    {"runs end before the tokens", 0, WORDS(2, 4, 1, 0, 2, 0, 1, 2), "runs cover tokens 3"},
    {"a position outside", 0, WORDS(1, 2, 2, 63, 1, 2, 3), "position 65, expected at most 64"},
    {"a position far outside", 0, WORDS(1, 1, 1, 64, 1, 2, 3), "position 65"},
    {"a position that wraps", 0, WORDS(1, 1, 1, 0xffffffff, 1), "position 4294967296"},
    {"a page outside", 0, WORDS(1, 1, 1, 0, 8), "page 8, expected at most 7"},
    {"a negative page", 0, WORDS(1, 1, 1, 0, 0xffffffff), "page 4294967295"},
    {"the second page outside", 0, WORDS(1, 1, 1, 32, 0, 8), "page 8"},
    {"the second run's page outside", 0, WORDS(2, 2, 1, 0, 1, 0, 7, 9), "page 9"},
    {"a row outside", 0, WORDS(1, 2, 2, 0, 1, 2), "row 2, expected at most 1"},
    {"a negative row", 0, WORDS(1, 2, 2, 0, 1, 0xffffffff), "row 4294967295"},
    {"a row twice", 0, WORDS(1, 2, 2, 0, 1, 1, 1), "after a later one"},
    {"rows that fall", 0, WORDS(1, 2, 2, 0, 1, 1, 0), "after a later one"},
    {"too many rows", 0, WORDS(1, 4, 4, 0, 1, 0, 1, 2, 3), "rows wanted 4, expected at most 3"},
    {"nothing", 1, WORDS(0), "tokens 0"},
};

/* A frame of so many rows with n bytes of description in a block of exactly its size. */
static int read_bytes(wire_batch *w, const wire_limits *l, uint32_t rows, const void *extra, size_t n,
                      pr_err *err)
{
    uint32_t matrix = rows * EMBD * 4;
    parcel x = {.payload = malloc(matrix + n)};
    int rc;

    cr_assert_not_null(x.payload);
    memset(x.payload, 0, matrix);
    memcpy(x.payload + matrix, extra, n);
    x.f = (frame){.type = FRAME_PASS,
                  .rows = rows,
                  .cols = EMBD,
                  .elem = FRAME_F32,
                  .extra = (uint32_t)n,
                  .payload_bytes = (uint32_t)(matrix + n)};
    *err = (pr_err){0};
    rc = wire_read(w, l, &x, err);
    free(x.payload);
    return rc;
}

Test(wire, every_limit)
{
    wire_batch w;
    pr_err err;

    cr_assert_eq(wire_batch_init(&w, &limits, &err), PR_OK);
    for (size_t i = 0; i < sizeof descriptions / sizeof *descriptions; i++) {
        const description *d = &descriptions[i];
        int rc = read_bytes(&w, &limits, d->rows ? d->rows : d->word[1], d->word, d->n * 4, &err);
        if (!d->says) cr_expect_eq(rc, PR_OK, "%s: %s", d->name, err.msg);
        else cr_expect(rc == PR_EPEER && strstr(err.msg, d->says), "%s: %d: %s", d->name, rc, err.msg);
    }
    wire_batch_clear(&w);
}

Test(wire, another_shape_than_the_job_s)
{
    static const uint32_t word[] = {1, 1, 1, 0, 0};
    wire_limits l = limits;
    wire_batch w;
    pr_err err;

    cr_assert_eq(wire_batch_init(&w, &limits, &err), PR_OK);
    l.n_embd = 3;
    cr_expect_eq(read_bytes(&w, &l, 1, word, sizeof word, &err), PR_EPEER);
    cr_expect(strstr(err.msg, "rows of 2 elements"), "%s", err.msg);
    l = limits;
    l.elem = FRAME_F16;
    cr_expect_eq(read_bytes(&w, &l, 1, word, sizeof word, &err), PR_EPEER);
    wire_batch_clear(&w);
}

/* The list of wanted rows ends where the frame ends; everything before it must be whole. */
Test(wire, cut_at_every_byte)
{
    const uint8_t *whole = golden + sizeof golden - 44;
    wire_batch w;
    pr_err err;

    cr_assert_eq(wire_batch_init(&w, &limits, &err), PR_OK);
    for (size_t n = 0; n <= 44; n++) {
        bool right = n == 36 || n == 40 || n == 44;
        int rc = read_bytes(&w, &limits, 3, whole, n, &err);
        cr_expect_eq(rc, right ? PR_OK : PR_EPEER, "%zu bytes: %d %s", n, rc, err.msg);
    }
    for (size_t more = 1; more < 4; more++) {
        uint8_t longer[48] = {0};
        memcpy(longer, whole, 44);
        cr_expect_eq(read_bytes(&w, &limits, 3, longer, 44 + more, &err), PR_EPEER);
        cr_expect(strstr(err.msg, "ends late"), "%s", err.msg);
    }
    wire_batch_clear(&w);
}

static uint64_t random_64(uint64_t *state)
{
    *state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return *state >> 16;
}

/* What is accepted is inside every limit, and written again it is the same bytes: there is one way to say a
 * thing. */
static void check_accepted(const wire_batch *w, const uint8_t *extra, size_t n, uint32_t rows)
{
    uint8_t room[FRAME_HEADER_BYTES + 4 * EMBD * 4 + 4 * MAX_WORDS];
    parcel x = {.room = room, .payload = room + FRAME_HEADER_BYTES};

    cr_assert(w->b.n_tokens == rows && rows <= limits.max_tokens && w->b.n_out <= limits.max_out);
    wire_write(&x, &limits, &w->b);
    cr_assert_eq(x.f.extra, n);
    cr_assert(memcmp(x.payload + x.f.payload_bytes - n, extra, n) == 0);
}

Test(wire, random_damage)
{
    static const uint32_t nasty[] = {0,  1,  2,  3,  4,  5,          7,          8,         31,
                                     32, 33, 63, 64, 65, 0x7fffffff, 0x80000000, 0xffffffff};
    uint64_t state = 4;
    wire_batch w;
    pr_err err;
    size_t accepted = 0;

    cr_assert_eq(wire_batch_init(&w, &limits, &err), PR_OK);
    for (int i = 0; i < 200000; i++) {
        uint32_t word[MAX_WORDS];
        const description *d =
            &descriptions[random_64(&state) % (sizeof descriptions / sizeof *descriptions)];
        size_t n = d->n + random_64(&state) % 2;
        memcpy(word, d->word, sizeof word);
        for (size_t k = random_64(&state) % 3; k > 0; k--)
            word[random_64(&state) % d->n] = nasty[random_64(&state) % (sizeof nasty / sizeof *nasty)];
        if (word[1] > 8) word[1] = 8; /* rows of the frame, which the limit of its payload keeps small */
        if (read_bytes(&w, &limits, word[1], word, n * 4, &err)) continue;
        accepted++;
        check_accepted(&w, (const uint8_t *)word, n * 4, word[1]);
    }
    cr_expect_gt(accepted, 10000u);
    wire_batch_clear(&w);
}

/* --- round trip ---------------------------------------------------------------------------------------- */
Test(wire, the_largest_frame_fits_and_comes_back)
{
    const wire_limits l = {.n_embd = 8,
                           .max_tokens = 40,
                           .max_runs = 16,
                           .max_out = 16,
                           .n_pages = 1 << 20,
                           .ctx = 1000,
                           .elem = FRAME_BF16};
    size_t most = wire_max_bytes(&l);
    parcel x = {.payload = malloc(most)};
    int32_t pages[16 * 32], out[16];
    batch_run run[16];
    batch b = {.n_tokens = 40, .n_runs = 16, .run = run, .n_out = 16, .out = out};
    wire_batch w;
    pr_err err = {0};

    for (size_t i = 0; i < 16; i++) { /* all as long as the context: 32 pages each */
        size_t n = i < 15 ? 1 : 25;
        run[i] = (batch_run){i, n, 1000 - n, pages + 32 * i};
        out[i] = (int32_t)(i < 15 ? i : 39);
        for (size_t p = 0; p < 32; p++) pages[32 * i + p] = (int32_t)((1 << 20) - 1 - i * 32 - p);
    }
    memset(x.payload, 0, most);
    wire_write(&x, &l, &b);
    cr_expect_eq(x.f.payload_bytes, most);
    /* 40 rows of 8 halves; 2 + 16 x (2 + 32) + 16 numbers */
    cr_expect_eq(most, 40u * 8 * 2 + 4 * (2 + 16 * 34 + 16));
    cr_assert_eq(wire_batch_init(&w, &l, &err), PR_OK);
    cr_assert_eq(wire_read(&w, &l, &x, &err), PR_OK, "%s", err.msg);
    same_batch(&w.b, &b);
    wire_batch_clear(&w);
    free(x.payload);
}

/* --- halves -------------------------------------------------------------------------------------------- */
/* What the bits of a 16-bit float mean: sign, exponent, fraction. Infinity and beyond count as the next
 * number would, so that what is nearest to it becomes infinity, as IEEE 754 has it. */
typedef struct {
    frame_elem elem;
    int fraction_bits, bias;
    uint16_t infinity;
} half_format;
static const half_format formats[] = {{FRAME_F16, 10, 15, 0x7c00}, {FRAME_BF16, 7, 127, 0x7f80}};

static double magnitude(const half_format *f, uint16_t bits)
{
    int exponent = bits >> f->fraction_bits, fraction = bits & ((1 << f->fraction_bits) - 1);

    if (exponent) fraction += 1 << f->fraction_bits;
    else exponent = 1;
    return ldexp(fraction, exponent - f->bias - f->fraction_bits);
}

/* The nearest; of two equally near the even one. */
static uint16_t nearest(const half_format *f, float v)
{
    double x = fabs((double)v);
    uint16_t low = 0, high = f->infinity, sign = signbit(v) ? 0x8000 : 0;

    if (isinf(v) || x >= magnitude(f, high)) return sign | high;
    while (high - low > 1) { /* magnitude(low) <= x < magnitude(high) */
        uint16_t middle = (uint16_t)((low + high) / 2);
        if (magnitude(f, middle) <= x) low = middle;
        else high = middle;
    }
    double below = x - magnitude(f, low), above = magnitude(f, high) - x;
    return sign | (below < above || (below == above && low % 2 == 0) ? low : high);
}

static void check_rounding(const half_format *f, float v)
{
    uint16_t got;

    wire_pack(&got, &v, 1, f->elem);
    if (isnan(v)) cr_assert((got & 0x7fff) > f->infinity, "%a becomes %04x", v, got);
    else cr_assert_eq(got, nearest(f, v), "%a becomes %04x, expected %04x", v, got, nearest(f, v));
}

static float from_bits(uint32_t u)
{
    float v;
    memcpy(&v, &u, sizeof v);
    return v;
}

Test(wire, rounds_to_the_nearest_even)
{
    uint64_t state = 1;

    for (size_t k = 0; k < 2; k++) {
        const half_format *f = &formats[k];
        for (uint16_t h = 0; h < f->infinity; h++) {
            float here = (float)magnitude(f, h);
            float between = (float)((magnitude(f, h) + magnitude(f, h + 1)) / 2);
            check_rounding(f, here);
            check_rounding(f, -here);
            check_rounding(f, between); /* exact: one bit more than the format has */
            check_rounding(f, nextafterf(between, 0));
            check_rounding(f, nextafterf(between, INFINITY));
        }
        for (int i = 0; i < 300000; i++) check_rounding(f, from_bits((uint32_t)random_64(&state)));
        static const uint32_t corners[] = {
            0,          0x80000000, 1,          0x80000001, 0x007fffff, 0x00800000, 0x7f7fffff, 0xff7fffff,
            0x7f800000, 0xff800000, 0x7f800001, 0xff800001, 0x7fffffff, 0x7fc00000, 0x7f808000, 0x7f80ffff};
        for (size_t i = 0; i < sizeof corners / sizeof *corners; i++)
            check_rounding(f, from_bits(corners[i]));
    }
}

Test(wire, every_half_comes_back)
{
    for (size_t k = 0; k < 2; k++) {
        const half_format *f = &formats[k];
        for (uint32_t h = 0; h < 65536; h++) {
            uint16_t bits = (uint16_t)h, again;
            float v;
            wire_unpack(&v, &bits, 1, f->elem);
            if ((bits & 0x7fff) > f->infinity) {
                cr_assert(isnan(v));
                continue;
            }
            if ((bits & 0x7fff) == f->infinity) cr_assert(isinf(v));
            else cr_assert_eq(fabs((double)v), magnitude(f, bits & 0x7fff), "%04x", bits);
            wire_pack(&again, &v, 1, f->elem);
            cr_assert_eq(again, bits);
        }
    }
}
