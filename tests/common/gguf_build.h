/* Builds GGUF files in memory for tests, right or wrong on purpose. Knows the format from its specification
 * only and shares no code with src/model. Prefix gb_. Fails the running test when memory or the file system
 * does. */
#ifndef PRIMA_TESTS_GGUF_BUILD_H
#define PRIMA_TESTS_GGUF_BUILD_H
#include <stddef.h>
#include <stdint.h>

/* Value types of the format. */
enum {
    GB_U8,
    GB_I8,
    GB_U16,
    GB_I16,
    GB_U32,
    GB_I32,
    GB_F32,
    GB_BOOL,
    GB_STRING,
    GB_ARRAY,
    GB_U64,
    GB_I64,
    GB_F64
};

typedef struct gguf_build gguf_build;

gguf_build *gb_new(uint32_t version);
void gb_free(gguf_build *b);

/* Metadata. gb_raw: any type number, any value bytes. */
void gb_raw(gguf_build *b, const char *key, uint32_t type, const void *value, size_t n);
void gb_u32(gguf_build *b, const char *key, uint32_t v);
void gb_f32(gguf_build *b, const char *key, float v);
void gb_bool(gguf_build *b, const char *key, uint8_t v);
void gb_str(gguf_build *b, const char *key, const char *v);
void gb_array(gguf_build *b, const char *key, uint32_t elem, const void *values, size_t n_bytes,
              uint64_t count);
void gb_strings(gguf_build *b, const char *key, const char *const *v, size_t n);
/* Every key of this name goes away; then it may be added anew. */
void gb_drop(gguf_build *b, const char *key);

/* A tensor of n_bytes of data (NULL: zeros), placed behind the last one at the alignment (gb_align, default
 * 32). */
void gb_align(gguf_build *b, uint64_t alignment);
void gb_tensor(gguf_build *b, const char *name, uint32_t type, uint32_t n_dims, const uint64_t *ne,
               const void *data, size_t n_bytes);
void gb_drop_tensor(gguf_build *b, const char *name);
/* Lies: the stored offset of a tensor, the counts of the header. */
void gb_lie_offset(gguf_build *b, const char *name, uint64_t offset);
void gb_lie_counts(gguf_build *b, uint64_t n_tensors, uint64_t n_kv);

/* The file; caller frees. */
unsigned char *gb_bytes(const gguf_build *b, size_t *n);
void gb_write(const gguf_build *b, const char *path);

/* A complete small llama model of two layers: embedding 16, 2 heads, 1 kv head, feed-forward 32, 8 tokens (no
 * merges, no scores), context 64, weights all zero. `arch` llama, qwen2 or qwen3 (with the tensors that it
 * needs). */
gguf_build *gb_tiny(const char *arch);

#endif
