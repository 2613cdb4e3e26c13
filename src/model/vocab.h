/* Tokens <-> text, as llama.cpp does it: SPM (`tokenizer.ggml.model` = llama) and byte-level BPE (gpt2).
 *
 * No Unicode normalisation. BPE pre-tokenizers (`tokenizer.ggml.pre`) as PCRE2 patterns: llama-bpe, qwen2,
 * deepseek-r1-qwen, deepseek-llm, deepseek-coder, gpt-2, falcon, starcoder, tekken, default (and llama.cpp's
 * other names for the same); an unknown one is refused by name. */
#ifndef PRIMA_MODEL_VOCAB_H
#define PRIMA_MODEL_VOCAB_H
#include "src/model/gguf.h"

typedef struct vocab vocab;

typedef enum {
    TOKEN_NORMAL = 1,
    TOKEN_UNKNOWN,
    TOKEN_CONTROL,
    TOKEN_USER,
    TOKEN_UNUSED,
    TOKEN_BYTE
} token_kind;

/* Strings are borrowed from g, which must outlive it. PR_EINTEGRITY for missing or inconsistent arrays, equal
 * tokens, malformed merges. A special id that is out of range is ignored with a warning. */
int vocab_read(vocab **out, const gguf *g, pr_err *err);
void vocab_free(vocab *v);

uint32_t vocab_size(const vocab *v);
int32_t vocab_bos(const vocab *v); /* -1: none; the same below */
int32_t vocab_eos(const vocab *v);
bool vocab_add_bos(const vocab *v);
bool vocab_add_eos(const vocab *v);
/* End of generation: the eos, eot and eom of the file, the well-known tokens that end a turn (<|im_end|>,
 * <|eot_id|>, ...) and, as in llama.cpp, fim_pad, fim_rep and fim_sep. */
bool vocab_is_eog(const vocab *v, int32_t id);
/* Well-known special tokens are TOKEN_CONTROL whatever the file says; a number that is no id is TOKEN_UNUSED.
 */
token_kind vocab_kind(const vocab *v, int32_t id);
gguf_str vocab_text(const vocab *v, int32_t id);                /* as it stands in the file */
int32_t vocab_find(const vocab *v, const char *text, size_t n); /* exact token text -> id, -1 */
const char *vocab_describe(const vocab *v);                     /* "spm" or "bpe llama-bpe" */

typedef struct {
    int32_t *id;
    size_t n, cap;
} token_list;                                    /* {0} is empty; free(id) */
void token_list_push(token_list *l, int32_t id); /* aborts only when memory is gone */

/* Append the tokens of text[0, n) (any bytes, n at most 256 MiB).
 *   add_special    BOS and EOS as the file's flags say
 *   parse_special  the text of control tokens becomes their id; user-defined tokens are always recognised
 * Thread-safe (const vocab). Time is O(n log n) also for adversarial input (long runs). After an error *out
 * may have some of the tokens. PR_EUSAGE: too long; PR_ERESOURCE: no memory; PR_EINTERNAL: PCRE2 failed. */
int vocab_encode(const vocab *v, const char *text, size_t n, bool add_special, bool parse_special,
                 token_list *out, pr_err *err);

/* Bytes of one token appended to what the caller joins: at most max bytes are written, the full length is
 * returned. special: control tokens are written out; else they are empty. No leading space is removed. */
size_t vocab_piece(const vocab *v, int32_t id, bool special, char *out, size_t max);

#endif
