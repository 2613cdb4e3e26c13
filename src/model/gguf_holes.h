/* Which tensors of an open model are really there. A device's part of a model is a sparse file as long as the
 * whole, and an interrupted download of some programs looks the same: what is missing reads as zeros, in
 * silence. So nobody computes with a tensor, or sends it on, before it has been asked for here.
 *
 * A tensor is not there when
 *   - the list beside the file (tensor_list.h) does not have it, or
 *   - it is a matrix and the file system says that there is a hole in it (of the embedding and the output:
 *     over more than half of it, since a vocabulary may be padded with rows of zeros), or
 *   - it is a matrix of zeros from the first to the last byte: holes that a copy has filled,
 * but one that is in the list and has its digest is there, whatever it looks like. Vectors may be zero in
 * honest models: they are judged by the list alone. A layer that is missing is always missing its matrices.
 */
#ifndef PRIMA_MODEL_GGUF_HOLES_H
#define PRIMA_MODEL_GGUF_HOLES_H
#include "src/model/gguf.h"

typedef struct gguf_holes gguf_holes;

/* g must outlive it; the parts are opened again by their paths. PR_EINTEGRITY: the list beside the file is
 * damaged. PR_ERESOURCE: a part cannot be opened. */
int gguf_holes_open(gguf_holes **out, const gguf *g, pr_err *err);
void gguf_holes_close(gguf_holes *h); /* NULL is fine */

/* Reads little of a tensor that is there and at most all of it; remembers. One thread at a time. */
bool gguf_holes_has(gguf_holes *h, size_t tensor);
bool gguf_holes_is_listed(const gguf_holes *h); /* there is a list beside the file */
/* "0..3, 8..11": the layers of which all tensors are there; "none". Caller frees, NULL: out of memory. Asks
 * for every tensor of every layer. */
char *gguf_holes_layers(gguf_holes *h);

/* PR_EINTEGRITY unless all tensors of layers [first, end) and those that every device needs are there; with
 * is_head also embedding and output. Names file, layer or tensor, and what to do. */
int gguf_holes_need(gguf_holes *h, uint32_t first, uint32_t end, bool is_head, pr_err *err);

#endif
