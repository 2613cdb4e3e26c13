/* A vocabulary of any bytes (a GGUF file, as far as the tokenizer reads it) that encodes any bytes: the end
 * of the same input. What comes out are ids of the vocabulary, and their pieces have the lengths they say. */
#include "src/model/gguf_impl.h"
#include "src/model/vocab.h"
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void encode_and_decode(const vocab *v, const char *text, size_t n, bool special)
{
    token_list l = {0};
    char piece[64];
    pr_err err;

    if (vocab_encode(v, text, n, special, special, &l, &err)) abort();
    for (size_t i = 0; i < l.n; i++) {
        if (l.id[i] < 0 || (uint32_t)l.id[i] >= vocab_size(v)) abort();
        if (vocab_piece(v, l.id[i], special, piece, sizeof piece) !=
            vocab_piece(v, l.id[i], special, NULL, 0))
            abort();
    }
    free(l.id);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    size_t n_text = n < 2048 ? n : 2048;
    const char *text = (const char *)data + n - n_text;
    gguf *g;
    vocab *v;
    pr_err err;

    if (gguf_open_memory(&g, data, n, &err)) return 0;
    if (vocab_read(&v, g, &err) == PR_OK) {
        encode_and_decode(v, text, n_text, true);
        encode_and_decode(v, text, n_text, false);
        vocab_free(v);
    }
    gguf_close(g);
    return 0;
}
