/* The permutation of float weights for GPUs: chunk by chunk, so that what is written stays in the L1 cache;
 * on the way back, which only tests go, every k of a row is asked for its place. */
#include "kernels/gpu_pack_float.h"
#include "kernels/gpu_layout.h"
#include "kernels/gpu_pack.h"
#include <string.h>

enum { LANES = 32 };

static size_t value_bytes(uint32_t type)
{
    return type == Q_F32 ? sizeof(float) : sizeof(uint16_t);
}

size_t gpu_pack_float_group_bytes(uint32_t type, size_t n_cols)
{
    return GPU_PACK_ROWS * gpu_act_stride(n_cols) * value_bytes(type);
}

/* A chunk of 16-bit weights as pairs: lanes 4g .. 4g + 3 of both fragments have those of row g, g + 8 beside
 * them. */
static void scatter_halves(uint32_t *dst, const uint32_t *pair, size_t row)
{
    for (size_t i = 0; i < GPU_FLOAT_CHUNK / 2; i++) {
        size_t t = i / 4, s = i / 2 % 2, lane = row % 8 * 4 + t;
        dst[s * LANES * 4 + lane * 4 + i % 2 * 2 + row / 8] = pair[i];
    }
}

/* Four floats go to a lane. */
static void scatter_floats(uint32_t *dst, const uint32_t *value, size_t row)
{
    for (size_t s = 0; s < 4; s++) memcpy(dst + (s * LANES + 2 * row) * 4, value + 8 * s, 8 * sizeof *dst);
}

static size_t place_of_half(size_t row, size_t k)
{
    size_t chunk = k / GPU_FLOAT_CHUNK, in_lane = k % 8, lane = row % 8 * 4 + k % GPU_FLOAT_CHUNK / 8;
    size_t s = in_lane / 4, i = in_lane % 4 / 2 * 4 + row / 8 * 2 + in_lane % 2;

    return (2 * chunk + s) * LANES * 8 + lane * 8 + i;
}

static size_t place_of_float(size_t row, size_t k)
{
    return k / 8 * LANES * 4 + (2 * row + k / 4 % 2) * 4 + k % 4;
}

void gpu_pack_float_group(uint32_t type, void *dst, const void *src, size_t n_rows, size_t n_cols)
{
    size_t bytes = value_bytes(type), row_bytes = n_cols * bytes, chunk_bytes = GPU_FLOAT_CHUNK * bytes;

    for (size_t at = 0; at < row_bytes; at += chunk_bytes) {
        uint32_t *to = (uint32_t *)((uint8_t *)dst + at * GPU_PACK_ROWS);

        for (size_t row = 0; row < GPU_PACK_ROWS; row++) {
            uint32_t line[GPU_FLOAT_CHUNK] = {0};
            size_t n = row_bytes - at < chunk_bytes ? row_bytes - at : chunk_bytes;

            if (row < n_rows) memcpy(line, (const uint8_t *)src + row * row_bytes + at, n);
            if (type == Q_F32) scatter_floats(to, line, row);
            else scatter_halves(to, line, row);
        }
    }
}

void gpu_pack_float_row_back(uint32_t type, void *dst, const void *group, size_t n_cols, size_t row)
{
    size_t bytes = value_bytes(type);

    for (size_t k = 0; k < n_cols; k++) {
        size_t at = type == Q_F32 ? place_of_float(row, k) : place_of_half(row, k);
        memcpy((uint8_t *)dst + k * bytes, (const uint8_t *)group + at * bytes, bytes);
    }
}
