/* Marks: digests of samples of tensors' data. They tell apart models with the same header, and prove nothing.
 */
#ifndef PRIMA_MODEL_GGUF_MARK_H
#define PRIMA_MODEL_GGUF_MARK_H
#include "src/model/gguf.h"

enum { GGUF_MARK_BYTES = 17 /* 16 digits and NUL */ };

/* Of 4096 bytes from the middle of a tensor. */
void gguf_mark(const gguf_tensor *t, char out[GGUF_MARK_BYTES]);
/* Of n tensors together, three samples of each; the order counts, NULL is skipped. Touches only these
 * tensors, and drops the pages. */
void gguf_mark_all(const gguf_tensor *const *t, size_t n, char out[GGUF_MARK_BYTES]);

#endif
