/* prima profile: measure this machine once, for the planner. The measurements are probe_*.c; here is when
 * they are made, of what, and where they go. */
#include "src/base/clock.h"
#include "src/base/file.h"
#include "src/base/log.h"
#include "src/base/pool.h"
#include "src/cmd.h"
#include "src/fio.h"
#include "src/options.h"
#include "src/probe.h"
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
         "time for each of 5 disk patterns, and for all products (10s)"},
        {"threads", 't', OPT_COUNT, &o->threads, "N", 1, POOL_MAX_THREADS, "threads (one a core)"},
        {"output", 'o', OPT_STRING, &o->output, "FILE", 0, 0, "where the profile goes (profiles/NAME.json)"},
        {"force", 0, OPT_FLAG, &o->force, NULL, 0, 0,
         "measure although FILE holds a profile of this build, model type and hardware"},
        {0}};
    const opt_spec spec = {
        "--device NAME [options]",
        "Measures this machine for `prima plan`: products, memory, disk (with fio). Models "
        "are only read.",
        table, 0, 0};
    int first, rc = options_parse(&spec, argc, argv, &first, err);

    if (rc || (rc = check_device(o->device, err))) return rc;
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
static bool same_machine(const profile *a, const profile *b)
{
    return !strcmp(a->device, b->device) && !strcmp(a->host, b->host) && !strcmp(a->os, b->os) &&
           !strcmp(a->cpu_model, b->cpu_model) && !strcmp(a->isa, b->isa) &&
           a->cores_physical == b->cores_physical && a->threads == b->threads &&
           a->numa_nodes == b->numa_nodes && a->ram_total_bytes == b->ram_total_bytes;
}

/* *reuse: the file at o->output is what would be measured again. A file that is no profile is not
 * overwritten. */
static int look_for_earlier(bool *reuse, const profile_options *o, const profile *now, pr_err *err)
{
    profile *earlier = NULL;
    int rc;

    *reuse = false;
    if (o->force || access(o->output, F_OK)) return PR_OK;
    if ((rc = profile_read(&earlier, o->output, err))) {
        pr_wrap(err, "the output is there and is no profile (--force replaces it)");
        return rc;
    }
    *reuse = !o->import && same_machine(earlier, now) && !strcmp(earlier->model, now->model) &&
             !strcmp(earlier->prima_version, now->prima_version);
    if (*reuse)
        log_info("%s of %s is reused: same build, model type and hardware (--force measures again)",
                 o->output, earlier->measured_at);
    else log_info("%s is measured again: another build, model type or hardware, or --import", o->output);
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
    snprintf(p->note, sizeof p->note, "disk imported from fio output");
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

/* Without a model: a file of our own beside the output. It has no name any more when it is filled, so that
 * nothing is left behind however the command ends; fio gets it as a descriptor. */
static int probe_scratch(profile *p, const profile_options *o, pr_err *err)
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
    else rc = probe_disk(p, path, o->runtime_s, err);
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
}

static int measure(profile *p, const profile_options *o, const model_file *m, pr_err *err)
{
    int rc = PR_OK;

    /* What can be refused comes before what takes time. */
    if (o->import && (rc = import_disk(p, o->import, err))) return rc;
    if ((rc = make_folders(o->output, err)) || (rc = probe_memory(p, (int)o->threads, err)) ||
        (rc = probe_compute(p, m ? &m->hp : NULL, (int)o->threads, o->runtime_s, err)))
        return rc;
    if (!o->import) rc = m ? probe_disk(p, m->disk_path, o->runtime_s, err) : probe_scratch(p, o, err);
    if (rc) return rc;
    clock_rfc3339(p->measured_at);
    round_figures(p);
    return profile_write(p, o->output, err);
}

static void log_summary(const profile *p, const char *path)
{
    log_info("memory: %.1f GB/s with %zu threads", p->mem_bytes_per_s[p->n_mem - 1] / 1e9, p->n_mem);
    for (size_t i = 0; i < p->n_compute; i++)
        if (p->compute[i].batch == 1 || p->compute[i].batch == 512)
            log_info("%s: %.1f gflops with %u tokens (spread %.0f %%)", p->compute[i].type,
                     p->compute[i].gflops, p->compute[i].batch, p->compute[i].spread_pct);
    for (size_t i = 0; i < p->n_disk; i++)
        log_info("disk: %.0f MB/s %s, depth %u, %s%s (spread %.0f %%)", p->disk[i].read_bytes_per_s / 1e6,
                 p->disk[i].pattern, p->disk[i].iodepth, p->disk[i].engine,
                 p->disk[i].direct ? "" : ", through the page cache", p->disk[i].spread_pct);
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
    if (o.model) model_file_close(&m);
    profile_free(p);
    return rc;
}
