/* Shape files (datasets/shapes): the public configuration of a model and a mix of weight types -> the facts
 * that the header of such a GGUF file would give, so that a plan can be asked for before 40 GB are
 * downloaded.
 *
 *     schema: prima/shape/1
 *     name: Llama 3 70B       arch: llama | qwen2 (which has biases on q, k and v)
 *     n_layers, n_embd, n_ff, n_heads, n_kv_heads, n_vocab, n_ctx_train; head_size (n_embd / n_heads)
 *     quant: Q4_K_M | Q6_K | Q8_0
 *     tied: false             true: no output tensor, the token embedding serves
 *     rope_freqs: false       true: with a table of rope factors, as from Llama 3.1 on
 *     header_bytes: 0         of metadata and tensor directory; in file_bytes only
 *     source, note: for people
 */
#ifndef PRIMA_PLANNER_SHAPE_H
#define PRIMA_PLANNER_SHAPE_H
#include "planner/facts.h"
#include "src/base/err.h"

/* quant: another mix than the file's; NULL = the file's. header_sha256 becomes the digest of the shape file.
 * PR_EUSAGE "file:line:col: ..."; PR_ERESOURCE when it cannot be read. */
int shape_read(model_facts *f, const char *path, const char *quant, pr_err *err);
int shape_parse(model_facts *f, const char *text, size_t n, const char *name_for_errors, const char *quant,
                pr_err *err);

#endif
