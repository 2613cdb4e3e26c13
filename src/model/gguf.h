/* GGUF v2 and v3 files: header, metadata and tensor directory over a read-only memory map.
 *
 * Every length, count, type and offset is checked against the file before use: a hostile header costs no
 * crash and no memory but for what it really holds (a directory entry of 33 bytes or more becomes one
 * gguf_tensor). Split models (NAME-00001-of-0000N.gguf) are opened as one when any part is named: all parts
 * must lie beside it; metadata is that of the first part. Little endian only. Format: the GGUF specification
 * in the ggml repository. */
#ifndef PRIMA_MODEL_GGUF_H
#define PRIMA_MODEL_GGUF_H
#include "src/base/err.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum {
    GGUF_U8,
    GGUF_I8,
    GGUF_U16,
    GGUF_I16,
    GGUF_U32,
    GGUF_I32,
    GGUF_F32,
    GGUF_BOOL,
    GGUF_STRING,
    GGUF_ARRAY,
    GGUF_U64,
    GGUF_I64,
    GGUF_F64,
    GGUF_VALUE_TYPES
} gguf_value_type;

typedef struct {
    const char *p;
    size_t n;
} gguf_str; /* not NUL-terminated; may hold any bytes */

typedef struct gguf gguf;

typedef struct {
    char name[65];   /* NUL-terminated; at most 64 bytes, as ggml */
    uint32_t type;   /* a type quant_info() knows */
    uint32_t n_dims; /* 1..4 */
    uint64_t ne[4];  /* ne[0] is the row length; missing ones are 1 */
    uint64_t n_bytes;
    const uint8_t *data;  /* mapped; aligned to the file's alignment, at most to a page */
    uint32_t part;        /* which file of a split model */
    uint64_t file_offset; /* absolute, in that part */
} gguf_tensor;

/* Errors: PR_ERESOURCE cannot be opened or mapped; PR_EINTEGRITY malformed or truncated (names what and
 * where). The message begins with the path of the part that is to blame. */
int gguf_open(gguf **out, const char *path, pr_err *err);
void gguf_close(gguf *g);

/* A model of which only the headers are here, one for each part in order: its directory, for deciding what of
 * the rest to fetch. Tensors have no data, the parts the lengths given. Memory and paths are the caller's and
 * outlive it. The parts must say that they are those of one model. */
typedef struct {
    const char *path; /* for gguf_part_path and messages */
    const void *p;
    size_t n; /* at least the whole header */
} gguf_header_bytes;
int gguf_open_headers(gguf **out, const gguf_header_bytes *part, size_t n_parts, pr_err *err);

/* Has nobody written to the files since they were opened? PR_EINTEGRITY names the one. Not for a file that
 * others fill on purpose (src/run/ship_cache.h). */
int gguf_check_unchanged(const gguf *g, pr_err *err);

uint32_t gguf_version(const gguf *g);
uint64_t gguf_alignment(const gguf *g); /* of the first part */
size_t gguf_n_parts(const gguf *g);
const char *gguf_part_path(const gguf *g, size_t part);
uint64_t gguf_file_bytes(const gguf *g); /* of all parts */
/* SHA-256 over the header bytes (magic .. end of the tensor directory) of every part in order. */
void gguf_header_sha256(const gguf *g, char hex[65]);
/* Those bytes of one part, in place. */
const void *gguf_header(const gguf *g, size_t part, size_t *n);
/* From the header of one part, at the beginning of p[0, n): how long it is, and how many bytes the whole file
 * has (at least: what its tensors reach to). For files whose tensors are somewhere else. PR_EINTEGRITY. */
int gguf_measure(const void *p, size_t n, uint64_t *header_bytes, uint64_t *file_bytes, pr_err *err);

size_t gguf_n_tensors(const gguf *g);
const gguf_tensor *gguf_tensor_at(const gguf *g, size_t i);
const gguf_tensor *gguf_tensor_find(const gguf *g, const char *name); /* NULL when absent */

/* Metadata. A getter returns false and leaves *v alone when there is no value: err->code is PR_OK when the
 * key is absent, PR_EINTEGRITY when its type or range does not fit: `if (!gguf_u32(g, key, &v, err) &&
 * err->code) return err->code`. */
size_t gguf_n_kv(const gguf *g);
gguf_str gguf_kv_key(const gguf *g, size_t i);
gguf_value_type gguf_kv_type(const gguf *g, size_t i); /* GGUF_ARRAY for arrays */
/* Value as text for people: numbers, strings, "[type; n] a, b, c, ..."; cut after about max_len bytes. Caller
 * frees; NULL: no memory. */
char *gguf_kv_text(const gguf *g, size_t i, size_t max_len);
/* A string of the file as text for people, valid UTF-8: control characters and what is not UTF-8 become \xNN,
 * cut after about max_len bytes with "...". Caller frees; NULL: no memory. */
char *gguf_text(gguf_str s, size_t max_len);
const char *gguf_value_type_name(gguf_value_type t); /* "u32", "string", ... */
bool gguf_has(const gguf *g, const char *key);
bool gguf_u32(const gguf *g, const char *key, uint32_t *v, pr_err *err); /* any integer type, in range */
bool gguf_f32(const gguf *g, const char *key, float *v, pr_err *err);    /* F32 or F64 */
bool gguf_bool(const gguf *g, const char *key, bool *v, pr_err *err);
bool gguf_string(const gguf *g, const char *key, gguf_str *v, pr_err *err);

typedef struct {
    gguf_value_type type; /* of the elements; never GGUF_ARRAY */
    size_t n;
    const uint8_t *data; /* packed elements; strings: use gguf_array_strings */
} gguf_array;
bool gguf_get_array(const gguf *g, const char *key, gguf_array *a, pr_err *err);
/* The strings of a string array; out has a->n places. The array was checked when the file was opened. */
void gguf_array_strings(const gguf_array *a, gguf_str *out);
/* Element i of a numeric or bool array as an integer / a float (caller checked type and i < n). */
int64_t gguf_array_int(const gguf_array *a, size_t i);
double gguf_array_num(const gguf_array *a, size_t i);

/* Tell the OS that the pages wholly inside data[0, n) (part of a mapped tensor) are no longer needed in this
 * process; when touched again they come back from the file. */
void gguf_drop_pages(const void *data, size_t n);

#endif
