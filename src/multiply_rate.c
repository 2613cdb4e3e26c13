/* See multiply_rate.h. Loops over registers alone: twelve independent chains of one instruction, enough to
 * hide the latency of two of them a cycle. In assembler, since a compiler would add what it can. All
 * registers hold zeros, on which these instructions take as long as on anything else. */
#include "src/multiply_rate.h"
#include "kernels/kernels.h"
#include "src/base/clock.h"

enum { TIMES = 100000, N_CHAINS = 12 };

/* CHAIN(n) is the instruction with target register n and sources 13 and 14. */
#define CHAINS(CHAIN)                                                                                        \
    CHAIN(0)                                                                                                 \
    CHAIN(1) CHAIN(2) CHAIN(3) CHAIN(4) CHAIN(5) CHAIN(6) CHAIN(7) CHAIN(8) CHAIN(9) CHAIN(10) CHAIN(11)

#if defined(__x86_64__)
#define LOOP(NAME, TARGET, CHAIN)                                                                            \
    __attribute__((target(TARGET))) static void NAME(long n)                                                 \
    {                                                                                                        \
        __asm__ volatile("vzeroall\n1:\n\t" CHAINS(CHAIN) "dec %0\n\tjnz 1b\n\tvzeroupper"                   \
                         : "+r"(n)::"cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7",    \
                           "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15");            \
    }
#define DPBUSD_512(N) "vpdpbusd %%zmm13, %%zmm14, %%zmm" #N "\n\t"
#define DPBUSD_256(N) "%{vex%} vpdpbusd %%ymm13, %%ymm14, %%ymm" #N "\n\t"
#define MADDUBS(N)    "vpmaddubsw %%ymm13, %%ymm14, %%ymm" #N "\n\t"
#define FMADD_512(N)  "vfmadd231ps %%zmm13, %%zmm14, %%zmm" #N "\n\t"
#define FMADD_256(N)  "vfmadd231ps %%ymm13, %%ymm14, %%ymm" #N "\n\t"
LOOP(loop_dpbusd_512, "avx512f,avx512vnni", DPBUSD_512)
LOOP(loop_dpbusd_256, "avxvnni", DPBUSD_256)
/* Tile products over 64 values: four sums, all tiles full; 16 x 16 x 64 multiply-adds. */
__attribute__((target("amx-tile,amx-int8"))) static void loop_tiles(long n)
{
    static const struct {
        uint8_t palette, zeros[15];
        uint16_t row_bytes[16];
        uint8_t rows[16];
    } full = {1, {0}, {64, 64, 64, 64, 64, 64, 64, 64}, {16, 16, 16, 16, 16, 16, 16, 16}};

    __asm__ volatile("ldtilecfg %1\n1:\n\t"
                     "tdpbssd %%tmm6, %%tmm4, %%tmm0\n\ttdpbssd %%tmm7, %%tmm4, %%tmm1\n\t"
                     "tdpbssd %%tmm6, %%tmm5, %%tmm2\n\ttdpbssd %%tmm7, %%tmm5, %%tmm3\n\t"
                     "dec %0\n\tjnz 1b\n\ttilerelease"
                     : "+r"(n)
                     : "m"(full)
                     : "cc");
}
LOOP(loop_maddubs, "avx2", MADDUBS)
LOOP(loop_fmadd_512, "avx512f", FMADD_512)
LOOP(loop_fmadd_256, "fma", FMADD_256)

#elif defined(__aarch64__)
/* smmla and sdot as numbers: not every assembler takes their names without being told of a CPU. */
#define LOOP(NAME, CHAIN)                                                                                    \
    static void NAME(long n)                                                                                 \
    {                                                                                                        \
        __asm__ volatile(CHAINS(ZERO) "movi v13.16b, #0\n\tmovi v14.16b, #0\n1:\n\t" CHAINS(                 \
                             CHAIN) "subs %0, %0, #1\n\tb.ne 1b"                                             \
                         : "+r"(n)::"cc", "v0", "v1", "v2", "v3", "v4", "v5", "v6", "v7", "v8", "v9", "v10", \
                           "v11", "v13", "v14");                                                             \
    }
#define ZERO(N)  "movi v" #N ".16b, #0\n\t"
#define SMMLA(N) ".inst 0x4e8ea5a0 + " #N "\n\t" /* smmla vN.4s, v13.16b, v14.16b */
#define SDOT(N)  ".inst 0x4e8e95a0 + " #N "\n\t" /* sdot vN.4s, v13.16b, v14.16b */
#define FMLA(N)  "fmla v" #N ".4s, v13.4s, v14.4s\n\t"
LOOP(loop_smmla, SMMLA)
LOOP(loop_sdot, SDOT)
LOOP(loop_fmla, FMLA)
#endif

#if defined(__x86_64__) || defined(__aarch64__)
/* Of a round of the loop, and multiply-adds of each. */
static double gop_per_s(void (*loop)(long), int instructions, int multiply_adds)
{
    uint64_t start = clock_ns();

    loop(TIMES);
    return 2.0 * TIMES * instructions * multiply_adds / (double)(clock_ns() - start);
}
#endif

multiply_rate multiply_rate_slice(unsigned features)
{
    multiply_rate r = {0, 0};
#if defined(__x86_64__)
    if (features & CPU_AMX)
        r = (multiply_rate){gop_per_s(loop_tiles, 4, 16 * 16 * 64), gop_per_s(loop_fmadd_512, N_CHAINS, 16)};
    else if (features & CPU_AVX512)
        r = (multiply_rate){gop_per_s(loop_dpbusd_512, N_CHAINS, 64),
                            gop_per_s(loop_fmadd_512, N_CHAINS, 16)};
    else if (features & CPU_AVX2)
        r = (multiply_rate){gop_per_s(features & CPU_AVXVNNI ? loop_dpbusd_256 : loop_maddubs, N_CHAINS, 32),
                            gop_per_s(loop_fmadd_256, N_CHAINS, 8)};
#elif defined(__aarch64__)
    if (features & CPU_NEON)
        r = (multiply_rate){features & CPU_I8MM ? gop_per_s(loop_smmla, N_CHAINS, 32)
                                                : gop_per_s(loop_sdot, N_CHAINS, 16),
                            gop_per_s(loop_fmla, N_CHAINS, 4)};
#else
    (void)features;
#endif
    return r;
}
