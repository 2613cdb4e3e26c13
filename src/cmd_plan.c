/* prima plan: cluster, profiles and a model's header in, a frozen plan out. The choices are made in
 * planner/search.c; here are options, files and what is printed. */
#include "planner/explain.h"
#include "planner/search.h"
#include "planner/shape.h"
#include "src/base/log.h"
#include "src/base/utf8.h"
#include "src/cmd.h"
#include "src/disk_best.h"
#include "src/model_facts.h"
#include "src/options.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

typedef struct {
    const char *cluster_path, *model, *shape, *quant, *profiles, *output, *kv_type, *objective, *head,
        *layers, *solver;
    size_t ctx, slots, max_rounds, micro_batch;
    double time_limit_s, gap_pct;
    opt_list fix;
    bool explain;
} plan_options;

typedef struct {
    plan_options o;
    cluster *c;
    profile *profiles[CLUSTER_MAX_DEVICES];
    model_facts f;
    search_options search;
    workload w;
    char created_at[32];
    time_t newest; /* of the input files */
    plan *p;
} job;

static int parse(plan_options *o, int argc, char **argv, pr_err *err)
{
    const opt table[] = {
        {"model", 'm', OPT_STRING, &o->model, "FILE", 0, 0, "the model; only its header is read"},
        {"shape", 0, OPT_STRING, &o->shape, "FILE", 0, 0,
         "instead: a description of a model that is not here (datasets/shapes)"},
        {"quant", 0, OPT_STRING, &o->quant, "NAME", 0, 0, "with --shape: Q4_K_M, Q6_K or Q8_0 (the file's)"},
        {"profiles", 0, OPT_STRING, &o->profiles, "DIR", 0, 0,
         "folder of the NAME.json that prima profile wrote (as the cluster file says, else profiles/ beside "
         "it)"},
        {"output", 'o', OPT_STRING, &o->output, "FILE", 0, 0, "the plan, - is standard output (plan.yaml)"},
        {"ctx", 0, OPT_COUNT, &o->ctx, "N", 1, 1 << 24, "tokens of a sequence (4096)"},
        {"slots", 0, OPT_COUNT, &o->slots, "N", 1, 1024, "sequences that decode together (16)"},
        {"kv-type", 0, OPT_STRING, &o->kv_type, "TYPE", 0, 0, "f16, q8_0 or f32 KV cache (f16)"},
        {"objective", 0, OPT_STRING, &o->objective, "NAME", 0, 0,
         "throughput: most tokens a second of all slots; latency: least time a token of one (throughput)"},
        {"head", 0, OPT_STRING, &o->head, "NAME", 0, 0,
         "the first device of the ring; auto tries all, and up to 6 devices every order (the cluster's "
         "first)"},
        {"micro-batch", 0, OPT_COUNT, &o->micro_batch, "N", 1, 1024,
         "sequences in a pass, for throughput (the best)"},
        {"max-rounds", 0, OPT_COUNT, &o->max_rounds, "N", 1, PROBLEM_MAX_ROUNDS,
         "laps of the ring in a pass, at most (32)"},
        {"fix", 0, OPT_LIST, &o->fix, "NAME=N", 0, 0, "give a device exactly N layers (repeatable)"},
        {"layers", 0, OPT_STRING, &o->layers, "N,N,...", 0, 0,
         "layers of every device by hand, in the order of the cluster file"},
        {"solver", 0, OPT_STRING, &o->solver, "NAME", 0, 0,
         "exact, or halda: the algorithm of the prima.cpp paper, to compare with; latency only (exact)"},
        {"time-limit", 0, OPT_DURATION, &o->time_limit_s, "TIME", 0, 0,
         "for all orders and the certificate; what it cuts is marked feasible (none: work is counted, not "
         "timed)"},
        {"gap", 0, OPT_REAL, &o->gap_pct, "PCT", 0, 99,
         "be content when the plan is proven to be within so many percent of the best (0)"},
        {"explain", 0, OPT_FLAG, &o->explain, NULL, 0, 0, "print the plan for people"},
        {0}};
    const opt_spec spec = {
        "cluster.yaml -m MODEL.gguf | --shape FILE [options]",
        "Decides which device runs which layers, and writes that down. Exit status 4: nothing "
        "fits, and what is missing.",
        table, 1, 1};
    int first, rc = options_parse(&spec, argc, argv, &first, err);

    if (!rc) o->cluster_path = argv[first];
    return rc;
}

static int check_options(job *j, pr_err *err)
{
    const plan_options *o = &j->o;
    bool latency = strcmp(o->objective, "latency") == 0;

    if (!o->model == !o->shape)
        return pr_fail(err, PR_EUSAGE, "expected a model: either -m MODEL.gguf or --shape FILE");
    if (o->quant && !o->shape) return pr_fail(err, PR_EUSAGE, "--quant goes with --shape");
    if (!latency && strcmp(o->objective, "throughput"))
        return pr_fail(err, PR_EUSAGE, "--objective %s: expected throughput or latency", o->objective);
    j->search.published = strcmp(o->solver, "halda") == 0;
    if (!j->search.published && strcmp(o->solver, "exact"))
        return pr_fail(err, PR_EUSAGE, "--solver %s: expected exact or halda", o->solver);
    if (j->search.published && (!latency || o->layers || o->fix.n))
        return pr_fail(err, PR_EUSAGE,
                       "--solver halda goes with --objective latency and without --layers and --fix");
    if (latency && o->micro_batch > 1)
        return pr_fail(err, PR_EUSAGE, "--micro-batch goes with --objective throughput");
    if (o->micro_batch > o->slots)
        return pr_fail(err, PR_EUSAGE, "--micro-batch %zu: there are only %zu slots", o->micro_batch,
                       o->slots);
    j->w = (workload){.ctx = (uint32_t)o->ctx,
                      .slots = (uint32_t)o->slots,
                      .micro_batch = (uint32_t)o->micro_batch,
                      .kv_type = o->kv_type,
                      .throughput = !latency,
                      .max_rounds = (uint32_t)o->max_rounds};
    return PR_OK;
}

/* --- inputs -------------------------------------------------------------------------------------------- */
static void note_time(job *j, const char *path)
{
    struct stat st;

    if (stat(path, &st) == 0 && st.st_mtime > j->newest) j->newest = st.st_mtime;
}

/* --profiles DIR, else what the cluster file says of the device, else profiles/ beside the cluster file. */
static int profile_path(const job *j, const cluster_device *d, char *out, size_t cap, pr_err *err)
{
    const char *slash = strrchr(j->o.cluster_path, '/');
    int dir = slash ? (int)(slash + 1 - j->o.cluster_path) : 0, n;

    if (j->o.profiles) n = snprintf(out, cap, "%s/%s.json", j->o.profiles, d->name);
    else if (*d->profile) n = snprintf(out, cap, "%s", d->profile);
    else n = snprintf(out, cap, "%.*sprofiles/%s.json", dir, j->o.cluster_path, d->name);
    if (n < 0 || (size_t)n >= cap)
        return pr_fail(err, PR_EUSAGE, "%s: the profile's path is too long", d->name);
    return PR_OK;
}

/* What the runtime's reader was measured with. */
static void note_reader(cluster_device *d, const profile *p)
{
    disk_read_options o = disk_best(p);

    if (o.engine != DISK_READ_AUTO) disk_read_words(&o, d->reader);
}

static int read_profiles(job *j, pr_err *err)
{
    for (size_t i = 0; i < j->c->n_devices; i++) {
        const cluster_device *d = &j->c->device[i];
        char path[4096];
        int rc = profile_path(j, d, path, sizeof path, err);

        if (!rc && access(path, F_OK))
            return pr_fail(err, PR_ERESOURCE,
                           "%s: no profile %s: make it on that device with prima profile --device %s",
                           d->name, path, d->name);
        if (!rc) rc = profile_read(&j->profiles[i], path, err);
        if (rc) return rc;
        note_reader(&j->c->device[i], j->profiles[i]);
        if (strcmp(j->profiles[i]->device, d->name))
            log_warn("%s: %s was measured on a device named %s", d->name, path, j->profiles[i]->device);
        note_time(j, path);
    }
    return PR_OK;
}

static int read_model(job *j, pr_err *err)
{
    int rc = j->o.model ? model_facts_read(&j->f, j->o.model, err)
                        : shape_read(&j->f, j->o.shape, j->o.quant, err);

    if (rc) return rc;
    note_time(j, j->o.model ? j->o.model : j->o.shape);
    if (!facts_kv_token_bytes(&j->f, j->o.kv_type))
        return pr_fail(err, PR_EUSAGE, "--kv-type %s: expected f16, q8_0 or f32", j->o.kv_type);
    if (j->f.n_ctx_train && j->o.ctx > j->f.n_ctx_train)
        log_warn("--ctx %zu: the model was trained for %u tokens", j->o.ctx, (unsigned)j->f.n_ctx_train);
    return PR_OK;
}

/* --- layers by hand --------------------------------------------------------------------------------------
 */
static bool parse_layers(const char **text, int *out)
{
    char *end;
    long v;

    if (**text < '0' || **text > '9') return false;
    errno = 0;
    v = strtol(*text, &end, 10);
    *text = end;
    *out = (int)v;
    return !errno && v <= FACTS_MAX_LAYERS;
}

static int parse_fix(job *j, const char *text, pr_err *err)
{
    const char *equals = strchr(text, '='), *number = equals ? equals + 1 : text;
    int layers;

    if (!equals || !parse_layers(&number, &layers) || *number)
        return pr_fail(err, PR_EUSAGE, "--fix %s: expected NAME=LAYERS, such as desk=20", text);
    for (size_t i = 0; i < j->c->n_devices; i++) {
        const char *name = j->c->device[i].name;
        if (strlen(name) != (size_t)(equals - text) || strncmp(name, text, strlen(name))) continue;
        j->search.fixed_layers[i] = layers;
        return PR_OK;
    }
    return pr_fail(err, PR_EUSAGE, "--fix %s: the cluster has no device of that name", text);
}

static int parse_all_layers(job *j, const char *text, pr_err *err)
{
    const char *at = text;
    size_t n = 0, sum = 0;

    for (;; at++) {
        int layers;
        if (n == j->c->n_devices || !parse_layers(&at, &layers) || (*at && *at != ',')) break;
        j->search.fixed_layers[n++] = layers;
        sum += (size_t)layers;
        if (!*at) break;
    }
    if (*at || n != j->c->n_devices)
        return pr_fail(err, PR_EUSAGE, "--layers %s: expected a number for each of the %zu devices", text,
                       j->c->n_devices);
    if (sum != j->f.n_layers)
        return pr_fail(err, PR_EUSAGE, "--layers %s: these are %zu layers, the model has %u", text, sum,
                       (unsigned)j->f.n_layers);
    return PR_OK;
}

static int parse_pins(job *j, pr_err *err)
{
    int rc = PR_OK;

    for (size_t i = 0; i < CLUSTER_MAX_DEVICES; i++) j->search.fixed_layers[i] = -1;
    if (j->o.layers && j->o.fix.n) return pr_fail(err, PR_EUSAGE, "--layers and --fix exclude each other");
    if (j->o.layers) return parse_all_layers(j, j->o.layers, err);
    for (size_t i = 0; i < j->o.fix.n && !rc; i++) rc = parse_fix(j, j->o.fix.value[i], err);
    return rc;
}

/* --- the plan
 * ------------------------------------------------------------------------------------------------ */
/* SOURCE_DATE_EPOCH, else the time of the newest input: the same inputs give the same bytes. */
static void set_created_at(job *j)
{
    const char *epoch = getenv("SOURCE_DATE_EPOCH");
    time_t t = epoch && *epoch ? (time_t)strtoll(epoch, NULL, 10) : j->newest;
    struct tm tm;

    if (gmtime_r(&t, &tm)) strftime(j->created_at, sizeof j->created_at, "%Y-%m-%dT%H:%M:%SZ", &tm);
}

/* What YAML can hold, and nobody mistakes: a file of another name must be named otherwise. */
static int check_path(const char *path, size_t cap, pr_err *err)
{
    size_t n = strlen(path);

    if (utf8_valid(path, n) != n)
        return pr_fail(err, PR_EUSAGE, "%s: the name is not UTF-8, and a plan is: give the file another",
                       path);
    for (const char *c = path; *c; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7F)
            return pr_fail(
                err, PR_EUSAGE,
                "%s: a control character in the name: a plan cannot hold it, give the file another", path);
    if (n >= cap) return pr_fail(err, PR_EUSAGE, "%s: %zu bytes, at most %zu are known", path, n, cap - 1);
    return PR_OK;
}

/* The same file name in the device's folder of models. */
static int name_in_folder(const job *j, plan_device *d, pr_err *err)
{
    const char *slash = strrchr(j->o.model, '/'), *name = slash ? slash + 1 : j->o.model;

    for (size_t i = 0; i < j->c->n_devices; i++) {
        const cluster_device *c = &j->c->device[i];
        if (strcmp(c->name, d->name) || !*c->model_dir) continue;
        if ((size_t)snprintf(d->model, sizeof d->model, "%s/%s", c->model_dir, name) >= sizeof d->model)
            return pr_fail(err, PR_EUSAGE, "%s: model_dir: the path of %s in it is too long", d->name, name);
    }
    return PR_OK;
}

/* Where the cluster file does not say which file a device has: the head reads the model that was planned for.
 */
static int name_models(job *j, pr_err *err)
{
    plan_device *head = &j->p->device[0];
    int rc;

    if (!j->o.model) return PR_OK;
    if ((rc = check_path(j->o.model, sizeof head->model, err))) return rc;
    if (!*head->model) memcpy(head->model, j->o.model, strlen(j->o.model) + 1);
    for (size_t i = 1; i < j->p->n_devices && !rc; i++)
        if (!*j->p->device[i].model) rc = name_in_folder(j, &j->p->device[i], err);
    return rc;
}

static int make_plan(job *j, pr_err *err)
{
    int rc;

    set_created_at(j);
    j->search.head = j->o.head;
    j->search.time_limit_s = j->o.time_limit_s;
    j->search.gap = j->o.gap_pct / 100;
    j->search.version = prima_version;
    j->search.created_at = j->created_at;
    if ((rc = search_plan(&j->p, j->c, j->profiles, &j->f, &j->w, &j->search, err)) ||
        (rc = name_models(j, err)))
        return rc;
    return plan_write(j->p, j->o.output, err);
}

static void explain_readers(const job *j, FILE *o)
{
    for (size_t i = 0; i < j->p->n_devices; i++) {
        const plan_device *d = &j->p->device[i];
        for (size_t c = 0; d->read_bytes_per_pass && c < j->c->n_devices; c++)
            if (!strcmp(j->c->device[c].name, d->name)) explain_reader(d->name, j->profiles[c], o);
    }
}

static void report(const job *j)
{
    const plan *p = j->p;
    FILE *o = strcmp(j->o.output, "-") ? stdout : stderr;

    if (strcmp(j->o.output, "-"))
        log_info("%s: %zu devices, %u rounds, %.1f ms a token, %.2f tokens/s (%s)", j->o.output, p->n_devices,
                 (unsigned)p->rounds, p->predicted.tpot_ms, p->predicted.output_tps, p->solver.status);
    /* Standard output holds one thing: the plan, when it goes there. */
    if (!j->o.explain) return;
    explain_plan(p, o);
    explain_readers(j, o);
}

int cmd_plan(int argc, char **argv, pr_err *err)
{
    job *j = calloc(1, sizeof *j);
    int rc;

    if (!j) return pr_fail(err, PR_ERESOURCE, "out of memory");
    j->o = (plan_options){.output = "plan.yaml",
                          .kv_type = "f16",
                          .objective = "throughput",
                          .solver = "exact",
                          .ctx = 4096,
                          .slots = 16,
                          .max_rounds = PROBLEM_MAX_ROUNDS};
    if ((rc = parse(&j->o, argc, argv, err)) || (rc = check_options(j, err)) ||
        (rc = cluster_read(&j->c, j->o.cluster_path, err)))
        goto done;
    note_time(j, j->o.cluster_path);
    if ((rc = read_model(j, err)) || (rc = parse_pins(j, err)) || (rc = read_profiles(j, err)) ||
        (rc = make_plan(j, err)))
        goto done;
    report(j);
done:
    plan_free(j->p);
    for (size_t i = 0; i < CLUSTER_MAX_DEVICES; i++) profile_free(j->profiles[i]);
    cluster_free(j->c);
    free(j);
    return rc == OPTIONS_HELP ? PR_OK : rc;
}
