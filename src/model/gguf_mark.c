/* Marks of tensors; see gguf_mark.h. */
#include "src/model/gguf_mark.h"
#include "src/base/hash.h"
#include <string.h>

enum { SAMPLE_BYTES = 4096, SAMPLES = 3 };

typedef struct {
    const uint8_t *p;
    size_t n;
} sample;

/* The sample whose middle is k n-ths of the way through the tensor. */
static sample sample_at(const gguf_tensor *t, uint64_t k, uint64_t n)
{
    uint64_t bytes = t->n_bytes < SAMPLE_BYTES ? t->n_bytes : SAMPLE_BYTES;
    uint64_t room = t->n_bytes - bytes;

    return (sample){t->data + room / n * k + room % n * k / n, (size_t)bytes};
}

static void shorten(char out[GGUF_MARK_BYTES], const char sha[HASH_HEX_BYTES])
{
    memcpy(out, sha, GGUF_MARK_BYTES - 1);
    out[GGUF_MARK_BYTES - 1] = 0;
}

void gguf_mark(const gguf_tensor *t, char out[GGUF_MARK_BYTES])
{
    sample s = sample_at(t, 1, 2);
    char sha[HASH_HEX_BYTES];

    hash_sha256_hex(s.p, s.n, sha);
    shorten(out, sha);
}

void gguf_mark_all(const gguf_tensor *const *t, size_t n, char out[GGUF_MARK_BYTES])
{
    hash_pieces *h = hash_begin();
    char sha[HASH_HEX_BYTES];

    for (size_t i = 0; i < n; i++) {
        if (!t[i]) continue;
        for (uint64_t k = 1; k <= SAMPLES; k++) {
            sample s = sample_at(t[i], k, SAMPLES + 1);

            hash_add(h, s.p, s.n);
        }
        gguf_drop_pages(t[i]->data, t[i]->n_bytes);
    }
    hash_end(h, sha);
    shorten(out, sha);
}
