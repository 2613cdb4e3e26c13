/* Clusters and models of the suite `planner`: read from datasets/, or drawn from a seed. */
#include "planner/shape.h"
#include "src/bench_planner.h"
#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- clusters --------------------------------------------------------------------------------------------
 */
int machines_read(machines *m, const char *cluster_path, pr_err *err)
{
    int rc;

    memset(m, 0, sizeof *m);
    rc = cluster_read(&m->c, cluster_path, err);
    for (size_t i = 0; !rc && i < m->c->n_devices; i++)
        rc = profile_read(&m->profiles[i], m->c->device[i].profile, err);
    if (rc) machines_free(m);
    return rc;
}

void machines_free(machines *m)
{
    for (size_t i = 0; i < CLUSTER_MAX_DEVICES; i++) profile_free(m->profiles[i]);
    cluster_free(m->c);
    memset(m, 0, sizeof *m);
}

/* SplitMix64 (Steele, Lea, Flood 2014). */
static double uniform(uint64_t *s, double low, double high)
{
    uint64_t z = *s += 0x9e3779b97f4a7c15u;

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    z ^= z >> 31;
    return low + (high - low) * (double)(z >> 11) / 9007199254740992.0;
}

/* One rate for every weight type at one token: 4- to 8-bit weights differ less than devices do. */
static void draw_rates(profile *p, double cpu_gflops, double gpu_gflops)
{
    p->compute[p->n_compute++] =
        (profile_compute){.type = "Q4_K", .gpu = -1, .batch = 1, .gflops = cpu_gflops};
    if (gpu_gflops > 0)
        p->compute[p->n_compute++] =
            (profile_compute){.type = "Q4_K", .gpu = 0, .batch = 1, .gflops = gpu_gflops};
}

static void draw_device(cluster_device *d, profile *p, uint64_t *s, double memory_scale, bool head)
{
    static const double GIB = 1073741824.0, LEAST_GIB = 1, LEAST_HEAD_GIB = 2.5;
    bool mac = uniform(s, 0, 1) < 0.25, gpu = uniform(s, 0, 1) < 0.5 && !mac;
    double ram = uniform(s, 2, 16) * memory_scale, vram = uniform(s, 4, 12) * memory_scale,
           cpu_gflops = uniform(s, 40, 300), gpu_gflops = uniform(s, 2000, 8000),
           disk = uniform(s, 0.15e9, 3.5e9);

    ram = fmax(ram, head ? LEAST_HEAD_GIB : LEAST_GIB);
    d->ram_bytes = (uint64_t)(ram * GIB);
    snprintf(p->os, sizeof p->os, "%s", mac ? "macOS" : "Linux");
    p->threads = p->cores_physical = 8;
    p->ram_total_bytes = 2 * d->ram_bytes;
    p->disk[p->n_disk++] = (profile_disk){.pattern = "seq",
                                          .engine = "drawn",
                                          .bs_bytes = 1 << 20,
                                          .iodepth = 8,
                                          .direct = true,
                                          .read_bytes_per_s = disk};
    draw_rates(p, cpu_gflops, gpu ? gpu_gflops : 0);
    if (!gpu) return;
    d->n_gpus = 1;
    d->gpu[0].vram_bytes = (uint64_t)(vram * GIB);
    p->n_gpus = 1;
    p->gpu[0].vram_total_bytes = p->gpu[0].vram_free_bytes = d->gpu[0].vram_bytes;
}

int machines_draw(machines *m, uint64_t seed, size_t n_devices, double memory_scale, pr_err *err)
{
    uint64_t s = seed;

    memset(m, 0, sizeof *m);
    m->c = calloc(1, sizeof *m->c);
    if (!m->c) return pr_fail(err, PR_ERESOURCE, "out of memory");
    m->c->n_devices = n_devices;
    for (size_t i = 0; i < n_devices; i++) {
        cluster_device *d = &m->c->device[i];
        if (!(m->profiles[i] = calloc(1, sizeof **m->profiles))) {
            machines_free(m);
            return pr_fail(err, PR_ERESOURCE, "out of memory");
        }
        snprintf(d->name, sizeof d->name, "device-%zu", i);
        draw_device(d, m->profiles[i], &s, memory_scale, i == 0);
        m->c->link[m->c->n_links++] = (cluster_link){.from = (uint32_t)i,
                                                     .to = (uint32_t)((i + 1) % n_devices),
                                                     .mbit_per_s = uniform(&s, 300, 1000),
                                                     .rtt_ms = uniform(&s, 0.5, 7)};
    }
    return PR_OK;
}

/* --- models ----------------------------------------------------------------------------------------------
 */
static int by_stem(const void *a, const void *b)
{
    return strcmp(((const model_name *)a)->stem, ((const model_name *)b)->stem);
}

/* Whether the list "a,b" has this name; NULL has all. */
static bool list_has(const char *list, const char *name)
{
    size_t n = strlen(name);

    if (!list) return true;
    for (const char *at = list; *at; at += strcspn(at, ",") + (at[strcspn(at, ",")] == ',')) {
        if (strcspn(at, ",") == n && !strncmp(at, name, n)) return true;
    }
    return false;
}

int models_list(model_name *out, size_t *n, const planner_options *o, pr_err *err)
{
    static const char ending[] = ".yaml";
    char path[BENCH_PATH_BYTES];
    struct dirent *e;
    DIR *dir;

    *n = 0;
    snprintf(path, sizeof path, "%s/shapes", o->datasets);
    if (!(dir = opendir(path))) return pr_fail_errno(err, PR_ERESOURCE, "%s (--datasets)", path);
    while ((e = readdir(dir)) && *n < BENCH_MAX_MODELS) {
        model_name m = {0};
        size_t length = strlen(e->d_name);
        if (length <= sizeof ending || strcmp(e->d_name + length - (sizeof ending - 1), ending)) continue;
        snprintf(m.stem, sizeof m.stem, "%.*s", (int)(length - (sizeof ending - 1)), e->d_name);
        if (list_has(o->models, m.stem)) out[(*n)++] = m;
    }
    closedir(dir);
    qsort(out, *n, sizeof *out, by_stem);
    if (*n) return PR_OK;
    return pr_fail(err, PR_EUSAGE, "%s: no model named %s", path, o->models ? o->models : "*.yaml");
}

int models_read(model_facts *f, const planner_options *o, const char *stem, const char *quant, pr_err *err)
{
    char path[BENCH_PATH_BYTES];

    snprintf(path, sizeof path, "%s/shapes/%s.yaml", o->datasets, stem);
    return shape_read(f, path, quant, err);
}
