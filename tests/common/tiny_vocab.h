/* A vocabulary that can be counted by hand, as a GGUF file of metadata alone: SPM with <unk> <s> </s>, the
 * 256 byte tokens, the blank and a control token. A text without blanks gives BOS (when asked for), the blank
 * that SPM puts in front, and one token a byte. In a header, without Criterion: the fuzz entries use it too.
 */
#ifndef PRIMA_TESTS_TINY_VOCAB_H
#define PRIMA_TESTS_TINY_VOCAB_H
#include "src/model/vocab.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    TINY_UNK,
    TINY_BOS,
    TINY_EOS,
    TINY_BYTE,                    /* + value */
    TINY_BLANK = TINY_BYTE + 256, /* U+2581 */
    TINY_END,                     /* <|im_end|>, control */
    TINY_TOKENS
};

typedef struct {
    gguf *g;
    vocab *v;
} tiny_vocab;

static inline void tiny_u32(FILE *f, uint32_t v)
{
    fwrite(&v, 4, 1, f);
}
static inline void tiny_u64(FILE *f, uint64_t v)
{
    fwrite(&v, 8, 1, f);
}
static inline void tiny_str(FILE *f, const char *s)
{
    tiny_u64(f, strlen(s));
    fputs(s, f);
}
static inline void tiny_key(FILE *f, const char *key, uint32_t type)
{
    tiny_str(f, key);
    tiny_u32(f, type);
}
static inline void tiny_array(FILE *f, const char *key, uint32_t type)
{
    tiny_key(f, key, GGUF_ARRAY);
    tiny_u32(f, type);
    tiny_u64(f, TINY_TOKENS);
}

static inline void tiny_write(FILE *f, bool add_bos, bool add_eos)
{
    char text[16];

    fputs("GGUF", f);
    tiny_u32(f, 3);
    tiny_u64(f, 0);
    tiny_u64(f, 7);
    tiny_key(f, "general.architecture", GGUF_STRING);
    tiny_str(f, "llama");
    tiny_key(f, "tokenizer.ggml.model", GGUF_STRING);
    tiny_str(f, "llama");
    tiny_key(f, "tokenizer.ggml.add_bos_token", GGUF_BOOL);
    fputc(add_bos, f);
    tiny_key(f, "tokenizer.ggml.add_eos_token", GGUF_BOOL);
    fputc(add_eos, f);
    tiny_array(f, "tokenizer.ggml.tokens", GGUF_STRING);
    for (int i = 0; i < TINY_TOKENS; i++) {
        snprintf(text, sizeof text, "<0x%02X>", (unsigned)(i - TINY_BYTE) & 0xFF);
        tiny_str(f, i == TINY_UNK     ? "<unk>"
                    : i == TINY_BOS   ? "<s>"
                    : i == TINY_EOS   ? "</s>"
                    : i == TINY_BLANK ? "\xE2\x96\x81"
                    : i == TINY_END   ? "<|im_end|>"
                                      : text);
    }
    tiny_array(f, "tokenizer.ggml.scores", GGUF_F32);
    for (int i = 0; i < TINY_TOKENS; i++) tiny_u32(f, 0);
    tiny_array(f, "tokenizer.ggml.token_type", GGUF_I32);
    for (int i = 0; i < TINY_TOKENS; i++)
        tiny_u32(f, i == TINY_UNK                                     ? TOKEN_UNKNOWN
                    : i == TINY_BOS || i == TINY_EOS || i == TINY_END ? TOKEN_CONTROL
                    : i == TINY_BLANK                                 ? TOKEN_NORMAL
                                                                      : TOKEN_BYTE);
}

/* Ends the program when it cannot be made. */
static inline tiny_vocab tiny_vocab_new(bool add_bos, bool add_eos)
{
    tiny_vocab t = {NULL, NULL};
    char path[] = "/tmp/prima-tiny-XXXXXX";
    int fd = mkstemp(path);
    FILE *f = fd < 0 ? NULL : fdopen(fd, "wb");
    pr_err err = {0};

    if (f) {
        tiny_write(f, add_bos, add_eos);
        fclose(f);
    }
    if (!f || gguf_open(&t.g, path, &err) || vocab_read(&t.v, t.g, &err)) {
        fprintf(stderr, "tiny vocabulary: %s\n", err.msg);
        abort();
    }
    unlink(path);
    return t;
}

static inline void tiny_vocab_free(tiny_vocab *t)
{
    vocab_free(t->v);
    gguf_close(t->g);
}

#endif
