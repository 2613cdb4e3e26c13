/* prima profile: measure this machine once, for the planner. The measurements are probe_*.c; here is when
 * they are made, of what, and where they go. */
#include "src/base/clock.h"
#include "src/base/file.h"
#include "src/base/log.h"
#include "src/base/pool.h"
#include "src/cmd.h"
#include "src/disk_best.h"
#include "src/fio.h"
#include "src/options.h"
#include "src/probe.h"
#include "src/probe_gpu.h"
#include "src/probe_link.h"
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { SCRATCH_BYTES = 256 << 20, CHUNK_BYTES = 1 << 20, PATH_BYTES = 4096 };

typedef struct {
    const char *device, *model, *import, *output;
    char output_place[PATH_BYTES];
    double runtime_s;
    size_t threads;
    bool force;
    link_options link;
} profile_options;

/* --- options --------------------------------------------------------------------------------------- */
static int check_device(const char *name, pr_err *err)
{
    size_t n = name ? strlen(name) : 0;

    if (!name)
        return pr_fail(err, PR_EUSAGE, "--device NAME is missing: what cluster.yaml calls this machine");
    if (n < 1 || n > 32 || strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789-") != n)
        return pr_fail(err, PR_EUSAGE, "--device %s: expected 1 to 32 of a-z, 0-9 and -", name);
    return PR_OK;
}

static int parse(profile_options *o, int argc, char **argv, pr_err *err)
{
    const opt table[] = {
        {"device", 0, OPT_STRING, &o->device, "NAME", 0, 0, "what cluster.yaml calls this machine"},
        {"model", 'm', OPT_STRING, &o->model, "FILE", 0, 0,
         "measure this model's weight types and shapes, and the disk it is on (usual ones)"},
        {"import", 0, OPT_STRING, &o->import, "FILE", 0, 0,
         "take the disk's figures from fio's JSON output (measure)"},
        {"runtime", 0, OPT_DURATION, &o->runtime_s, "TIME", 0, 0,
         "time for each of 11 disk patterns, for all products, and for both at once (10s)"},
        {"threads", 't', OPT_COUNT, &o->threads, "N", 1, POOL_MAX_THREADS, "threads (one a core)"},
        {"output", 'o', OPT_STRING, &o->output, "FILE", 0, 0, "where the profile goes (profiles/NAME.json)"},
        {"force", 0, OPT_FLAG, &o->force, NULL, 0, 0,
         "measure although FILE holds a profile of this build, model type and hardware"},
        {"link", 0, OPT_STRING, &o->link.address, "HOST:PORT", 0, 0,
         "measure also the link to a device where `prima worker --probe` listens"},
        {"peer", 0, OPT_STRING, &o->link.peer, "NAME", 0, 0,
         "what cluster.yaml calls that device (HOST, where it can be a name)"},
        {"key-file", 0, OPT_STRING, &o->link.key_file, "FILE", 0, 0,
         "the cluster's key for --link (PRIMA_KEY_FILE, else ~/.config/prima/cluster.key)"},
        {"insecure", 0, OPT_FLAG, &o->link.insecure, NULL, 0, 0,
         "--link without key and encryption, as the worker then does too"},
        {0}};
    const opt_spec spec = {
        "--device NAME [options]",
        "Measures this machine for `prima plan`: products, memory, disk (with fio). Models "
        "are only read.",
        table, 0, 0};
    int first, rc = options_parse(&spec, argc, argv, &first, err);

    if (rc || (rc = check_device(o->device, err)) || (rc = link_options_check(&o->link, err))) return rc;
    if (!(o->runtime_s >= 0.1 && o->runtime_s <= 600))
        return pr_fail(err, PR_EUSAGE, "--runtime: expected 100ms to 10m");
    snprintf(o->output_place, sizeof o->output_place, "profiles/%s.json", o->device);
    if (!o->output) o->output = o->output_place;
    if (strlen(o->output) + 64 > PATH_BYTES) return pr_fail(err, PR_EUSAGE, "--output: the path is too long");
    return PR_OK;
}

/* --- the model ----------------------------------------------------------------------------------------- */
typedef struct {
    gguf *g;
    hparams hp;
    char disk_path[PATH_BYTES]; /* its largest part: what the disk is measured on */
} model_file;

static int find_largest_part(model_file *m, pr_err *err)
{
    off_t most = -1;

    for (size_t i = 0; i < gguf_n_parts(m->g); i++) {
        const char *path = gguf_part_path(m->g, i);
        struct stat st;
        if (stat(path, &st)) return pr_fail_errno(err, PR_ERESOURCE, "%s: cannot be looked at", path);
        if (strlen(path) >= PATH_BYTES) return pr_fail(err, PR_EUSAGE, "%s: the path is too long", path);
        if (st.st_size <= most) continue;
        most = st.st_size;
        snprintf(m->disk_path, sizeof m->disk_path, "%s", path);
    }
    return PR_OK;
}

static void model_file_close(model_file *m)
{
    hparams_clear(&m->hp);
    gguf_close(m->g);
}

static int model_file_open(model_file *m, const char *path, pr_err *err)
{
    int rc = gguf_open(&m->g, path, err);

    if (!rc && (rc = hparams_read(&m->hp, m->g, err))) pr_wrap(err, "%s", path);
    return rc ? rc : find_largest_part(m, err);
}

/* What the rates depend on: models of one type share a profile. */
static void describe_model(char *out, size_t n, const hparams *hp)
{
    if (!hp) snprintf(out, n, "usual shapes");
    else
        snprintf(out, n, "%s %s, %u layers of %u x %u", model_arch_name(hp->arch), hp->quant, hp->n_layers,
                 hp->n_embd, hp->n_ff);
}

/* --- an earlier profile ------------------------------------------------------------------------------- */
static bool same_gpus(const profile *a, const profile *b)
{
    for (size_t i = 0; i < a->n_gpus && i < b->n_gpus; i++) {
        if (strcmp(a->gpu[i].name, b->gpu[i].name)) return false;
        if (a->gpu[i].vram_total_bytes != b->gpu[i].vram_total_bytes) return false;
    }
    return a->n_gpus == b->n_gpus;
}

/* Its disk was measured by us, not imported. */
static bool was_measured(const profile *p)
{
    const profile_disk *d = profile_disk_used(p);
    disk_read_options o;
    return d && disk_options_of(&o, d);
}

/* What makes the earlier profile one of something else; NULL: nothing does. fio counts when it came since. */
static const char *difference(const profile *a, const profile *b)
{
    char version[FIO_VERSION_BYTES];

    if (strcmp(a->device, b->device)) return "another device name";
    if (strcmp(a->host, b->host) || strcmp(a->os, b->os)) return "another machine";
    if (strcmp(a->cpu_model, b->cpu_model) || strcmp(a->isa, b->isa) ||
        a->cores_physical != b->cores_physical || a->numa_nodes != b->numa_nodes)
        return "another CPU";
    if (a->threads != b->threads) return "another number of threads";
    if (a->ram_total_bytes != b->ram_total_bytes) return "another amount of memory";
    if (!same_gpus(a, b)) return "other GPUs";
    if (strcmp(a->disk_name, b->disk_name)) return "another disk";
    if (strcmp(a->model, b->model)) return "another type of model";
    if (strcmp(a->prima_version, b->prima_version)) return "another build of prima";
    if (was_measured(a) && !*a->fio_version && fio_installed(version)) return "fio was installed since";
    return NULL;
}

/* *reuse: the file at o->output is what would be measured again. A file that is no profile is not
 * overwritten. Links that were measured stay: they are those of neither build nor model. */
static int look_for_earlier(bool *reuse, const profile_options *o, profile *now, pr_err *err)
{
    profile *earlier = NULL;
    const char *changed;
    int rc;

    *reuse = false;
    if (o->force || access(o->output, F_OK)) return PR_OK;
    if ((rc = profile_read(&earlier, o->output, err))) {
        pr_wrap(err, "the output is there and is no profile (--force replaces it)");
        return rc;
    }
    memcpy(now->net, earlier->net, sizeof now->net);
    now->n_net = earlier->n_net;
    changed = o->import ? "--import" : difference(earlier, now);
    *reuse = !changed;
    if (*reuse)
        log_info("%s of %s is reused: same build, model type and hardware (--force measures again)",
                 o->output, earlier->measured_at);
    else log_info("%s is measured again: %s", o->output, changed);
    profile_free(earlier);
    return PR_OK;
}

/* --- the disk --------------------------------------------------------------------------------------- */
static int import_disk(profile *p, const char *path, pr_err *err)
{
    char *text;
    size_t n;
    int rc = file_slurp(&text, &n, path, FIO_MAX_BYTES, err);

    if (rc) return rc;
    if (fio_parse(p->disk, &p->n_disk, p->fio_version, text, n, err)) {
        rc = PR_EUSAGE;
        if (err) err->code = PR_EUSAGE;
        pr_wrap(err, "%s", path);
    }
    probe_note(p, "disk imported from fio output");
    free(text);
    return rc;
}

/* Bytes that neither a file system nor a disk can shorten. */
static int fill_scratch(int fd, const char *path, pr_err *err)
{
    uint64_t *chunk = malloc(CHUNK_BYTES), x = 1;
    int rc = chunk ? PR_OK : pr_fail(err, PR_ERESOURCE, "out of memory");

    for (size_t done = 0; done < SCRATCH_BYTES && !rc; done += CHUNK_BYTES) {
        for (size_t i = 0; i < CHUNK_BYTES / 8; i++) {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            chunk[i] = x;
        }
        rc = file_write_all(fd, chunk, CHUNK_BYTES, path, err);
    }
    if (!rc && fsync(fd)) rc = pr_fail_errno(err, PR_ERESOURCE, "%s", path);
    free(chunk);
    return rc;
}

static int probe_reading(profile *p, product_rig *rig, const char *path, double seconds, pr_err *err)
{
    int rc = probe_disk(p, path, seconds, err);
    return rc ? rc : probe_overlap(p, rig, path, seconds, err);
}

/* Without a model: a file of our own beside the output. It has no name any more when it is filled, so that
 * nothing is left behind however the command ends; fio gets it as a descriptor. */
static int probe_scratch(profile *p, product_rig *rig, const profile_options *o, pr_err *err)
{
    char path[PATH_BYTES];
    int fd, rc;

    snprintf(path, sizeof path, "%s.disk-XXXXXX", o->output);
    fd = mkstemp(path);
    if (fd < 0) return pr_fail_errno(err, PR_ERESOURCE, "%s: a file to measure the disk with", path);
    unlink(path);
    log_progress("disk: writing %d MiB to read", SCRATCH_BYTES >> 20);
    rc = fill_scratch(fd, path, err);
    snprintf(path, sizeof path, "/dev/fd/%d", fd);
    if (rc) pr_wrap(err, "%d MiB to measure the disk with (--model FILE needs none)", SCRATCH_BYTES >> 20);
    else rc = probe_reading(p, rig, path, o->runtime_s, err);
    probe_note(p, "disk measured on %d MiB that had just been written", SCRATCH_BYTES >> 20);
    close(fd);
    return rc;
}

/* --- all of it ---------------------------------------------------------------------------------------- */
/* Missing folders on the way to a file. */
static int make_folders(const char *file, pr_err *err)
{
    char path[PATH_BYTES];

    snprintf(path, sizeof path, "%s", file);
    for (char *c = path + 1; *c; c++) {
        if (*c != '/') continue;
        *c = 0;
        if (mkdir(path, 0777) && errno != EEXIST)
            return pr_fail_errno(err, PR_ERESOURCE, "%s: making the folder", path);
        *c = '/';
    }
    return PR_OK;
}

static double rounded(double v, double steps)
{
    return round(v * steps) / steps;
}

/* No more digits than a measurement has. */
static void round_figures(profile *p)
{
    for (size_t i = 0; i < p->n_mem; i++) p->mem_bytes_per_s[i] = rounded(p->mem_bytes_per_s[i], 1);
    p->mem_spread_pct = rounded(p->mem_spread_pct, 100);
    for (size_t i = 0; i < p->n_compute; i++) {
        profile_compute *c = &p->compute[i];
        c->gflops = rounded(c->gflops, 1e3);
        c->spread_pct = rounded(c->spread_pct, 100);
    }
    for (size_t i = 0; i < p->n_disk; i++) {
        profile_disk *d = &p->disk[i];
        d->read_bytes_per_s = rounded(d->read_bytes_per_s, 1);
        d->iops = rounded(d->iops, 100);
        d->clat_p50_us = rounded(d->clat_p50_us, 1e3);
        d->clat_p99_us = rounded(d->clat_p99_us, 1e3);
        d->spread_pct = rounded(d->spread_pct, 100);
    }
    for (size_t i = 0; i < p->n_gpus; i++) {
        profile_gpu *g = &p->gpu[i];
        g->mem_bytes_per_s = rounded(g->mem_bytes_per_s, 1);
        g->h2d_bytes_per_s = rounded(g->h2d_bytes_per_s, 1);
        g->d2h_bytes_per_s = rounded(g->d2h_bytes_per_s, 1);
        g->copy_latency_us = rounded(g->copy_latency_us, 1e3);
        g->spread_pct = rounded(g->spread_pct, 100);
    }
    for (size_t i = 0; i < p->n_overlap; i++) {
        profile_overlap *v = &p->overlap[i];
        v->theta = rounded(v->theta, 1e3);
        v->compute_share = rounded(v->compute_share, 1e3);
        v->disk_share = rounded(v->disk_share, 1e3);
        v->spread_pct = rounded(v->spread_pct, 100);
    }
}

/* Reading the holes of a shard (prima pull --plan) takes no time at all. */
static bool is_whole(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && (uint64_t)st.st_blocks * 512 >= (uint64_t)st.st_size / 10 * 9;
}

static int measure_products(profile *p, const profile_options *o, const model_file *m, pr_err *err)
{
    product_rig *rig;
    int rc = product_rig_new(&rig, m ? &m->hp : NULL, (int)o->threads, err);

    if (rc) return rc;
    rc = probe_compute(p, rig, o->runtime_s, err);
    if (!rc && !o->import)
        rc = m && is_whole(m->disk_path) ? probe_reading(p, rig, m->disk_path, o->runtime_s, err)
                                         : probe_scratch(p, rig, o, err);
    product_rig_free(rig);
    return rc;
}

static int measure(profile *p, const profile_options *o, const model_file *m, pr_err *err)
{
    int rc = PR_OK;

    /* What can be refused comes before what takes time. */
    if (o->import && (rc = import_disk(p, o->import, err))) return rc;
    if ((rc = make_folders(o->output, err)) || (rc = probe_memory(p, (int)o->threads, err)) ||
        (rc = measure_products(p, o, m, err)))
        return rc;
    probe_gpu_rates(p);
    probe_gpu_layers(p, m ? &m->hp : NULL, (int)o->threads);
    clock_rfc3339(p->measured_at);
    round_figures(p);
    return profile_write(p, o->output, err);
}

static void log_summary(const profile *p, const char *path)
{
    const profile_disk *used;

    log_info("memory: %.1f GB/s with %zu threads (spread %.0f %%)", p->mem_bytes_per_s[p->n_mem - 1] / 1e9,
             p->n_mem, p->mem_spread_pct);
    for (size_t i = 0; i < p->n_compute; i++)
        if (p->compute[i].batch == 1 || p->compute[i].batch == 512)
            log_info("%s%s: %.1f gflops with %u tokens (spread %.0f %%)", p->compute[i].type,
                     p->compute[i].gpu < 0 ? "" : ", layers on the GPU", p->compute[i].gflops,
                     p->compute[i].batch, p->compute[i].spread_pct);
    for (size_t i = 0; i < p->n_disk; i++)
        log_info("disk: %.0f MB/s %s, %llu KiB, depth %u, %s%s (spread %.0f %%)",
                 p->disk[i].read_bytes_per_s / 1e6, p->disk[i].pattern,
                 (unsigned long long)p->disk[i].bs_bytes >> 10, p->disk[i].iodepth, p->disk[i].engine,
                 p->disk[i].direct ? "" : ", through the page cache", p->disk[i].spread_pct);
    for (size_t i = 0; i < p->n_gpus; i++)
        log_info("GPU %zu, %s: %.1f GB/s, copies %.1f GB/s there and %.1f GB/s back, %.1f us for a small one "
                 "(spread %.0f %%)",
                 i, p->gpu[i].name, p->gpu[i].mem_bytes_per_s / 1e9, p->gpu[i].h2d_bytes_per_s / 1e9,
                 p->gpu[i].d2h_bytes_per_s / 1e9, p->gpu[i].copy_latency_us, p->gpu[i].spread_pct);
    if ((used = profile_disk_used(p)))
        log_info("plans read with %s, %llu KiB at depth %u%s", used->engine,
                 (unsigned long long)used->bs_bytes >> 10, used->iodepth,
                 used->direct ? "" : ", through the page cache");
    for (size_t i = 0; i < p->n_overlap; i++)
        log_info("theta: %.2f with %u tokens (computing and reading at once: %.0f %% and %.0f %% of their "
                 "rates alone; spread %.0f %%)",
                 p->overlap[i].theta, p->overlap[i].batch, 100 * p->overlap[i].compute_share,
                 100 * p->overlap[i].disk_share, p->overlap[i].spread_pct);
    log_info("%s written", path);
}

static int profile_device(profile *p, const profile_options *o, const model_file *m, pr_err *err)
{
    bool reuse;
    int rc;

    snprintf(p->device, sizeof p->device, "%s", o->device);
    snprintf(p->prima_version, sizeof p->prima_version, "%s", prima_version);
    describe_model(p->model, sizeof p->model, m ? &m->hp : NULL);
    probe_machine(p, (int)o->threads);
    probe_disk_name(p, m ? m->disk_path : o->output);
    probe_gpu_list(p);
    if ((rc = look_for_earlier(&reuse, o, p, err)) || reuse) return rc;
    if ((rc = measure(p, o, m, err))) return rc;
    log_summary(p, o->output);
    return PR_OK;
}

int cmd_profile(int argc, char **argv, pr_err *err)
{
    profile_options o = {.runtime_s = 10, .threads = (size_t)pool_default_threads()};
    model_file m = {0};
    profile *p;
    int rc = parse(&o, argc, argv, err);

    if (rc) return rc == OPTIONS_HELP ? PR_OK : rc;
    if (!(p = calloc(1, sizeof *p))) return pr_fail(err, PR_ERESOURCE, "out of memory");
    if (o.model) rc = model_file_open(&m, o.model, err);
    if (!rc) rc = profile_device(p, &o, o.model ? &m : NULL, err);
    if (!rc && o.link.address) rc = probe_link_into(o.output, &o.link, err);
    if (o.model) model_file_close(&m);
    profile_free(p);
    return rc;
}
