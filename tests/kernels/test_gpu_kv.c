/* The page of the KV cache on a GPU: every element has a place of its own, and a lane finds what its
 * fragments need where kernels/gpu_kv.h says. Tiles of a batch: every row is in one, once. */
#include "kernels/gpu_kv.h"
#include "kernels/gpu_layout.h"
#include "kernels/gpu_tiles.h"
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

static const kv_type types[] = {KV_F16, KV_Q8_0};

/* Once each, and nothing behind the page's end. */
Test(gpu_kv, places_are_a_permutation)
{
    for (int t = 0; t < 2; t++) {
        size_t step = types[t] == KV_F16 ? 8 : 32;
        for (size_t S = step; S <= 256; S += step) {
            size_t n = 64 * S, element = types[t] == KV_F16 ? 2 : 1,
                   n_scales = types[t] == KV_F16 ? 0 : 2 * S;
            uint8_t *seen = calloc(n, 1);

            for (size_t slot = 0; slot < 32; slot++) {
                for (size_t dim = 0; dim < S; dim++) {
                    size_t k = gpu_kv_key_at(types[t], S, slot, dim),
                           v = gpu_kv_value_at(types[t], S, slot, dim);
                    cr_assert(k < n / 2 && v >= n / 2 && v < n, "S %zu, slot %zu, dim %zu", S, slot, dim);
                    cr_assert(!seen[k]++ && !seen[v]++, "S %zu, slot %zu, dim %zu", S, slot, dim);
                }
            }
            cr_assert_eq(gpu_kv_page_bytes(types[t], S), n * element + n_scales * sizeof(float));
            cr_assert_eq(gpu_kv_page_bytes(types[t], S) % 16, 0);
            if (n_scales) cr_assert_eq(gpu_kv_scales(S), n);
            free(seen);
        }
    }
}

Test(gpu_kv, scales_are_a_permutation)
{
    for (size_t S = 32; S <= 256; S += 32) {
        uint8_t seen[512] = {0};

        for (size_t slot = 0; slot < 32; slot++) {
            for (size_t dim = 0; dim < S; dim++) {
                size_t k = gpu_kv_key_scale_at(slot, dim), v = gpu_kv_value_scale_at(S, slot, dim);
                cr_assert(k < S && v >= S && v < 2 * S);
                if (dim % 32) continue;
                cr_assert(!seen[k]++ && !seen[v]++, "slot %zu, dim %zu", slot, dim);
            }
            for (size_t dim = 0; dim < S; dim++) { /* one for 32 dimensions */
                cr_assert_eq(gpu_kv_key_scale_at(slot, dim), gpu_kv_key_scale_at(slot, dim / 32 * 32));
                cr_assert_eq(gpu_kv_value_scale_at(S, slot, dim),
                             gpu_kv_value_scale_at(S, slot, dim / 32 * 32));
            }
        }
    }
}

/* The 16 bytes of a lane, from the picture in gpu_kv.h. */
Test(gpu_kv, lanes_find_their_fragments)
{
    const size_t S = 128;

    for (size_t lane = 0; lane < 32; lane++) {
        size_t g = lane / 4, t = lane % 4;
        for (size_t i = 0; i < 8; i++) {
            for (size_t chunk = 0; chunk < 4; chunk++) {
                for (size_t j = 0; j < 4; j++) {
                    size_t key = 8 * (g / 2) + 2 * j + g % 2, dim = 32 * chunk + 8 * t + i;
                    cr_assert_eq(gpu_kv_key_at(KV_F16, S, key, dim), ((chunk * 4 + j) * 32 + lane) * 8 + i);
                    cr_assert_eq(gpu_kv_key_at(KV_Q8_0, S, key, dim),
                                 ((chunk * 2 + j / 2) * 32 + lane) * 16 + j % 2 * 8 + i);
                }
            }
            for (size_t n = 0; n < 16; n++) {
                cr_assert_eq(gpu_kv_value_at(KV_F16, S, 8 * t + i, 8 * n + g),
                             32 * S + (n * 32 + lane) * 8 + i);
                cr_assert_eq(gpu_kv_value_at(KV_Q8_0, S, 8 * t + i, 8 * n + g),
                             32 * S + (n / 2 * 32 + lane) * 16 + n % 2 * 8 + i);
            }
        }
    }
    /* A last chunk of 16 dimensions: 4 for each lane. */
    cr_assert_eq(gpu_kv_key_at(KV_F16, 80, 1, 64), 2048 + 16);
    cr_assert_eq(gpu_kv_key_at(KV_F16, 80, 2, 79), 2048 + 8 * 16 + 15);
}

/* --- tiles ------------------------------------------------------------------------------------------------
 */
Test(gpu_tiles, every_row_once)
{
    static const size_t groups[] = {1, 4, 7, 8, 48, 64}, lengths[] = {2, 1, 9, 16, 1, 100, 513};
    static const size_t order[] = {1, 4, 0, 2, 3, 5, 6}; /* of one token first */
    gpu_run run[7];

    for (size_t g = 0; g < 6; g++) {
        size_t T = 0, at = 0, n_tiles, most;
        int32_t *tile;

        for (size_t r = 0; r < 7; r++) {
            run[r] = (gpu_run){.first = T, .n = lengths[r], .pos = 1000 * r};
            T += lengths[r];
        }
        most = gpu_tiles_most(T, 7, groups[g]);
        n_tiles = gpu_tiles_cut(NULL, run, 7, groups[g]);
        cr_assert_leq(n_tiles, most);
        tile = calloc(n_tiles, GPU_TILE_FIELDS * sizeof *tile);
        cr_assert_eq(gpu_tiles_cut(tile, run, 7, groups[g]), n_tiles);
        for (size_t i = 0; i < 7; i++) {
            size_t r = order[i];
            for (size_t row = 0; row < lengths[r] * groups[g]; at++) {
                const int32_t *t = tile + at * GPU_TILE_FIELDS;
                cr_assert(at < n_tiles);
                cr_assert_eq(t[GPU_TILE_RUN], (int32_t)r);
                cr_assert_eq(t[GPU_TILE_FIRST], (int32_t)row);
                cr_assert_eq(t[GPU_TILE_POS], (int32_t)(1000 * r));
                cr_assert(t[GPU_TILE_ROWS] > 0 && t[GPU_TILE_ROWS] <= GPU_ATTN_ROWS);
                row += (size_t)t[GPU_TILE_ROWS];
                cr_assert_leq(row, lengths[r] * groups[g]);
            }
        }
        cr_assert_eq(at, n_tiles);
        free(tile);
    }
}

/* One tile for each run of one token: what decoding stands on. */
Test(gpu_tiles, one_for_each_token_decoded)
{
    gpu_run run[5];

    for (size_t r = 0; r < 5; r++) run[r] = (gpu_run){.first = r, .n = 1, .pos = r};
    for (size_t group = 1; group <= GPU_ATTN_ROWS; group++) {
        cr_assert_eq(gpu_tiles_cut(NULL, run, 5, group), 5);
        cr_assert_geq(gpu_tiles_most(5, 5, group), 5);
    }
}
