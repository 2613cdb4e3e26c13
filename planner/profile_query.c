/* What the planner asks of a profile: a rate for a weight type and a batch that may not have been measured,
 * and what the disk does. */
#include "planner/profile.h"
#include <math.h>
#include <string.h>
#include <strings.h>

/* Bits a weight of the types of GGUF files (block bytes x 8 / block length; ggml, MIT). */
static const struct {
    const char *type;
    double bits;
} sizes[] = {{"F32", 32},      {"F16", 16},       {"BF16", 16},       {"Q8_0", 8.5},
             {"Q6_K", 6.5625}, {"Q5_K", 5.5},     {"Q5_0", 5.5},      {"Q5_1", 6},
             {"Q4_K", 4.5},    {"Q4_0", 4.5},     {"Q4_1", 5},        {"IQ4_NL", 4.5},
             {"IQ4_XS", 4.25}, {"Q3_K", 3.4375},  {"IQ3_S", 3.4375},  {"IQ3_XXS", 3.0625},
             {"Q2_K", 2.625},  {"IQ2_S", 2.5625}, {"IQ2_XS", 2.3125}, {"IQ2_XXS", 2.0625},
             {"IQ1_M", 1.75},  {"IQ1_S", 1.5625}};

/* NAN for a type that is not in the table. */
static double bits_of(const char *type)
{
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        if (!strcasecmp(sizes[i].type, type)) return sizes[i].bits;
    }
    return NAN;
}

/* The measured type that stands in for `type` on this gpu: itself, else the nearest by bits (the first in the
 * profile of equals, and of all for a type without known bits). NULL when nothing was measured. */
static const char *measured_type(const profile *p, int gpu, const char *type)
{
    const char *best = NULL;
    double best_distance = INFINITY, bits = bits_of(type);

    for (size_t i = 0; i < p->n_compute; i++) {
        const profile_compute *c = &p->compute[i];
        double distance = fabs(bits_of(c->type) - bits);
        if (c->gpu != gpu) continue;
        if (!strcasecmp(c->type, type)) return c->type;
        if (best && !(distance < best_distance)) continue;
        best = c->type;
        best_distance = isnan(distance) ? INFINITY : distance;
    }
    return best;
}

double profile_gflops(const profile *p, int gpu, const char *type, uint32_t batch)
{
    const profile_compute *below = NULL, *above = NULL; /* the measured batches around this one */
    const char *measured = measured_type(p, gpu, type);
    double share;

    if (!measured) return NAN;
    for (size_t i = 0; i < p->n_compute; i++) {
        const profile_compute *c = &p->compute[i];
        if (c->gpu != gpu || strcasecmp(c->type, measured)) continue;
        if (c->batch <= batch && (!below || c->batch > below->batch)) below = c;
        if (c->batch >= batch && (!above || c->batch < above->batch)) above = c;
    }
    if (!below) return above->gflops;
    if (!above || above->batch == below->batch) return below->gflops;
    share = log((double)batch / below->batch) / log((double)above->batch / below->batch);
    return exp(log(below->gflops) + share * log(above->gflops / below->gflops));
}

bool profile_disk_is_ours(const profile_disk *d)
{
    return !strncmp(d->engine, "prima-", 6);
}

/* How much like the runtime's reads a measurement is: its own reader, else past the page cache, else what
 * there is; 0 for random reads. */
static int likeness(const profile_disk *d)
{
    if (strcmp(d->pattern, "seq")) return 0;
    return profile_disk_is_ours(d) ? 3 : d->direct ? 2 : 1;
}

const profile_disk *profile_disk_used(const profile *p)
{
    const profile_disk *best = NULL;

    for (size_t i = 0; i < p->n_disk; i++) {
        const profile_disk *d = &p->disk[i];
        int like = likeness(d), best_like = best ? likeness(best) : 1;
        if (like < best_like || (best && like == best_like && d->read_bytes_per_s <= best->read_bytes_per_s))
            continue;
        best = d;
    }
    return best;
}

double profile_disk_bytes_per_s(const profile *p)
{
    const profile_disk *d = profile_disk_used(p);
    return d ? d->read_bytes_per_s : 0;
}

double profile_theta(const profile *p, uint32_t batch)
{
    const profile_overlap *best = NULL;
    double nearest = INFINITY;

    for (size_t i = 0; i < p->n_overlap; i++) {
        double distance = fabs(log((double)p->overlap[i].batch / batch));
        if (distance >= nearest) continue;
        best = &p->overlap[i];
        nearest = distance;
    }
    return best ? best->theta : -1;
}
