/* The instruction sets that a kernel test runs through, as values that may stand in a test parameter. */
#ifndef PRIMA_TESTS_KERNELS_ISAS_H
#define PRIMA_TESTS_KERNELS_ISAS_H
#include "kernels/kernels.h"
#include <criterion/criterion.h>

enum { ISA_REF, ISA_AVX2, ISA_AVX512, ISA_NEON, ISA_COUNT };
static const char *const isa_names[ISA_COUNT] = {"ref", "avx2", "avx512", "neon"};

/* The table of one instruction set; skips the test where this CPU or this build does not have it. */
static inline void isa_table(kernel_table *k, int isa)
{
    unsigned mask;

    cr_assert(cpu_isa_mask(isa_names[isa], &mask));
    if ((mask & cpu_features()) != mask) cr_skip_test("no %s here", isa_names[isa]);
    kernels_init(k, mask);
    cr_assert_str_eq(k->isa, isa_names[isa]);
}

#endif
