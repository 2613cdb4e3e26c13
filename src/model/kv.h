/* Paged KV cache of layers [first, end): dumb storage, taken once. Which sequence owns which page is decided
 * at the head of the ring (src/run/pages.h); page p is the same tokens on every device. */
#ifndef PRIMA_MODEL_KV_H
#define PRIMA_MODEL_KV_H
#include "kernels/kernels.h"
#include "src/base/mem.h"
#include "src/model/hparams.h"

typedef struct {
    kv_type type;
    uint32_t first, end;
    size_t n_pages, n_kv_heads;
    size_t head_bytes; /* one page of one kv head */
    size_t page_bytes; /* one page of one layer: n_kv_heads * head_bytes */
    mem_region region;
} kv_cache;

/* "f16" | "q8_0" | "f32"; false for another name. */
bool kv_type_parse(const char *name, kv_type *t);
const char *kv_type_name(kv_type t);
/* Bytes of one page (KV_PAGE tokens) over n_layers layers; 0 when the head size does not allow the type. */
size_t kv_page_need_bytes(const hparams *hp, kv_type t, uint32_t n_layers);

/* PR_EUSAGE: the type does not fit the head size; PR_ERESOURCE: no memory (names the bytes). */
int kv_init(kv_cache *kv, const hparams *hp, kv_type t, uint32_t first, uint32_t end, size_t n_pages,
            pr_err *err);
void kv_clear(kv_cache *kv);

/* Page 0 of a layer and kv head; page p is kv->page_bytes * p further. */
static inline uint8_t *kv_base(const kv_cache *kv, uint32_t layer, size_t kv_head)
{
    return (uint8_t *)kv->region.p + (layer - kv->first) * kv->n_pages * kv->page_bytes +
           kv_head * kv->head_bytes;
}

#endif
