/* What this CPU's multiply-add instructions reach when nothing else is in their way: the limit that products
 * with many tokens work against. */
#ifndef PRIMA_MULTIPLY_RATE_H
#define PRIMA_MULTIPLY_RATE_H

/* One thread, Gop/s (a multiply-add is two); 0 where there is no loop for the instruction set. */
typedef struct {
    double int8; /* tdpbssd, vpdpbusd, vpmaddubsw (which needs a vpmaddwd behind it: alone it is not
                    reachable), smmla or sdot */
    double f32;  /* vfmadd231ps, fmla */
} multiply_rate;

/* Each loop once, some hundred microseconds: of many calls the largest figures count. `features` is what the
 * kernels may use (CPU_AVX2 ...), cut to what this CPU has. */
multiply_rate multiply_rate_slice(unsigned features);

#endif
