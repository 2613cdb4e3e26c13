/* What hparams.c, hparams_keys.c and hparams_rope.c share: a reader whose first error sticks, so that steps
 * can follow each other without asking; values read after an error mean nothing. */
#ifndef PRIMA_MODEL_HPARAMS_IMPL_H
#define PRIMA_MODEL_HPARAMS_IMPL_H
#include "src/model/hparams.h"

typedef struct {
    const gguf *g;
    const char *arch;
    hparams *hp;
    bool *used; /* [n_tensors] */
    pr_err err; /* the first error */
} hp_reader;

static inline bool hp_ok(const hp_reader *r)
{
    return r->err.code == PR_OK;
}

/* hp_bad(r, format, ...): the model is malformed; keeps an earlier error. */
#define hp_bad(r, ...) (hp_ok(r) ? (void)pr_fail(&(r)->err, PR_EINTEGRITY, __VA_ARGS__) : (void)0)

/* ARCH.suffix */
enum { HP_KEY_BYTES = 128 };
const char *hp_key(char out[HP_KEY_BYTES], const hp_reader *r, const char *suffix);

/* ARCH.suffix as a number in [min, max]; an array with one number for each layer counts when they are all
 * equal. */
uint32_t hp_need_u32(hp_reader *r, const char *suffix, uint32_t min, uint32_t max);
uint32_t hp_opt_u32(hp_reader *r, const char *suffix, uint32_t absent, uint32_t min, uint32_t max);

/* A number in 0..max, or above 0 only. */
typedef enum { HP_ZERO_ALLOWED, HP_ABOVE_ZERO } hp_zero;
float hp_opt_f32(hp_reader *r, const char *suffix, float absent, hp_zero zero, double max);

/* A tensor of this shape, marked as used. rows 0: a vector of `cols` floats, F32; else a matrix of any known
 * type. NULL when it is absent (an error only when `required`) or unfit. */
const gguf_tensor *hp_tensor(hp_reader *r, const char *name, uint64_t cols, uint64_t rows, bool required);

/* n_rot, the rotary frequencies and their scale. */
void hp_read_rope(hp_reader *r);

#endif
