/* Which instruction sets this CPU and this operating system allow, and the names people give to masks. */
#include "kernels/kernels.h"
#include <string.h>

#if defined(__aarch64__) && defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#elif defined(__aarch64__) && defined(__APPLE__)
#include <sys/sysctl.h>

static bool sysctl_says(const char *name)
{
    int value = 0;
    size_t n = sizeof value;
    return sysctlbyname(name, &value, &n, NULL, 0) == 0 && value != 0;
}
#endif

#if defined(__x86_64__)
#include <cpuid.h>
#ifdef __linux__
#include <sys/syscall.h>
#include <unistd.h>
#endif

/* clang 14 does not know this name in __builtin_cpu_supports. */
static bool has_f16c(void)
{
    unsigned a, b, c, d;
    return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
}

/* Leaf 7, subleaf 1; neither gcc 10 nor clang 14 knows the name. Only asked when AVX2 is there, so the OS
 * saves its registers. */
static bool has_avxvnni(void)
{
    unsigned a, b, c, d;
    return __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & 1u << 4);
}

/* Leaf 7: AMX-TILE and AMX-INT8. Their state is large, so Linux gives it only to a process that has asked.
 * Elsewhere nobody is known to have asked for it. */
static bool has_amx(void)
{
#ifdef __linux__
    enum { ASK_FOR_STATE = 0x1023, TILE_DATA = 18 }; /* ARCH_REQ_XCOMP_PERM, asm/prctl.h of Linux 5.16 */
    unsigned a, b, c, d;

    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d & 1u << 24) && (d & 1u << 25) &&
           syscall(SYS_arch_prctl, ASK_FOR_STATE, TILE_DATA) == 0;
#else
    return false;
#endif
}
#endif

bool cpu_reads_near(void)
{
#if defined(__x86_64__)
    static _Atomic int known; /* cpuid costs a virtual machine microseconds: 1 no, 2 yes */
    unsigned a, b, c, d;

    if (!known) {
        bool intel = __get_cpuid(0, &a, &b, &c, &d) && b == signature_INTEL_ebx && d == signature_INTEL_edx &&
                     c == signature_INTEL_ecx;
        known = 1 + intel;
    }
    return known == 2;
#else
    return false;
#endif
}

unsigned cpu_features(void)
{
    unsigned f = 0;
#if defined(__x86_64__)
    /* __builtin_cpu_supports also asks whether the OS saves the wide registers (XGETBV). */
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c()) { f |= CPU_AVX2; }
    if (f && has_avxvnni()) f |= CPU_AVXVNNI;
    if (f && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vnni")) {
        f |= CPU_AVX512;
    }
    if ((f & CPU_AVX512) && has_amx()) f |= CPU_AMX;
#elif defined(__aarch64__) && defined(__linux__)
    unsigned long caps = getauxval(AT_HWCAP);
    if ((caps & HWCAP_ASIMDDP) && (caps & HWCAP_ASIMDHP) && (caps & HWCAP_FPHP)) f |= CPU_NEON;
    if (f && (getauxval(AT_HWCAP2) & HWCAP2_I8MM)) f |= CPU_I8MM;
#elif defined(__aarch64__) && defined(__APPLE__)
    if (sysctl_says("hw.optional.arm.FEAT_DotProd") && sysctl_says("hw.optional.arm.FEAT_FP16"))
        f |= CPU_NEON;
    if (f && sysctl_says("hw.optional.arm.FEAT_I8MM")) f |= CPU_I8MM;
#endif
    return f;
}

bool cpu_isa_mask(const char *name, unsigned *mask)
{
    static const struct {
        const char *name;
        unsigned mask, faster;
    } names[] = {{"ref", 0, 0},
                 {"avx2", CPU_AVX2, CPU_AVXVNNI},
                 {"avx512", CPU_AVX2 | CPU_AVX512, CPU_AVXVNNI | CPU_AMX},
                 {"neon", CPU_NEON, CPU_I8MM}};

    if (!name) {
        *mask = ~0u;
        return true;
    }
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (strcmp(name, names[i].name) == 0) {
            *mask = names[i].mask | (names[i].faster & cpu_features());
            return true;
        }
    }
    return false;
}
