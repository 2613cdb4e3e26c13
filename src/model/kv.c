/* Paged KV storage: layer-major, then page, then kv head. See kv.h and kernels.h (page layout). */
#include "src/model/kv.h"
#include <string.h>

static const char *const kv_names[] = {[KV_F16] = "f16", [KV_Q8_0] = "q8_0", [KV_F32] = "f32"};

bool kv_type_parse(const char *name, kv_type *t)
{
    for (size_t i = 0; i < sizeof kv_names / sizeof *kv_names; i++) {
        if (strcmp(name, kv_names[i]) == 0) {
            *t = (kv_type)i;
            return true;
        }
    }
    return false;
}

const char *kv_type_name(kv_type t)
{
    return kv_names[t];
}

static bool fits(const hparams *hp, kv_type t)
{
    return t != KV_Q8_0 || hp->head_size % 32 == 0;
}

size_t kv_page_need_bytes(const hparams *hp, kv_type t, uint32_t n_layers)
{
    return fits(hp, t) ? kv_page_bytes(t, hp->head_size) * hp->n_kv_heads * n_layers : 0;
}

int kv_init(kv_cache *kv, const hparams *hp, kv_type t, uint32_t first, uint32_t end, size_t n_pages,
            pr_err *err)
{
    size_t need;

    if (!fits(hp, t))
        return pr_fail(
            err, PR_EUSAGE,
            "KV type q8_0 needs a head size that is a multiple of 32, this model has %u: use --kv-type f16",
            hp->head_size);
    *kv = (kv_cache){.type = t, .first = first, .end = end, .n_pages = n_pages, .n_kv_heads = hp->n_kv_heads};
    kv->head_bytes = kv_page_bytes(t, hp->head_size);
    kv->page_bytes = kv->head_bytes * hp->n_kv_heads;
    if (!mem_mul(&need, kv->page_bytes, n_pages) || !mem_mul(&need, need, end - first))
        return pr_fail(err, PR_ERESOURCE, "KV cache of %zu pages is larger than the address space", n_pages);
    if (need && mem_region_new(&kv->region, need))
        return pr_fail_errno(err, PR_ERESOURCE,
                             "cannot get %zu bytes for the KV cache: lower --ctx or --slots", need);
    return PR_OK;
}

void kv_clear(kv_cache *kv)
{
    mem_region_free(&kv->region);
}
