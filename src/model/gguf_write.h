/* Writing GGUF v3 files: metadata and tensor directory first, then the tensors' bytes one after another. */
#ifndef PRIMA_MODEL_GGUF_WRITE_H
#define PRIMA_MODEL_GGUF_WRITE_H
#include "src/base/err.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct gguf_writer gguf_writer;

gguf_writer *gguf_writer_new(void);    /* NULL: out of memory */
void gguf_writer_free(gguf_writer *w); /* closes and removes an unfinished file */

/* Metadata. Errors (memory) stick and are reported by gguf_writer_begin. */
void gguf_put_u32(gguf_writer *w, const char *key, uint32_t v);
void gguf_put_f32(gguf_writer *w, const char *key, float v);
void gguf_put_bool(gguf_writer *w, const char *key, bool v);
void gguf_put_string(gguf_writer *w, const char *key, const char *v);
void gguf_put_strings(gguf_writer *w, const char *key, const char *const *v, size_t n);
void gguf_put_f32s(gguf_writer *w, const char *key, const float *v, size_t n);
void gguf_put_i32s(gguf_writer *w, const char *key, const int32_t *v, size_t n);
/* Declare a tensor of [ne1][ne0] (ne1 == 0: one dimension); its data follow in the order of declaration. */
void gguf_put_tensor(gguf_writer *w, const char *name, uint32_t type, uint64_t ne0, uint64_t ne1);

/* Create path (through a temporary beside it) and write the header. */
int gguf_writer_begin(gguf_writer *w, const char *path, pr_err *err);
/* More bytes of the current tensor; tensors end by themselves when all their bytes are there, padding
 * included. */
int gguf_writer_data(gguf_writer *w, const void *data, size_t n, pr_err *err);
/* fsync and rename into place; PR_EINTERNAL when bytes are missing. */
int gguf_writer_finish(gguf_writer *w, pr_err *err);

#endif
