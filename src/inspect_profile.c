/* A profile as a page for people: what was measured, how far repetitions lay apart, and which of the disk's
 * figures plans use. */
#include "src/inspect_profile.h"
#include "planner/profile.h"
#include <stdio.h>
#include <string.h>

bool inspect_is_profile(const char *path)
{
    char start[256] = "";
    FILE *f = fopen(path, "r");
    size_t n = f ? fread(start, 1, sizeof start - 1, f) : 0;

    if (f) fclose(f);
    return n && start[0] == '{' && strstr(start, "\"prima/profile/");
}

static double gib(uint64_t bytes)
{
    return (double)bytes / (1 << 30);
}

static void print_machine(const profile *p)
{
    printf("device          %s (%s), measured %s by prima %s\n", p->device, p->host, p->measured_at,
           p->prima_version);
    printf("system          %s %s, %s, %s\n", p->os, p->kernel, p->cpu_model, p->isa);
    printf("cores           %u, %u threads, %u NUMA nodes\n", p->cores_physical, p->threads, p->numa_nodes);
    printf("memory          %.2f GiB, %.2f GiB of it available\n", gib(p->ram_total_bytes),
           gib(p->ram_available_bytes));
    if (!p->n_mem) return;
    printf("memory read     %.1f GB/s with 1 thread, %.1f with %zu (spread %.0f %%)\n",
           p->mem_bytes_per_s[0] / 1e9, p->mem_bytes_per_s[p->n_mem - 1] / 1e9, p->n_mem, p->mem_spread_pct);
}

static void print_gpus(const profile *p)
{
    for (size_t i = 0; i < p->n_gpus; i++) {
        const profile_gpu *g = &p->gpu[i];
        printf("GPU %zu           %s, %.2f GiB, %.2f GiB of it free\n", i, g->name, gib(g->vram_total_bytes),
               gib(g->vram_free_bytes));
        if (g->mem_bytes_per_s > 0)
            printf("                %.0f GB/s, copies %.1f GB/s to it and %.1f from it (spread %.0f %%)\n",
                   g->mem_bytes_per_s / 1e9, g->h2d_bytes_per_s / 1e9, g->d2h_bytes_per_s / 1e9,
                   g->spread_pct);
    }
}

/* One row a type, in the order of the file, where a type's batches stand together. */
static void print_products(const profile *p)
{
    const char *type = "";
    int gpu = -1;

    if (!p->n_compute) return;
    printf("\nproducts, Gflop/s by tokens of a batch (%s)\n", *p->model ? p->model : "model not said");
    for (size_t i = 0; i < p->n_compute; i++) {
        const profile_compute *c = &p->compute[i];
        if (strcmp(c->type, type) || c->gpu != gpu) {
            printf("%s  %-8s%s", i ? "\n" : "", c->type, c->gpu < 0 ? "" : " GPU");
            if (c->gpu >= 0) printf(" %d", c->gpu);
        }
        printf("  %u: %.1f", c->batch, c->gflops);
        type = c->type;
        gpu = c->gpu;
    }
    printf("\n");
}

static void print_disk(const profile *p)
{
    const profile_disk *used = profile_disk_used(p);

    if (!p->n_disk) return;
    printf("\ndisk%s%s\n", *p->disk_name ? ": " : "", p->disk_name);
    for (size_t i = 0; i < p->n_disk; i++) {
        const profile_disk *d = &p->disk[i];
        printf("  %-4s %5.0f KiB  depth %-3u %-12s %9.1f MB/s  spread %3.0f %%  half within %.0f us%s%s\n",
               d->pattern, (double)d->bs_bytes / 1024, d->iodepth, d->engine, d->read_bytes_per_s / 1e6,
               d->spread_pct, d->clat_p50_us, d->direct ? "" : ", through the page cache",
               d == used ? "  <- plans" : "");
    }
}

static void print_overlap(const profile *p)
{
    for (size_t i = 0; i < p->n_overlap; i++) {
        const profile_overlap *o = &p->overlap[i];
        printf("%s  %u token%s: computing keeps %.0f %%, the disk %.0f %%; theta %.2f (spread %.0f %%)\n",
               i ? "" : "\ncomputing and reading at once\n", o->batch, o->batch == 1 ? "" : "s",
               100 * o->compute_share, 100 * o->disk_share, o->theta, o->spread_pct);
    }
}

static void print_links(const profile *p)
{
    for (size_t i = 0; i < p->n_net; i++)
        printf("%s  %s: %.1f Mbit/s, %.3f ms round trip\n", i ? "" : "\nlinks\n", p->net[i].peer,
               p->net[i].bytes_per_s * 8 / 1e6, p->net[i].rtt_ms);
}

int inspect_profile(const char *path, pr_err *err)
{
    profile *p;
    int rc = profile_read(&p, path, err);

    if (rc) return rc;
    print_machine(p);
    print_gpus(p);
    print_products(p);
    print_disk(p);
    print_overlap(p);
    print_links(p);
    if (*p->note) printf("\nnote            %s\n", p->note);
    profile_free(p);
    return fflush(stdout) ? pr_fail_errno(err, PR_ERESOURCE, "writing to standard output") : PR_OK;
}
