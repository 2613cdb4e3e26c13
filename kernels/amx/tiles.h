/* Tiles: eight registers of 16 rows of 64 bytes, and the product of two of them.
 *
 *   C[i][j] += sum over k of A[i][k] * B[k / 4][j][k % 4]      signed bytes, int32 sums
 *
 * A: 16 tokens, K values each. B: K / 4 lines of a pack (16 rows of 4 bytes). C: 16 tokens x 16 rows.
 * A product takes 16 cycles whatever K <= 64 is; two 512-bit `vpdpbusd` a cycle would take 64 for K = 64.
 * Where TILES_IN_C is defined the same operations are plain C, so that a CPU with AVX-512 alone can test what
 * is built on them. */
#ifndef PRIMA_KERNELS_AMX_TILES_H
#define PRIMA_KERNELS_AMX_TILES_H
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Shapes of the tiles, as the instruction wants them. */
typedef struct {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} tiles_config;
_Static_assert(sizeof(tiles_config) == 64, "what ldtilecfg reads");

/* Which tile is what (literals: the instructions have them in their names). */
#define TILE_C0 0 /* .. 3: sums */
#define TILE_C1 1
#define TILE_C2 2
#define TILE_C3 3
#define TILE_A0 4 /* activations */
#define TILE_A1 5
#define TILE_B0 6 /* weights */
#define TILE_B1 7
enum { TILES = 8, TILE_ROWS = 16, TILE_ROW_BYTES = 64 };

/* All tiles full, but products over `values` (a multiple of 4, at most 64) of a token. */
static inline tiles_config tiles_for(size_t values)
{
    tiles_config c = {.palette = 1};

    for (int i = 0; i < TILES; i++) {
        c.row_bytes[i] = (uint16_t)(i == TILE_A0 || i == TILE_A1 ? values : TILE_ROW_BYTES);
        c.rows[i] = (uint8_t)(i == TILE_B0 || i == TILE_B1 ? values / 4 : TILE_ROWS);
    }
    return c;
}

#ifndef TILES_IN_C
/* In assembler: what gcc 12 makes of the intrinsics does not tell the compiler which memory is read, so
 * stores of a configuration or of a tile's bytes may be dropped or come too late. */
#define TILE_NAME2(n) "%%tmm" #n
#define TILE_NAME(n)  TILE_NAME2(n)

static inline void tiles_begin(const tiles_config *config)
{
    __asm__ volatile("ldtilecfg %0" ::"m"(*config));
}
static inline void tiles_end(void)
{
    __asm__ volatile("tilerelease");
}
#define tile_clear(tile) __asm__ volatile("tilezero " TILE_NAME(tile)::)
#define tile_load(tile, from, stride)                                                                        \
    __asm__ volatile("tileloadd (%0,%1,1), " TILE_NAME(tile)::"r"(from), "r"((size_t)(stride)) : "memory")
#define tile_store(to, stride, tile)                                                                         \
    __asm__ volatile("tilestored " TILE_NAME(tile) ", (%0,%1)" ::"r"(to), "r"((size_t)(stride)) : "memory")
#define tile_multiply(sums, tokens, w)                                                                       \
    __asm__ volatile("tdpbssd " TILE_NAME(w) ", " TILE_NAME(tokens) ", " TILE_NAME(sums)::)

#else
static _Thread_local struct {
    tiles_config config;
    uint8_t tile[TILES][TILE_ROWS][TILE_ROW_BYTES];
} tiles_now;

static inline void tiles_begin(const tiles_config *config)
{
    memset(&tiles_now, 0, sizeof tiles_now);
    tiles_now.config = *config;
}
static inline void tiles_end(void)
{
    memset(&tiles_now, 0xa5, sizeof tiles_now);
}
static inline void tile_clear(int tile)
{
    memset(tiles_now.tile[tile], 0, sizeof tiles_now.tile[tile]);
}
static inline void tile_load(int tile, const void *from, size_t stride)
{
    tile_clear(tile);
    for (size_t i = 0; i < tiles_now.config.rows[tile]; i++)
        memcpy(tiles_now.tile[tile][i], (const char *)from + i * stride, tiles_now.config.row_bytes[tile]);
}
static inline void tile_store(void *to, size_t stride, int tile)
{
    for (size_t i = 0; i < tiles_now.config.rows[tile]; i++)
        memcpy((char *)to + i * stride, tiles_now.tile[tile][i], tiles_now.config.row_bytes[tile]);
}
static inline void tile_multiply(int sums, int tokens, int w)
{
    for (size_t i = 0; i < tiles_now.config.rows[tokens]; i++) {
        int32_t *c = (int32_t *)tiles_now.tile[sums][i];
        for (size_t k = 0; k < tiles_now.config.row_bytes[tokens]; k++)
            for (size_t j = 0; j < TILE_ROWS; j++)
                c[j] +=
                    (int8_t)tiles_now.tile[tokens][i][k] * (int8_t)tiles_now.tile[w][k / 4][4 * j + k % 4];
    }
}
#endif
#endif
