/* The IQ types whose values are patterns from a grid, as small integers: value = d * sc[k / 16] * q[k].
 *
 * `block` is in file layout. q gets 256 values, sc 16 scales; the result is d with the constant factor of the
 * type in it, which is a power of two and so changes no digit. Both ref/dequant_iq.c and ref/unpack8.c stand
 * on these. */
#ifndef PRIMA_KERNELS_IQ_H
#define PRIMA_KERNELS_IQ_H
#include <stdint.h>

float iq2_xxs_decode(const uint8_t *block, int8_t *q, int8_t *sc);
float iq2_xs_decode(const uint8_t *block, int8_t *q, int8_t *sc);
float iq2_s_decode(const uint8_t *block, int8_t *q, int8_t *sc);
float iq3_xxs_decode(const uint8_t *block, int8_t *q, int8_t *sc);
float iq3_s_decode(const uint8_t *block, int8_t *q, int8_t *sc);
float iq1_s_decode(const uint8_t *block, int8_t *q, int8_t *sc);
float iq1_m_decode(const uint8_t *block, int8_t *q, int8_t *sc);

#endif
