/* Opens a GGUF and reads its facts; see model.h. */
#include "src/model/model.h"
#include <string.h>

static int read_chat_template(model *m, pr_err *err)
{
    gguf_str t;
    pr_err e = {0};

    m->chat = CHAT_UNKNOWN;
    m->has_chat_template = gguf_string(m->g, "tokenizer.chat_template", &t, &e);
    if (!m->has_chat_template) return e.code ? pr_fail(err, e.code, "%s", e.msg) : PR_OK;
    m->chat = chat_detect(t.p, t.n);
    return PR_OK;
}

static int open_file(model *m, const char *path, bool with_shape, pr_err *err)
{
    int rc;

    *m = (model){0};
    if ((rc = gguf_open(&m->g, path, err))) return rc; /* its messages name the file */
    if ((with_shape && (rc = hparams_read(&m->hp, m->g, err))) || (rc = vocab_read(&m->vocab, m->g, err)) ||
        (rc = read_chat_template(m, err))) {
        model_close(m);
        return pr_wrap(err, "%s", path);
    }
    gguf_header_sha256(m->g, m->header_sha256);
    return PR_OK;
}

int model_open(model *m, const char *path, pr_err *err)
{
    return open_file(m, path, true, err);
}

int model_open_vocab(model *m, const char *path, pr_err *err)
{
    return open_file(m, path, false, err);
}

void model_close(model *m)
{
    vocab_free(m->vocab);
    hparams_clear(&m->hp);
    gguf_close(m->g);
    *m = (model){0};
}
