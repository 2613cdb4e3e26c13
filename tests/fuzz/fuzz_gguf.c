/* A GGUF file of any bytes, as far as `prima inspect` reads it: header, text of every value, shape,
 * vocabulary. */
#include "src/model/gguf_impl.h"
#include "src/model/hparams.h"
#include "src/model/vocab.h"
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    gguf *g;
    hparams hp;
    vocab *v;
    pr_err err;
    char hex[65];
    uint64_t header_bytes, file_bytes;
    int rc = gguf_measure(data, n, &header_bytes, &file_bytes, &err);

    if (rc == PR_OK && (header_bytes > n || file_bytes < header_bytes)) abort();
    if (gguf_open_memory(&g, data, n, &err)) return 0;
    if (rc || file_bytes > n) abort(); /* a whole file is fine as a header alone */
    for (size_t i = 0; i < gguf_n_kv(g); i++) {
        free(gguf_kv_text(g, i, 80));
        free(gguf_text(gguf_kv_key(g, i), 80));
    }
    gguf_header_sha256(g, hex);
    if (hparams_read(&hp, g, &err) == PR_OK) {
        if (hparams_layer_bytes(&hp, 0, hp.n_layers) + hparams_output_bytes(&hp) > gguf_file_bytes(g))
            abort();
        hparams_clear(&hp);
    }
    if (vocab_read(&v, g, &err) == PR_OK) vocab_free(v);
    gguf_close(g);
    return 0;
}
