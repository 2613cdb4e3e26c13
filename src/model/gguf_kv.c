/* Metadata of a GGUF file: typed access, arrays, and values as text for people.
 *
 * Values are read where they lie in the file, byte by byte, since nothing there is aligned. Integers of any
 * width are taken where an integer is wanted, if the value fits: writers differ in the width they choose. */
#include "src/base/bytes.h"
#include "src/model/gguf_impl.h"
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct {
    const char *name;
    uint8_t bytes;
} value_type[GGUF_VALUE_TYPES] = {
    [GGUF_U8] = {"u8", 1},       [GGUF_I8] = {"i8", 1},     [GGUF_U16] = {"u16", 2},
    [GGUF_I16] = {"i16", 2},     [GGUF_U32] = {"u32", 4},   [GGUF_I32] = {"i32", 4},
    [GGUF_F32] = {"f32", 4},     [GGUF_BOOL] = {"bool", 1}, [GGUF_U64] = {"u64", 8},
    [GGUF_I64] = {"i64", 8},     [GGUF_F64] = {"f64", 8},   [GGUF_STRING] = {"string", 0},
    [GGUF_ARRAY] = {"array", 0},
};

const char *gguf_value_type_name(gguf_value_type t)
{
    return value_type[t].name;
}

size_t gguf_value_bytes(uint32_t type)
{
    return type < GGUF_VALUE_TYPES ? value_type[type].bytes : 0;
}

/* --- finding and reading --------------------------------------------------------------------- */

static const gguf_kv *kv_find(const gguf_meta *m, const char *key)
{
    size_t n = strlen(key), lo = 0, hi = m->n;

    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        const gguf_str k = m->sorted[mid]->key;
        int c = memcmp(key, k.p, n < k.n ? n : k.n);

        if (c == 0) c = (n > k.n) - (n < k.n);
        if (c == 0) return m->sorted[mid];
        if (c < 0) hi = mid;
        else lo = mid + 1;
    }
    return NULL;
}

/* Absent is not an error; it must be told from one by err->code. */
static const gguf_kv *kv_get(const gguf_meta *m, const char *key, pr_err *err)
{
    if (err) err->code = PR_OK;
    return kv_find(m, key);
}

static bool is_integer(uint32_t type)
{
    return gguf_value_bytes(type) && type != GGUF_F32 && type != GGUF_F64 && type != GGUF_BOOL;
}

static bool is_signed(uint32_t type)
{
    return type == GGUF_I8 || type == GGUF_I16 || type == GGUF_I32 || type == GGUF_I64;
}

/* The bits of an integer or bool, sign-extended: cast to int64_t for signed types. */
static uint64_t int_at(uint32_t type, const uint8_t *p)
{
    bytes b = bytes_of(p, gguf_value_bytes(type));

    switch (type) {
    case GGUF_I8: return (uint64_t)(int8_t)bytes_u8(&b);
    case GGUF_I16: return (uint64_t)(int16_t)bytes_u16(&b);
    case GGUF_I32: return (uint64_t)(int32_t)bytes_u32(&b);
    case GGUF_U8:
    case GGUF_BOOL: return bytes_u8(&b);
    case GGUF_U16: return bytes_u16(&b);
    case GGUF_U32: return bytes_u32(&b);
    default: return bytes_u64(&b);
    }
}

static double num_at(uint32_t type, const uint8_t *p)
{
    bytes b = bytes_of(p, gguf_value_bytes(type));

    if (type == GGUF_F32) return bytes_f32(&b);
    if (type == GGUF_F64) return bytes_f64(&b);
    return is_signed(type) ? (double)(int64_t)int_at(type, p) : (double)int_at(type, p);
}

/* "a string array" or "u32" in messages. */
static const char *kind_of(const gguf_kv *kv)
{
    if (kv->type != GGUF_ARRAY) return value_type[kv->type].name;
    return kv->elem == GGUF_STRING ? "an array of strings" : "an array of numbers";
}

bool gguf_meta_u32(const gguf_meta *m, const char *key, uint32_t *v, pr_err *err)
{
    const gguf_kv *kv = kv_get(m, key, err);
    uint64_t x;

    if (!kv) return false;
    if (!is_integer(kv->type)) {
        pr_fail(err, PR_EINTEGRITY, "key %s is %s, expected an integer", key, kind_of(kv));
        return false;
    }
    x = int_at(kv->type, kv->p);
    if (is_signed(kv->type) && (int64_t)x < 0) {
        pr_fail(err, PR_EINTEGRITY, "key %s is %" PRId64 ", expected 0..%" PRIu32, key, (int64_t)x,
                UINT32_MAX);
        return false;
    }
    if (x > UINT32_MAX) {
        pr_fail(err, PR_EINTEGRITY, "key %s is %" PRIu64 ", expected 0..%" PRIu32, key, x, UINT32_MAX);
        return false;
    }
    *v = (uint32_t)x;
    return true;
}

bool gguf_u32(const gguf *g, const char *key, uint32_t *v, pr_err *err)
{
    return gguf_meta_u32(&g->meta, key, v, err);
}

bool gguf_f32(const gguf *g, const char *key, float *v, pr_err *err)
{
    const gguf_kv *kv = kv_get(&g->meta, key, err);
    double x;

    if (!kv) return false;
    if (kv->type != GGUF_F32 && kv->type != GGUF_F64) {
        pr_fail(err, PR_EINTEGRITY, "key %s is %s, expected f32", key, kind_of(kv));
        return false;
    }
    x = num_at(kv->type, kv->p);
    if (isfinite(x) && fabs(x) > 3.4028234e38) {
        pr_fail(err, PR_EINTEGRITY, "key %s is %g, too large for f32", key, x);
        return false;
    }
    *v = (float)x;
    return true;
}

bool gguf_bool(const gguf *g, const char *key, bool *v, pr_err *err)
{
    const gguf_kv *kv = kv_get(&g->meta, key, err);

    if (!kv) return false;
    if (kv->type != GGUF_BOOL) {
        pr_fail(err, PR_EINTEGRITY, "key %s is %s, expected bool", key, kind_of(kv));
        return false;
    }
    *v = kv->p[0] != 0;
    return true;
}

bool gguf_string(const gguf *g, const char *key, gguf_str *v, pr_err *err)
{
    const gguf_kv *kv = kv_get(&g->meta, key, err);

    if (!kv) return false;
    if (kv->type != GGUF_STRING) {
        pr_fail(err, PR_EINTEGRITY, "key %s is %s, expected a string", key, kind_of(kv));
        return false;
    }
    *v = (gguf_str){(const char *)kv->p, (size_t)kv->n};
    return true;
}

bool gguf_get_array(const gguf *g, const char *key, gguf_array *a, pr_err *err)
{
    const gguf_kv *kv = kv_get(&g->meta, key, err);

    if (!kv) return false;
    if (kv->type != GGUF_ARRAY) {
        pr_fail(err, PR_EINTEGRITY, "key %s is %s, expected an array", key, kind_of(kv));
        return false;
    }
    *a = (gguf_array){.type = (gguf_value_type)kv->elem, .n = (size_t)kv->n, .data = kv->p};
    return true;
}

/* One string of an array that was checked when the file was opened; returns the place of the next. */
static const uint8_t *string_at(const uint8_t *p, gguf_str *s)
{
    bytes b = bytes_of(p, 8);
    uint64_t n = bytes_u64(&b);

    *s = (gguf_str){(const char *)p + 8, (size_t)n};
    return p + 8 + n;
}

void gguf_array_strings(const gguf_array *a, gguf_str *out)
{
    const uint8_t *p = a->data;

    for (size_t i = 0; i < a->n; i++) p = string_at(p, &out[i]);
}

int64_t gguf_array_int(const gguf_array *a, size_t i)
{
    return (int64_t)int_at(a->type, a->data + i * gguf_value_bytes(a->type));
}

double gguf_array_num(const gguf_array *a, size_t i)
{
    return num_at(a->type, a->data + i * gguf_value_bytes(a->type));
}

size_t gguf_n_kv(const gguf *g)
{
    return g->meta.n;
}

gguf_str gguf_kv_key(const gguf *g, size_t i)
{
    return g->meta.kv[i].key;
}

gguf_value_type gguf_kv_type(const gguf *g, size_t i)
{
    return (gguf_value_type)g->meta.kv[i].type;
}

bool gguf_has(const gguf *g, const char *key)
{
    return kv_find(&g->meta, key) != NULL;
}

/* --- text for people ------------------------------------------------------------------------- */

const char *gguf_show(char out[GGUF_SHOW_BYTES], const void *p, size_t n)
{
    const uint8_t *s = p;
    size_t at = 0;

    for (size_t i = 0; i < n; i++) {
        if (at > GGUF_SHOW_BYTES - 8) {
            memcpy(out + at, "...", 4);
            return out;
        }
        if (s[i] > 0x20 && s[i] < 0x7f) out[at++] = (char)s[i];
        else at += (size_t)snprintf(out + at, 5, "\\x%02x", s[i]);
    }
    out[at] = 0;
    return out;
}

/* Length of the UTF-8 sequence at s, 0 when it is none, overlong, a surrogate or past U+10FFFF. */
static size_t utf8_len(const uint8_t *s, size_t n)
{
    static const uint32_t least[5] = {0, 0, 0x80, 0x800, 0x10000};
    size_t len = s[0] < 0x80 ? 1 : s[0] < 0xc2 ? 0 : s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : s[0] < 0xf5 ? 4 : 0;
    uint32_t c;

    if (len <= 1) return len;
    if (len > n) return 0;
    c = s[0] & (0xffu >> (len + 1));
    for (size_t i = 1; i < len; i++) {
        if ((s[i] & 0xc0) != 0x80) return 0;
        c = c << 6 | (s[i] & 0x3f);
    }
    return c < least[len] || c > 0x10ffff || (c >= 0xd800 && c < 0xe000) ? 0 : len;
}

/* A terminal must not be steered by a file: C0 and C1 control characters are written out. */
static bool is_control(const uint8_t *s, size_t len)
{
    return (len == 1 && (s[0] < 0x20 || s[0] == 0x7f)) || (len == 2 && s[0] == 0xc2 && s[1] < 0xa0);
}

static void put_text(FILE *f, gguf_str str, size_t max_len)
{
    const uint8_t *s = (const uint8_t *)str.p;

    for (size_t i = 0, len; i < str.n; i += len) {
        if (i >= max_len) {
            fputs("...", f);
            return;
        }
        len = utf8_len(s + i, str.n - i);
        if (len && !is_control(s + i, len)) {
            fwrite(s + i, 1, len, f);
            continue;
        }
        if (!len) len = 1;
        for (size_t k = 0; k < len; k++) {
            if (s[i + k] == '\n') fputs("\\n", f);
            else fprintf(f, "\\x%02x", s[i + k]);
        }
    }
}

char *gguf_text(gguf_str s, size_t max_len)
{
    char *text = NULL;
    size_t n;
    FILE *f = open_memstream(&text, &n);

    if (!f) return NULL;
    put_text(f, s, max_len);
    return fclose(f) ? NULL : text;
}

/* The fewest digits that give the same float again. */
static void put_float(FILE *f, double v, bool is_f32)
{
    char text[32];

    for (int digits = 6; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, v);
        if (is_f32 ? strtof(text, NULL) == (float)v : strtod(text, NULL) == v) break;
    }
    fputs(text, f);
}

static void put_scalar(FILE *f, uint32_t type, const uint8_t *p)
{
    if (type == GGUF_BOOL) fputs(*p ? "true" : "false", f);
    else if (type == GGUF_F32 || type == GGUF_F64) put_float(f, num_at(type, p), type == GGUF_F32);
    else if (is_signed(type)) fprintf(f, "%" PRId64, (int64_t)int_at(type, p));
    else fprintf(f, "%" PRIu64, int_at(type, p));
}

static void put_array(FILE *f, const gguf_kv *kv, size_t max_len)
{
    const uint8_t *p = kv->p;
    gguf_str s;

    fprintf(f, "[%s; %" PRIu64 "]", value_type[kv->elem].name, kv->n);
    for (uint64_t i = 0; i < kv->n; i++) {
        fputs(i ? ", " : " ", f);
        if ((size_t)ftell(f) >= max_len) {
            fputs("...", f);
            return;
        }
        if (kv->elem == GGUF_STRING) {
            p = string_at(p, &s);
            put_text(f, s, max_len);
        } else {
            put_scalar(f, kv->elem, p);
            p += gguf_value_bytes(kv->elem);
        }
    }
}

char *gguf_kv_text(const gguf *g, size_t i, size_t max_len)
{
    const gguf_kv *kv = &g->meta.kv[i];
    char *text = NULL;
    size_t n;
    FILE *f = open_memstream(&text, &n);

    if (!f) return NULL;
    if (kv->type == GGUF_STRING) put_text(f, (gguf_str){(const char *)kv->p, (size_t)kv->n}, max_len);
    else if (kv->type == GGUF_ARRAY) put_array(f, kv, max_len);
    else put_scalar(f, kv->type, kv->p);
    return fclose(f) ? NULL : text;
}
