/* Tensor names -> who needs them; see tensor_use.h. */
#include "src/model/tensor_use.h"
#include <stddef.h>
#include <string.h>

static uint32_t layer_number(const char *digits)
{
    uint64_t n = 0;

    for (; *digits >= '0' && *digits <= '9'; digits++) {
        n = n * 10 + (uint64_t)(*digits - '0');
        if (n > UINT32_MAX) return UINT32_MAX;
    }
    return (uint32_t)n;
}

tensor_use tensor_use_of(const char *name, uint32_t *layer)
{
    static const struct {
        const char *stem;
        tensor_use use;
    } ends[] = {{"token_embd", USE_EMBEDDING}, {"output", USE_OUTPUT}, {"output_norm", USE_OUTPUT}};
    size_t n = strcspn(name, ".");

    if (!strncmp(name, "blk.", 4)) {
        if (layer) *layer = layer_number(name + 4);
        return USE_LAYER;
    }
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++)
        if (n == strlen(ends[i].stem) && !memcmp(name, ends[i].stem, n)) return ends[i].use;
    return USE_EVERYWHERE;
}
