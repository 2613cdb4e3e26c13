/* Small models of random weights as files, for tests of whole layers. */
#ifndef PRIMA_TESTS_RANDOM_MODEL_H
#define PRIMA_TESTS_RANDOM_MODEL_H
#include <stdint.h>

typedef struct {
    const char *arch; /* llama, qwen2 (with biases), qwen3 (with head norms) */
    uint32_t layers, embd, heads, kv_heads, head_size, ff, vocab;
    uint32_t type[3]; /* of matrices, which take them in turn: those that quant_quantize can make */
} random_model;

/* seed: of the weights. Fails the running test. */
void random_model_write(const random_model *r, uint64_t seed, const char *path);

#endif
