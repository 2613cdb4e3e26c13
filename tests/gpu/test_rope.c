/* launch_rope: biases, head norms and rotation of q in place, of k and v on their way to the cache, against
 * double arithmetic; F16 and Q8_0 pages exactly what the CPU makes of the same floats, each at the place of
 * kernels/gpu_kv.h; nothing else in the cache is touched. */
#include "kernels/cuda/cuda_impl.h"
#include "kernels/gpu_kv.h"
#include "kernels/ref/q8.h"
#include "kernels/ref/ref.h"
#include "tests/gpu/harness.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

TestSuite(rope, .timeout = 120);

#define EPS 1e-6f
enum { PAGES = 5 };

typedef struct {
    size_t n_heads, n_kv_heads, head_size, n_rot;
    bool neox, has_bias, has_norm;
    kv_type type;
    size_t n_tokens;
} rope_case;

static float *floats(size_t n, float scale)
{
    float *x = malloc(n * sizeof *x);

    cr_assert_not_null(x);
    random_floats(x, n, scale);
    return x;
}
static float *to_vram(const float *x, size_t n)
{
    return vram_from(x, n * sizeof *x);
}

/* The CPU's way with heads [T][stride]. */
static void transform(float *x, size_t stride, size_t n_heads, const rope_case *c, const float *bias,
                      const float *norm, const float *cs)
{
    for (size_t t = 0; t < c->n_tokens; t++) {
        for (size_t i = 0; bias && i < n_heads * c->head_size; i++) x[t * stride + i] += bias[i];
        if (!cs) continue;
        for (size_t h = 0; norm && h < n_heads; h++) {
            float *head = x + t * stride + h * c->head_size;
            rms_norm_ref(head, head, norm, c->head_size, EPS);
        }
        rope_ref(x + t * stride, n_heads, c->head_size, c->n_rot, cs + t * c->n_rot, c->neox);
    }
}

/* A head in a page is `x`, within the given error before rounding to the page's type. */
static void expect_head(const uint8_t *page, const rope_case *c, size_t slot, const float *x, bool is_value,
                        float error)
{
    const float *scales = (const float *)(const void *)(page + gpu_kv_scales(c->head_size));
    size_t s = c->head_size;

    for (size_t i = 0; i < s; i++) {
        size_t at = is_value ? gpu_kv_value_at(c->type, s, slot, i) : gpu_kv_key_at(c->type, s, slot, i);
        size_t scale_at = is_value ? gpu_kv_value_scale_at(s, slot, i) : gpu_kv_key_scale_at(slot, i);
        double got, step;

        if (c->type == KV_F16) {
            uint16_t h;
            memcpy(&h, page + 2 * at, sizeof h);
            got = (double)quant_f16_to_f32(h);
            step = 0x1p-11 * fabs((double)x[i]) + 0x1p-25;
        } else {
            got = (double)((const int8_t *)page)[at] * (double)scales[scale_at];
            step = 0.501 * (double)scales[scale_at];
        }
        cr_assert(fabs(got - (double)x[i]) <= step + (double)error, "%s slot %zu dim %zu: %a for %a",
                  is_value ? "value" : "key", slot, i, got, (double)x[i]);
    }
}

/* A value is not rotated: without bias its page bytes are the CPU's to the bit. */
static void expect_exact_value(const uint8_t *page, size_t s, size_t slot, const float *x)
{
    const float *scales = (const float *)(const void *)(page + gpu_kv_scales(s));

    for (size_t b = 0; b < s / 32; b++) {
        int8_t q[32];
        float d = q8_block(q, 1, x + 32 * b, 32);

        cr_assert_eq(memcmp(&d, scales + gpu_kv_value_scale_at(s, slot, 32 * b), sizeof d), 0);
        for (size_t i = 0; i < 32; i++)
            cr_assert_eq(((const int8_t *)page)[gpu_kv_value_at(KV_Q8_0, s, slot, 32 * b + i)], q[i]);
    }
}

/* Marks what a token writes of its page: everything else must be as before. */
static void mark_head(uint8_t *touched, const rope_case *c, size_t slot)
{
    size_t s = c->head_size, value = c->type == KV_F16 ? 2 : 1;

    for (size_t i = 0; i < s; i++) {
        memset(touched + gpu_kv_key_at(c->type, s, slot, i) * value, 1, value);
        memset(touched + gpu_kv_value_at(c->type, s, slot, i) * value, 1, value);
        if (c->type != KV_Q8_0) continue;
        memset(touched + gpu_kv_scales(s) + 4 * gpu_kv_key_scale_at(slot, i), 1, 4);
        memset(touched + gpu_kv_scales(s) + 4 * gpu_kv_value_scale_at(s, slot, i), 1, 4);
    }
}

static void check_rope(rope_case c)
{
    size_t s = c.head_size, T = c.n_tokens, page_bytes = gpu_kv_page_bytes(c.type, s);
    size_t q_stride = (c.n_heads * s + 15) / 16 * 16 + 16, kv_stride = (c.n_kv_heads * s + 15) / 16 * 16;
    size_t kv_bytes = PAGES * c.n_kv_heads * page_bytes;
    float *q = floats(T * q_stride, 2), *k = floats(T * kv_stride, 2), *v = floats(T * kv_stride, 2);
    float *q_bias = floats(c.n_heads * s, 1), *k_bias = floats(c.n_kv_heads * s, 1);
    float *v_bias = floats(c.n_kv_heads * s, 1), *q_norm = floats(s, 2), *k_norm = floats(s, 2);
    float *cs = floats(T * c.n_rot, 1), *got = malloc(T * q_stride * sizeof *got);
    uint8_t *kv = malloc(kv_bytes), *touched = calloc(kv_bytes, 1);
    int32_t pos[64], page[64];
    gpu_rope_args a = {.q = to_vram(q, T * q_stride),
                       .k = to_vram(k, T * kv_stride),
                       .v = to_vram(v, T * kv_stride),
                       .q_stride = q_stride,
                       .kv_stride = kv_stride,
                       .n_heads = c.n_heads,
                       .n_kv_heads = c.n_kv_heads,
                       .head_size = s,
                       .n_rot = c.n_rot,
                       .neox = c.neox,
                       .eps = EPS,
                       .type = c.type,
                       .kv = vram_new(kv_bytes),
                       .n_tokens = T};

    for (size_t t = 0; t < T; t++) {
        pos[t] = (int32_t)(t * 37 % 1000 + 5);
        page[t] = (int32_t)(t * 3 % PAGES); /* with 37 tokens or fewer: no two in one slot of a page */
        for (size_t i = 0; i < c.n_rot / 2; i++) {
            double angle = pos[t] * pow(10000, -2.0 * (double)i / (double)c.n_rot);
            cs[t * c.n_rot + 2 * i] = (float)cos(angle);
            cs[t * c.n_rot + 2 * i + 1] = (float)sin(angle);
        }
    }
    if (c.has_bias) {
        a.q_bias = to_vram(q_bias, c.n_heads * s);
        a.k_bias = to_vram(k_bias, c.n_kv_heads * s);
        a.v_bias = to_vram(v_bias, c.n_kv_heads * s);
    }
    if (c.has_norm) {
        a.q_norm = to_vram(q_norm, s);
        a.k_norm = to_vram(k_norm, s);
    }
    a.step.rope = to_vram(cs, T * c.n_rot);
    a.step.pos = vram_from(pos, T * sizeof *pos);
    a.step.page = vram_from(page, T * sizeof *page);
    run(launch_rope(&a, test_stream()));

    transform(q, q_stride, c.n_heads, &c, c.has_bias ? q_bias : NULL, c.has_norm ? q_norm : NULL, cs);
    transform(k, kv_stride, c.n_kv_heads, &c, c.has_bias ? k_bias : NULL, c.has_norm ? k_norm : NULL, cs);
    transform(v, kv_stride, c.n_kv_heads, &c, c.has_bias ? v_bias : NULL, NULL, NULL);
    vram_read(got, a.q, T * q_stride * sizeof *got);
    expect_close(got, q, T * q_stride, 1e-6f, 2e-6f, "q");
    vram_read(kv, a.kv, kv_bytes);
    for (size_t t = 0; t < T; t++) {
        for (size_t h = 0; h < c.n_kv_heads; h++) {
            size_t at = ((size_t)page[t] * c.n_kv_heads + h) * page_bytes, slot = (size_t)pos[t] % KV_PAGE;

            expect_head(kv + at, &c, slot, k + t * kv_stride + h * s, false, 4e-6f);
            expect_head(kv + at, &c, slot, v + t * kv_stride + h * s, true, 0);
            if (c.type == KV_Q8_0) expect_exact_value(kv + at, s, slot, v + t * kv_stride + h * s);
            mark_head(touched + at, &c, slot);
        }
    }
    for (size_t i = 0; i < kv_bytes; i++)
        cr_assert(touched[i] || kv[i] == 0xff, "byte %zu of the cache was written", i);
    free(q), free(k), free(v), free(cs), free(got), free(kv), free(touched);
    free(q_bias), free(k_bias), free(v_bias), free(q_norm), free(k_norm);
}

Test(rope, heads_of_all_shapes)
{
    need_gpu();
    check_rope((rope_case){8, 2, 128, 128, false, false, false, KV_F16, 3});
    check_rope((rope_case){8, 2, 128, 128, true, true, true, KV_F16, 3});
    check_rope((rope_case){5, 1, 64, 64, true, true, false, KV_Q8_0, 2});
    check_rope((rope_case){3, 3, 256, 256, false, false, true, KV_Q8_0, 1});
    check_rope((rope_case){1, 1, 8, 8, true, false, false, KV_F16, 1});
    check_rope((rope_case){7, 1, 96, 32, true, false, true, KV_Q8_0, 4});
    check_rope((rope_case){6, 2, 40, 20, false, true, true, KV_F16, 5});
}

Test(rope, many_tokens)
{
    need_gpu();
    check_rope((rope_case){4, 2, 32, 32, true, false, false, KV_F16, 37});
    check_rope((rope_case){4, 2, 64, 64, false, true, true, KV_Q8_0, 37});
}
