/* What a tensor is for, as its name says: who needs it when devices share a model's layers. */
#ifndef PRIMA_MODEL_TENSOR_USE_H
#define PRIMA_MODEL_TENSOR_USE_H
#include <stdint.h>

typedef enum {
    USE_LAYER,     /* blk.N.*: whoever computes layer N */
    USE_EMBEDDING, /* token_embd.*: the head; also its output projection where the model has no output.weight
                    */
    USE_OUTPUT,    /* output.*, output_norm.*: the head */
    USE_EVERYWHERE /* all the others: small ones that belong to the whole model (rope_freqs.weight) */
} tensor_use;

/* *layer (may be NULL) is set for USE_LAYER; a number that no model has is UINT32_MAX. */
tensor_use tensor_use_of(const char *name, uint32_t *layer);

#endif
