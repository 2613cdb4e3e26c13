/* Instruction sets of the devices. Each adds in its own order, so that a completion is a function of the set
 * that computes it (for one set it does not matter which device has which layers). In a ring of different
 * ones the bytes depend on who has which layers: that is said, and stands in the manifest. */
#include "kernels/kernels.h"
#include "src/base/log.h"
#include "src/run/ring_impl.h"
#include <stdio.h>
#include <string.h>

static const char *const names[] = {"avx2", "avx512", "neon", "ref"};
enum { N_NAMES = sizeof names / sizeof *names };

static const char *isa_of(const ring *r, size_t i, peer_facts *f)
{
    if (!i) return r->isa;
    *f = peer_about(r->p[i]);
    return f->isa;
}

static bool is_used(const ring *r, const char *name)
{
    peer_facts f;
    bool used = false;

    for (size_t i = 0; i < r->n; i++) used = used || !strcmp(isa_of(r, i, &f), name);
    return used;
}

void ring_isa(const ring *r, char out[RING_ISA_BYTES])
{
    size_t n = 0;

    *out = 0;
    for (size_t k = 0; k < N_NAMES; k++) {
        if (is_used(r, names[k]))
            n += (size_t)snprintf(out + n, RING_ISA_BYTES - n, "%s%s", n ? "+" : "", names[k]);
    }
}

/* The best that all of them have. */
static const char *common(const ring *r)
{
    unsigned all = ~0u, mask;

    for (size_t k = 0; k < N_NAMES; k++)
        if (is_used(r, names[k]) && cpu_isa_mask(names[k], &mask)) all &= mask;
    for (size_t k = 0; k < N_NAMES; k++)
        if (cpu_isa_mask(names[k], &mask) && mask == all) return names[k];
    return "ref";
}

void ring_warn_of_mix(ring *r)
{
    char isa[RING_ISA_BYTES], who[256] = "";
    peer_facts f;
    size_t n = 0;

    ring_isa(r, isa);
    if (!strchr(isa, '+') || !strcmp(isa, r->warned_isa)) return;
    snprintf(r->warned_isa, sizeof r->warned_isa, "%s", isa);
    for (size_t i = 0; i < r->n && n < sizeof who; i++)
        n += (size_t)snprintf(who + n, sizeof who - n, "%s%s %s", i ? ", " : "", r->j->plan->device[i].name,
                              isa_of(r, i, &f));
    log_warn("the devices compute with different instruction sets (%s): the same prompt can get another "
             "completion when other devices compute it, also in this run if one is lost; for the same bytes "
             "always, give --isa %s here, and no other one to workers that are started by hand",
             who, common(r));
}
