/* Keys of a model's architecture as checked numbers; see hparams_impl.h. */
#include "src/model/hparams_impl.h"
#include <inttypes.h>
#include <stdio.h>

const char *hp_key(char out[HP_KEY_BYTES], const hp_reader *r, const char *suffix)
{
    snprintf(out, HP_KEY_BYTES, "%s.%s", r->arch, suffix);
    return out;
}

/* The one value of an array whose elements are all equal. */
static bool array_u32(hp_reader *r, const char *key, const gguf_array *a, uint32_t *v)
{
    int64_t first;

    if (a->n == 0 || a->type == GGUF_STRING || a->type == GGUF_F32 || a->type == GGUF_F64 ||
        a->type == GGUF_BOOL) {
        hp_bad(r, "key %s is an array of %zu %s, expected integers", key, a->n,
               gguf_value_type_name(a->type));
        return false;
    }
    first = gguf_array_int(a, 0);
    for (size_t i = 1; i < a->n; i++) {
        if (gguf_array_int(a, i) != first) {
            hp_bad(r,
                   "key %s differs between layers (%" PRId64 " in layer 0, %" PRId64
                   " in layer %zu); prima needs equal layers",
                   key, first, gguf_array_int(a, i), i);
            return false;
        }
    }
    if (first < 0 || first > UINT32_MAX) {
        hp_bad(r, "key %s is %" PRId64 ", which is out of range", key, first);
        return false;
    }
    *v = (uint32_t)first;
    return true;
}

/* A number, or an array with one for each layer. False when absent or (r->err set) unfit. */
static bool get_u32(hp_reader *r, const char *key, uint32_t *v)
{
    pr_err e = {0};
    gguf_array a;

    if (!hp_ok(r)) return false;
    if (gguf_get_array(r->g, key, &a, &e)) return array_u32(r, key, &a, v);
    if (gguf_u32(r->g, key, v, &e)) return true;
    if (e.code) r->err = e;
    return false;
}

static void check_range(hp_reader *r, const char *key, uint32_t v, uint32_t min, uint32_t max)
{
    if (v < min || v > max)
        hp_bad(r, "key %s is %" PRIu32 ", expected %" PRIu32 "..%" PRIu32, key, v, min, max);
}

uint32_t hp_need_u32(hp_reader *r, const char *suffix, uint32_t min, uint32_t max)
{
    char key[HP_KEY_BYTES];
    uint32_t v = min;

    if (!get_u32(r, hp_key(key, r, suffix), &v)) hp_bad(r, "key %s is missing", key);
    check_range(r, key, v, min, max);
    return v;
}

uint32_t hp_opt_u32(hp_reader *r, const char *suffix, uint32_t absent, uint32_t min, uint32_t max)
{
    char key[HP_KEY_BYTES];
    uint32_t v = absent;

    if (get_u32(r, hp_key(key, r, suffix), &v)) check_range(r, key, v, min, max);
    return v;
}

/* NaN passes no comparison. */
float hp_opt_f32(hp_reader *r, const char *suffix, float absent, hp_zero zero, double max)
{
    char key[HP_KEY_BYTES];
    float v = absent;
    pr_err e = {0};

    if (!hp_ok(r)) return absent;
    if (!gguf_f32(r->g, hp_key(key, r, suffix), &v, &e)) {
        if (e.code) r->err = e;
        return absent;
    }
    if (!(v >= 0 && v <= max) || (v == 0 && zero == HP_ABOVE_ZERO))
        hp_bad(r, "key %s is %g, expected %s %g", key, (double)v,
               zero == HP_ABOVE_ZERO ? "more than 0 and at most" : "a number from 0 to", max);
    return v;
}
