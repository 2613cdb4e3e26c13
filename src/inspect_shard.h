/* What prima inspect says of a file that is a part of a model (src/model/gguf_holes.h): which tensors are
 * there. */
#ifndef PRIMA_INSPECT_SHARD_H
#define PRIMA_INSPECT_SHARD_H
#include "src/model/gguf.h"
#include <jansson.h>

typedef struct {
    bool is_whole, is_listed; /* everything is there; a list beside the file says what is */
    bool *there;              /* [tensors] */
    size_t n_there;
    uint64_t there_bytes, all_bytes; /* of tensors */
    char *layers;                    /* "0..3, 8..11" */
} shard_facts;

/* Looks at the first bytes of every tensor. PR_EINTEGRITY: the list is damaged. */
int shard_facts_read(shard_facts *x, const gguf *g, pr_err *err);
void shard_facts_clear(shard_facts *x);

/* A line for people; nothing for a whole model. */
void shard_facts_print(const shard_facts *x);
/* null for a whole model. */
json_t *shard_facts_json(const shard_facts *x);

#endif
