/* Inputs of products in VRAM: no two arrays share a byte, all are aligned and inside what was asked for; and
 * the places of float weights in a pack, by their definition in kernels/gpu_pack_float.h. */
#include "kernels/gpu_layout.h"
#include "kernels/gpu_pack.h"
#include "kernels/gpu_pack_float.h"
#include "tests/kernels/blocks.h"

enum { ALL_KINDS = (1 << GPU_ACT_COUNT) - 1 };

Test(gpu_layout, every_type_has_its_kind)
{
    cr_assert_eq(gpu_act_for_type(Q_F16), GPU_ACT_F16);
    cr_assert_eq(gpu_act_for_type(Q_BF16), GPU_ACT_BF16);
    cr_assert_eq(gpu_act_for_type(Q_F32), GPU_ACT_F32);
    for (uint32_t type = 0; type < Q_TYPE_COUNT; type++) {
        const quant_type *q = quant_info(type);
        if (!q || q->block_values == 1) continue;
        cr_assert_eq(gpu_act_for_type(type), q->block_values == 256 ? GPU_ACT_Q8_256 : GPU_ACT_Q8_32, "%s",
                     q->name);
    }
}

/* Marks an array's bytes. */
static void mark(uint8_t *memory, size_t total, const void *p, size_t bytes)
{
    size_t at = (size_t)((const uint8_t *)p - memory);

    cr_assert_eq(at % 256, 0);
    cr_assert(at <= total && bytes <= total - at, "array at %zu of %zu bytes in %zu", at, bytes, total);
    for (size_t i = at; i < at + bytes; i++) {
        cr_assert_eq(memory[i], 0, "byte %zu belongs to two arrays", i);
        memory[i] = 1;
    }
}

static void check_place(size_t n_cols, size_t n_tokens, unsigned kinds)
{
    static const size_t block[2] = {256, 32}, sub_block[2] = {16, 32};
    size_t total = gpu_acts_bytes(n_cols, n_tokens, kinds);
    uint8_t *memory = aligned_alloc(256, total + 256);
    gpu_acts a;

    cr_assert_not_null(memory);
    memset(memory, 0, total);
    gpu_acts_place(&a, memory, n_cols, n_tokens, kinds);
    cr_assert(a.n_cols == n_cols && a.kinds == kinds && a.stride % 32 == 0);
    cr_assert(a.stride >= n_cols && a.stride < n_cols + 32);
    for (int i = 0; i < 2; i++) {
        cr_assert_eq(!a.q[i], !(kinds & 1u << (GPU_ACT_Q8_256 + i)));
        cr_assert_eq(!a.hi[i], !(kinds & 1u << (GPU_ACT_F16 + i)));
        if (a.q[i]) {
            mark(memory, total, a.q[i], n_tokens * n_cols);
            mark(memory, total, a.d[i], n_tokens * n_cols / block[i] * sizeof(float));
            mark(memory, total, a.sum[i], n_tokens * n_cols / sub_block[i] * sizeof(int16_t));
        }
        if (a.hi[i]) {
            mark(memory, total, a.hi[i], n_tokens * a.stride * sizeof(uint16_t));
            mark(memory, total, a.lo[i], n_tokens * a.stride * sizeof(uint16_t));
            mark(memory, total, a.scale[i], n_tokens * sizeof(float));
        }
    }
    cr_assert_eq(!a.f32, !(kinds & 1u << GPU_ACT_F32));
    if (a.f32) mark(memory, total, a.f32, n_tokens * a.stride * sizeof(float));
    free(memory);
}

Test(gpu_layout, arrays_do_not_overlap)
{
    for (unsigned kinds = 0; kinds <= ALL_KINDS; kinds++) {
        check_place(256, 1, kinds);
        check_place(768, 5, kinds);
        if (!(kinds & 1u << GPU_ACT_Q8_256)) check_place(96, 3, kinds);
        if (!(kinds & (1u << GPU_ACT_Q8_256 | 1u << GPU_ACT_Q8_32))) check_place(33, 7, kinds);
    }
    cr_assert_eq(gpu_acts_bytes(256, 4, 0), 0);
}

/* Rows whose value at row r, column k is 1000 r + k + 1, to find each at its place. */
static void check_pack(size_t n_rows, size_t n_cols, uint32_t type)
{
    size_t value = type == Q_F32 ? 4 : 2, bytes = gpu_pack_float_group_bytes(type, n_cols);
    size_t chunks = (n_cols + 31) / 32;
    uint8_t *src = calloc(n_rows * n_cols, value), *row = malloc(n_cols * value), *pack = malloc(bytes);

    cr_assert_eq(bytes, 16 * 32 * chunks * value);
    for (size_t i = 0; i < n_rows * n_cols; i++) {
        uint16_t name = (uint16_t)(i / n_cols * 1000 + i % n_cols + 1);
        memcpy(src + i * value, &name, sizeof name);
    }
    memset(pack, 0xff, bytes);
    gpu_pack_float_group(type, pack, src, n_rows, n_cols);
    for (size_t c = 0; c < chunks; c++) {
        for (size_t lane = 0; lane < 32; lane++) {
            for (size_t i = 0; i < 16; i++) {
                size_t part = type == Q_F32 ? i / 4 : i / 8, j = type == Q_F32 ? i % 4 : i % 8;
                size_t at =
                    type == Q_F32 ? c * 512 + part * 128 + lane * 4 + j : c * 512 + part * 256 + lane * 8 + j;
                size_t r = type == Q_F32 ? lane / 2 : lane / 4 + (j & 2 ? 8 : 0);
                size_t k = type == Q_F32 ? 32 * c + 8 * part + 4 * (lane & 1) + j
                                         : 32 * c + 8 * (lane & 3) + 4 * part + (j & 4 ? 2 : 0) + (j & 1);
                uint16_t got;

                memcpy(&got, pack + at * value, sizeof got);
                cr_assert_eq(got, r < n_rows && k < n_cols ? r * 1000 + k + 1 : 0,
                             "type %u chunk %zu lane %zu %zu", type, c, lane, i);
            }
        }
    }
    for (size_t r = 0; r < n_rows; r++) {
        gpu_pack_float_row_back(type, row, pack, n_cols, r);
        cr_assert_arr_eq(row, src + r * n_cols * value, n_cols * value, "row %zu", r);
    }
    free(src);
    free(row);
    free(pack);
}

Test(gpu_layout, float_weights_stand_where_the_fragments_are)
{
    static const size_t cols[] = {1, 31, 32, 33, 96, 100};
    static const uint32_t types[] = {Q_F16, Q_BF16, Q_F32};

    for (int t = 0; t < 3; t++) {
        for (int c = 0; c < 6; c++) {
            check_pack(16, cols[c], types[t]);
            check_pack(3, cols[c], types[t]);
        }
    }
}
