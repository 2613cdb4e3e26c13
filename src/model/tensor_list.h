/* MODEL.gguf.tensors: which tensors of a file are there, with their digests. It stands beside a shard, which
 * is as long as the whole model and has holes where other devices' tensors would be (src/pull/NOTES.md).
 *
 *   prima/tensors/1 HEADER_SHA256
 *   tensor INDEX SHA256 NAME       rising; INDEX counts in the directory, of all parts of a split model
 *   end COUNT
 *
 * Written whole after the tensors are on the disk. A split model has one list, beside its first part. */
#ifndef PRIMA_MODEL_TENSOR_LIST_H
#define PRIMA_MODEL_TENSOR_LIST_H
#include "src/base/hash.h"
#include "src/model/gguf.h"

typedef struct {
    char (*sha256)[HASH_HEX_BYTES]; /* [tensors of the model]; "": not there */
    size_t n, n_there;
} tensor_list;

/* An empty list for this model. */
int tensor_list_init(tensor_list *l, const gguf *g, pr_err *err);
void tensor_list_clear(tensor_list *l);

/* The name of the list of the model whose first part has this path; caller frees. NULL: out of memory. */
char *tensor_list_path(const char *first_part);
/* *found: there is a list of this model (a list with another header is none of it: a warning says so). *l is
 * empty otherwise. PR_EINTEGRITY: it is damaged. */
int tensor_list_read(tensor_list *l, bool *found, const gguf *g, pr_err *err);
/* The same from text[0, n), NUL-terminated. PR_EMISMATCH: of another header. */
int tensor_list_parse(tensor_list *l, const char *text, size_t n, const gguf *g, pr_err *err);
/* Whole and durable (file_write_atomic). */
int tensor_list_write(const tensor_list *l, const gguf *g, const char *path, pr_err *err);

#endif
