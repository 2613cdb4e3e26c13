/* The instruction sets that a kernel test runs through, as values that may stand in a test parameter. */
#ifndef PRIMA_TESTS_KERNELS_ISAS_H
#define PRIMA_TESTS_KERNELS_ISAS_H
#include "kernels/kernels.h"
#include <criterion/criterion.h>

/* After the instruction sets, their faster ways to the same products. */
enum {
    ISA_REF,
    ISA_AVX2,
    ISA_AVX512,
    ISA_NEON,
    ISA_COUNT,
    ISA_AVXVNNI = ISA_COUNT,
    ISA_I8MM,
    ISA_AMX,
    ISA_AND_WAY_COUNT
};
static const char *const isa_names[ISA_AND_WAY_COUNT] = {
    "ref", "avx2", "avx512", "neon", "avx2 with AVX-VNNI", "neon with i8mm", "avx512 with AMX"};

static const struct {
    int isa;
    unsigned way;
} isa_ways[] = {{ISA_AVX2, CPU_AVXVNNI}, {ISA_NEON, CPU_I8MM}, {ISA_AVX512, CPU_AMX}};

/* The table of one instruction set, plain or in its faster way; skips the test where this CPU or this build
 * does not have it. */
static inline void isa_table(kernel_table *k, int isa)
{
    const unsigned way = isa < ISA_COUNT ? 0 : isa_ways[isa - ISA_COUNT].way;
    const char *name = isa_names[way ? isa_ways[isa - ISA_COUNT].isa : isa];
    unsigned mask;

    cr_assert(cpu_isa_mask(name, &mask));
    mask = (mask & ~(unsigned)CPU_WAYS) | way;
    if ((mask & cpu_features()) != mask) cr_skip_test("no %s here", isa_names[isa]);
    kernels_init(k, mask);
    cr_assert_str_eq(k->isa, name);
}

#endif
