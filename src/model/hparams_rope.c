/* Rotary embedding: what the keys and rope_freqs.weight say -> one frequency for each pair of a head's
 * values.
 *
 * Scaling for longer contexts is worked into the frequencies here, so that the kernels know of none: linear
 * divides all of them, YaRN each pair by its own share, and rope_freqs.weight (Llama 3.1) gives a divisor for
 * each. Computed in double, stored as f32. */
#include "src/model/hparams_impl.h"
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef enum { ROPE_NONE, ROPE_LINEAR, ROPE_YARN, ROPE_SCALINGS } rope_scaling;
static const char *const scaling_names[ROPE_SCALINGS] = {"none", "linear", "yarn"};

/* An absent type means linear: files with a factor alone are older than the key. */
static rope_scaling read_scaling_type(hp_reader *r)
{
    char key[HP_KEY_BYTES], *shown;
    gguf_str s = {0};
    pr_err e = {0};

    if (!hp_ok(r)) return ROPE_NONE;
    if (!gguf_string(r->g, hp_key(key, r, "rope.scaling.type"), &s, &e)) {
        if (e.code) r->err = e;
        return ROPE_LINEAR;
    }
    for (int i = 0; i < ROPE_SCALINGS; i++) {
        if (s.n == strlen(scaling_names[i]) && memcmp(s.p, scaling_names[i], s.n) == 0)
            return (rope_scaling)i;
    }
    shown = gguf_text(s, 64);
    hp_bad(r, "key %s is \"%s\"; prima knows none, linear and yarn", key, shown ? shown : "?");
    free(shown);
    return ROPE_NONE;
}

/* How many times longer the context is than in training; files write 0 for "not scaled". */
static double read_factor(hp_reader *r)
{
    char key[HP_KEY_BYTES];
    bool now = gguf_has(r->g, hp_key(key, r, "rope.scaling.factor"));
    float f = hp_opt_f32(r, now ? "rope.scaling.factor" : "rope.scale_linear", 1.0f, HP_ZERO_ALLOWED, 1e6);

    return f == 0 ? 1.0 : (double)f;
}

/* YaRN (Peng and others 2023): pairs that turn often within the original context keep their frequency, those
 * that turn less than once are slowed down by the factor, and those between are blended. Pair number at which
 * a frequency turns `turns` times: */
static double yarn_pair(const hparams *hp, double base, double n_ctx_orig, double turns)
{
    return hp->n_rot * log(n_ctx_orig / (turns * 2 * acos(-1.0))) / (2 * log(base));
}

/* Share of the frequency of pair i that is kept, 1 .. 0; the corners are those of llama.cpp. */
static double yarn_keep(const hparams *hp, double base, double n_ctx_orig, uint32_t i)
{
    double low = fmax(0, floor(yarn_pair(hp, base, n_ctx_orig, 32)));
    double high = fmin(hp->n_rot - 1, ceil(yarn_pair(hp, base, n_ctx_orig, 1)));

    return 1 - fmin(1, fmax(0, (i - low) / fmax(0.001, high - low)));
}

/* Divisors of the frequencies (Llama 3.1 and later); 1 without the tensor. */
static double freq_divisor(hp_reader *r, const gguf_tensor *t, uint32_t i)
{
    float v = 1;

    if (t) memcpy(&v, t->data + i * sizeof v, sizeof v);
    if (!(v > 0 && isfinite(v)))
        hp_bad(r, "rope_freqs.weight: value %" PRIu32 " is %g, expected a positive number", i, (double)v);
    return v;
}

static void fill_freqs(hp_reader *r, rope_scaling type, double base, double factor, double n_ctx_orig)
{
    hparams *hp = r->hp;
    const gguf_tensor *div = hp_tensor(r, "rope_freqs.weight", hp->n_rot / 2, 0, false);

    if (!hp_ok(r)) return;
    hp->rope_divided = div != NULL;
    if (!(hp->rope_freq = malloc(hp->n_rot / 2 * sizeof *hp->rope_freq))) {
        pr_fail(&r->err, PR_ERESOURCE, "out of memory for the rotary frequencies");
        return;
    }
    for (uint32_t i = 0; i < hp->n_rot / 2; i++) {
        double freq = pow(base, -2.0 * i / hp->n_rot) / freq_divisor(r, div, i);
        double keep = type == ROPE_YARN ? yarn_keep(hp, base, n_ctx_orig, i) : 0;

        hp->rope_freq[i] = (float)(freq * keep + freq / factor * (1 - keep));
        if (!isfinite(hp->rope_freq[i]))
            hp_bad(r, "rotary frequency %" PRIu32 " is not finite (base %g, factor %g)", i, base, factor);
    }
}

void hp_read_rope(hp_reader *r)
{
    hparams *hp = r->hp;
    rope_scaling type = read_scaling_type(r);
    double factor = read_factor(r);
    float base = hp_opt_f32(r, "rope.freq_base", 10000.0f, HP_ABOVE_ZERO, 1e12),
          attn_factor = hp_opt_f32(r, "rope.scaling.attn_factor", 1, HP_ABOVE_ZERO, 1e3);
    uint32_t n_ctx_orig = hp_opt_u32(r, "rope.scaling.original_context_length", hp->n_ctx_train, 0, 1u << 27);

    hp->n_rot = hp_opt_u32(r, "rope.dimension_count", hp->head_size, 1, hp->head_size);
    if (!hp_ok(r)) return;
    if (n_ctx_orig == 0) n_ctx_orig = hp->n_ctx_train;
    if (type == ROPE_NONE) factor = 1;
    hp->rope_base = base;
    hp->rope_factor = (float)factor;
    hp->rope_scaling = scaling_names[factor == 1 ? ROPE_NONE : type];
    if (hp->n_rot % 2)
        hp_bad(r, "%s.rope.dimension_count is %" PRIu32 ", expected an even number", r->arch, hp->n_rot);
    if (type == ROPE_YARN && base <= 1)
        hp_bad(r, "%s.rope.freq_base is %g; YaRN scaling needs more than 1", r->arch, (double)base);
    hp->rope_mscale = attn_factor * (float)(type == ROPE_YARN ? 1 + 0.1 * log(factor) : 1);
    fill_freqs(r, type, base, factor, n_ctx_orig);
}
