/* What a plan needs to know of a model: sizes and work, from a GGUF header (src/model_facts.c) or a shape
 * file (shape.h). No weights. Sources: halda.md 1.2. */
#ifndef PRIMA_PLANNER_FACTS_H
#define PRIMA_PLANNER_FACTS_H
#include <stddef.h>
#include <stdint.h>

enum { FACTS_MAX_LAYERS = 1000, FACTS_MAX_TYPES = 32 };

/* Matrix elements of one weight type: each is one multiply-add a token. */
typedef struct {
    char type[12];          /* "Q4_K", as GGUF and profiles name it */
    double layer_elements;  /* mean over the layers */
    double output_elements; /* of the output projection */
} facts_work;

typedef struct {
    char name[128], arch[16], quant[16];
    uint32_t n_layers, n_embd, n_ff, n_heads, n_kv_heads, head_size, n_vocab, n_ctx_train;
    uint64_t layer_bytes[FACTS_MAX_LAYERS];
    uint64_t input_bytes;     /* token embedding; a tied one counts here and again in output_bytes */
    uint64_t input_row_bytes; /* one row of it: what a token reads */
    uint64_t output_bytes;    /* final norm and output projection */
    uint64_t file_bytes;
    char header_sha256[65]; /* of the GGUF header; of the shape file when there is no GGUF */
    size_t n_work;
    facts_work work[FACTS_MAX_TYPES];
} model_facts;

/* Bytes of layers [first, end); the mean of all layers. */
uint64_t facts_layer_bytes(const model_facts *f, uint32_t first, uint32_t end);
double facts_mean_layer_bytes(const model_facts *f);
/* KV bytes of one token in one layer for f16, q8_0 or f32 ("f16"); 0 for another name. */
uint64_t facts_kv_token_bytes(const model_facts *f, const char *kv_type);

#endif
