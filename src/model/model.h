/* A model file's facts, header only: everything that validates prompts, plans and inspects; no weights are
 * read. */
#ifndef PRIMA_MODEL_MODEL_H
#define PRIMA_MODEL_MODEL_H
#include "src/model/chat.h"
#include "src/model/hparams.h"
#include "src/model/vocab.h"

typedef struct {
    gguf *g;
    hparams hp;
    vocab *vocab;
    chat_template
        chat; /* recognised by the text of tokenizer.chat_template; CHAT_UNKNOWN when absent or foreign */
    bool has_chat_template;
    char header_sha256[65];
} model;

/* PR_ERESOURCE cannot be read, PR_EINTEGRITY malformed, truncated, or of a kind that prima does not run. */
int model_open(model *m, const char *path, pr_err *err);
/* Vocabulary and chat template only (hp stays empty): also for files that hold no tensors. */
int model_open_vocab(model *m, const char *path, pr_err *err);
void model_close(model *m);

#endif
