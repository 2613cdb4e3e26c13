/* The text of a plan file, written and read by the same tables: a field stands in one place, with its key,
 * its kind and its range, and the tables' order is the order in the file.
 *
 * Text is printable ASCII in double quotes, paths are UTF-8; numbers have a fixed number of decimals, so that
 * a plan which was read is written again byte for byte. plan_sha256 covers all bytes but its own line. */
#include "planner/plan.h"
#include "planner/yaml.h"
#include "src/base/file.h"
#include "src/base/hash.h"
#include "src/base/utf8.h"
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    MAX_WINDOWS = (CLUSTER_MAX_GPUS + 1) * PROBLEM_MAX_ROUNDS,
    MAX_SLOTS = 1 << 20,
    MAX_CTX = 1 << 24,
    REAL_DECIMALS = 6
};
enum { MAX_PIECES = 64, MAX_LONG_TEXT = 64 * CLUSTER_MAX_DEVICES, PLAN_MAX_GPU = 255 };
#define MAX_REAL  1e15
#define MAX_BYTES ((uint64_t)1 << 60)

/* --- the tables ------------------------------------------------------------------------------------ */
typedef enum {
    TEXT,
    PATH,      /* TEXT with characters beyond ASCII: of files only, whose names are not ours */
    LONG_TEXT, /* char *, malloc'ed; NULL is empty */
    BOOL,
    OUTPUT_PLACE, /* bool: gpu or ram; not there when ram */
    PLACE,
    U16,
    U32,
    U64,
    REAL0,       /* double with 0, 3 or 6 decimals */
    MAYBE_REAL0, /* REAL0, not there when 0 */
    REAL3,
    REAL6,
    MAYBE3,   /* REAL3, not there when NAN */
    MAYBE_U32 /* U32, not there when 0 */
} kind;

typedef struct {
    const char *key; /* NULL ends a table */
    kind kind;
    size_t at;         /* offset in the struct */
    uint64_t min, max; /* of whole numbers; TEXT, PATH: max is the capacity */
} field;

#define TEXT_FIELD(s, key, member)                                                                           \
    {                                                                                                        \
        key, TEXT, offsetof(s, member), 0, sizeof(((s *)0)->member)                                          \
    }
#define PATH_FIELD(s, key, member)                                                                           \
    {                                                                                                        \
        key, PATH, offsetof(s, member), 0, sizeof(((s *)0)->member)                                          \
    }
#define FIELD(s, key, kind, member, min, max)                                                                \
    {                                                                                                        \
        key, kind, offsetof(s, member), min, max                                                             \
    }
#define REAL_FIELD(s, key, kind, member)                                                                     \
    {                                                                                                        \
        key, kind, offsetof(s, member), 0, 0                                                                 \
    }

static const field head_fields[] = {TEXT_FIELD(plan, "created_at", created_at), {0}};

static const field input_fields[] = {TEXT_FIELD(plan, "cluster_sha256", cluster_sha256), {0}};

static const field model_fields[] = {TEXT_FIELD(plan, "name", model.name),
                                     TEXT_FIELD(plan, "arch", model.arch),
                                     FIELD(plan, "n_layers", U32, model.n_layers, 1, FACTS_MAX_LAYERS),
                                     FIELD(plan, "file_bytes", U64, model.file_bytes, 0, MAX_BYTES),
                                     TEXT_FIELD(plan, "header_sha256", model.header_sha256),
                                     TEXT_FIELD(plan, "quant", model.quant),
                                     FIELD(plan, "pieces", U32, pieces, 1, MAX_PIECES),
                                     REAL_FIELD(plan, "layer_bytes", REAL3, layer_bytes),
                                     REAL_FIELD(plan, "kv_layer_bytes", REAL3, kv_layer_bytes),
                                     {0}};

static const field net_fields[] = {REAL_FIELD(plan, "secure", BOOL, net.secure),
                                   REAL_FIELD(plan, "insecure", BOOL, net.insecure),
                                   PATH_FIELD(plan, "key_file", net.key_file),
                                   REAL_FIELD(plan, "connect_s", REAL3, net.connect_s),
                                   REAL_FIELD(plan, "heartbeat_s", REAL3, net.heartbeat_s),
                                   REAL_FIELD(plan, "peer_s", REAL3, net.peer_s),
                                   {0}};

static const field work_fields[] = {FIELD(plan, "ctx", U32, ctx, 1, MAX_CTX),
                                    FIELD(plan, "slots", U32, slots, 1, MAX_SLOTS),
                                    FIELD(plan, "micro_batch", U32, micro_batch, 1, MAX_SLOTS),
                                    FIELD(plan, "in_flight", U32, in_flight, 0, MAX_SLOTS),
                                    FIELD(plan, "prefill_tokens", U32, prefill_tokens, 0, MAX_CTX),
                                    TEXT_FIELD(plan, "kv_type", kv_type),
                                    TEXT_FIELD(plan, "objective", objective),
                                    FIELD(plan, "rounds", U32, rounds, 1, PROBLEM_MAX_ROUNDS),
                                    {0}};

static const field solver_fields[] = {TEXT_FIELD(plan, "found_by", solver.found_by),
                                      TEXT_FIELD(plan, "certified_by", solver.certified_by),
                                      TEXT_FIELD(plan, "version", solver.version),
                                      TEXT_FIELD(plan, "status", solver.status),
                                      REAL_FIELD(plan, "gap_pct", MAYBE3, solver.gap_pct),
                                      {0}};

static const field device_fields[] = {
    FIELD(plan_device, "rank", U32, rank, 0, CLUSTER_MAX_DEVICES - 1),
    TEXT_FIELD(plan_device, "name", name),
    TEXT_FIELD(plan_device, "host", host),
    FIELD(plan_device, "port", U16, port, 0, 65535),
    TEXT_FIELD(plan_device, "ssh", ssh),
    TEXT_FIELD(plan_device, "user", user),
    PATH_FIELD(plan_device, "model", model),
    FIELD(plan_device, "threads", U32, threads, 0, 65536),
    TEXT_FIELD(plan_device, "reader", reader),
    REAL_FIELD(plan_device, "owns_embedding", BOOL, owns_embedding),
    REAL_FIELD(plan_device, "owns_output", BOOL, owns_output),
    REAL_FIELD(plan_device, "output_place", OUTPUT_PLACE, output_on_gpu),
    FIELD(plan_device, "buffer_pieces", U32, buffer_pieces, 0, MAX_PIECES *FACTS_MAX_LAYERS),
    {0}};

static const field gpu_fields[] = {FIELD(cluster_gpu, "index", U32, index, 0, PLAN_MAX_GPU),
                                   FIELD(cluster_gpu, "budget", U64, vram_bytes, 1, MAX_BYTES),
                                   {0}};

static const field window_fields[] = {
    FIELD(plan_window, "round", U32, round, 0, PROBLEM_MAX_ROUNDS - 1),
    FIELD(plan_window, "first_layer", U32, first_layer, 0, FACTS_MAX_LAYERS - 1),
    FIELD(plan_window, "last_layer", U32, last_layer, 0, FACTS_MAX_LAYERS - 1),
    REAL_FIELD(plan_window, "place", PLACE, place),
    FIELD(plan_window, "gpu", MAYBE_U32, gpu, 0, PLAN_MAX_GPU),
    FIELD(plan_window, "streamed_pieces", U32, streamed_pieces, 0, MAX_PIECES *FACTS_MAX_LAYERS),
    {0}};

#define BYTES_FIELD(member) FIELD(plan_device, #member, U64, bytes.member, 0, MAX_BYTES)
static const field bytes_fields[] = {BYTES_FIELD(weights_gpu),  BYTES_FIELD(kv_gpu),
                                     BYTES_FIELD(buffers_gpu),  BYTES_FIELD(budget_gpu),
                                     BYTES_FIELD(weights_ram),  BYTES_FIELD(kv_ram),
                                     BYTES_FIELD(buffers_ram),  BYTES_FIELD(budget_ram),
                                     BYTES_FIELD(weights_disk), {0}};

static const field device_predicted_fields[] = {
    REAL_FIELD(plan_device, "compute_ms", REAL3, compute_ms),
    REAL_FIELD(plan_device, "disk_wait_ms", REAL3, disk_wait_ms),
    REAL_FIELD(plan_device, "net_ms", REAL3, net_ms),
    REAL_FIELD(plan_device, "pass_ms", REAL3, pass_ms),
    FIELD(plan_device, "read_bytes_per_pass", U64, read_bytes_per_pass, 0, MAX_BYTES),
    {0}};

#define COST_FIELD(member, kind) REAL_FIELD(plan_device, #member, kind, cost.member)
static const field cost_fields[] = {COST_FIELD(cpu_ms, REAL6),
                                    COST_FIELD(gpu_ms, REAL6),
                                    COST_FIELD(out_ms, REAL6),
                                    COST_FIELD(hop_ms, REAL6),
                                    COST_FIELD(ram_bytes, REAL0),
                                    COST_FIELD(cpu_buffer_bytes, REAL0),
                                    COST_FIELD(head_bytes, REAL0),
                                    COST_FIELD(vram_bytes, REAL0),
                                    COST_FIELD(gpu_buffer_bytes, REAL0),
                                    COST_FIELD(gpu_output_bytes, MAYBE_REAL0),
                                    COST_FIELD(disk_bytes_per_ms, REAL3),
                                    COST_FIELD(theta, REAL6),
                                    COST_FIELD(prefill_cpu_ms, REAL6),
                                    COST_FIELD(prefill_gpu_ms, REAL6),
                                    COST_FIELD(prefill_hop_ms, REAL6),
                                    {0}};

static const field unused_fields[] = {
    TEXT_FIELD(plan_unused, "name", name), TEXT_FIELD(plan_unused, "reason", reason), {0}};

static const field fallback_fields[] = {TEXT_FIELD(plan_fallback, "lost", lost),
                                        FIELD(plan_fallback, "rounds", U32, rounds, 0, PROBLEM_MAX_ROUNDS),
                                        REAL_FIELD(plan_fallback, "tpot_ms", REAL3, tpot_ms),
                                        REAL_FIELD(plan_fallback, "layers", LONG_TEXT, layers),
                                        {0}};

static const field predicted_fields[] = {
    REAL_FIELD(plan, "ttft_ms", REAL3, predicted.ttft_ms),
    FIELD(plan, "ttft_tokens", U32, predicted.ttft_tokens, 0, MAX_CTX),
    REAL_FIELD(plan, "pass_ms", REAL3, predicted.pass_ms),
    REAL_FIELD(plan, "tpot_ms", REAL3, predicted.tpot_ms),
    REAL_FIELD(plan, "output_tps", REAL3, predicted.output_tps),
    FIELD(plan, "read_bytes_per_token", U64, predicted.read_bytes_per_token, 0, MAX_BYTES),
    TEXT_FIELD(plan, "bottleneck", predicted.bottleneck),
    TEXT_FIELD(plan, "advice", predicted.advice),
    {0}};

static const char *const place_names[] = {"gpu", "ram", "disk", NULL};
static const char *const output_names[] = {"gpu", "ram", NULL};

/* --- writing ---------------------------------------------------------------------------------------- */
/* What a YAML reader would refuse, or take for the end of a line. */
static bool is_escaped(uint32_t c)
{
    return (c >= 0x80 && c < 0xA0) || c == 0x2028 || c == 0x2029 || c == 0xFEFF || c == 0xFFFE || c == 0xFFFF;
}

static void write_text(FILE *o, const char *s)
{
    const char *end = s + strlen(s);

    fputc('"', o);
    while (s < end) {
        bool whole;
        size_t n = utf8_step(s, (size_t)(end - s), &whole);
        uint32_t c = utf8_code_point(s, n);
        if (is_escaped(c)) {
            fprintf(o, "\\u%04" PRIX32, c);
        } else {
            if (c == '"' || c == '\\') fputc('\\', o);
            fwrite(s, 1, n, o);
        }
        s += n;
    }
    fputc('"', o);
}

static void write_real(FILE *o, double v, int decimals)
{
    fprintf(o, "%.*f", decimals, isfinite(v) && v > 0 ? fmin(v, MAX_REAL) : 0.0);
}

static void write_value(FILE *o, const field *f, const void *base)
{
    const void *at = (const char *)base + f->at;

    switch (f->kind) {
    case TEXT:
    case PATH: write_text(o, at); break;
    case LONG_TEXT: write_text(o, *(char *const *)at ? *(char *const *)at : ""); break;
    case BOOL: fputs(*(const bool *)at ? "true" : "false", o); break;
    case OUTPUT_PLACE: fputs(place_names[*(const bool *)at ? PLACE_GPU : PLACE_RAM], o); break;
    case PLACE: fputs(place_names[*(const plan_place *)at], o); break;
    case U16: fprintf(o, "%u", (unsigned)*(const uint16_t *)at); break;
    case U32:
    case MAYBE_U32: fprintf(o, "%" PRIu32, *(const uint32_t *)at); break;
    case U64: fprintf(o, "%" PRIu64, *(const uint64_t *)at); break;
    case REAL0:
    case MAYBE_REAL0: write_real(o, *(const double *)at, 0); break;
    case REAL3:
    case MAYBE3: write_real(o, *(const double *)at, 3); break;
    case REAL6: write_real(o, *(const double *)at, REAL_DECIMALS); break;
    }
}

static bool may_be_left_out(const field *f)
{
    return f->kind == MAYBE3 || f->kind == MAYBE_U32 || f->kind == MAYBE_REAL0 || f->kind == OUTPUT_PLACE;
}

static bool is_left_out(const field *f, const void *base)
{
    const void *at = (const char *)base + f->at;

    switch (f->kind) {
    case MAYBE3: return isnan(*(const double *)at);
    case MAYBE_U32: return !*(const uint32_t *)at;
    case MAYBE_REAL0: return *(const double *)at == 0;
    case OUTPUT_PLACE: return !*(const bool *)at;
    default: return false;
    }
}

static void write_lines(FILE *o, int indent, const field *f, const void *base)
{
    for (; f->key; f++) {
        if (is_left_out(f, base)) continue;
        fprintf(o, "%*s%s: ", indent, "", f->key);
        write_value(o, f, base);
        fputc('\n', o);
    }
}

/* One entry of a list on one line. */
static void write_flow(FILE *o, int indent, const field *f, const void *base)
{
    fprintf(o, "%*s- {", indent, "");
    for (size_t i = 0; f[i].key; i++) {
        if (is_left_out(&f[i], base)) continue;
        fprintf(o, "%s%s: ", i ? ", " : "", f[i].key);
        write_value(o, &f[i], base);
    }
    fputs("}\n", o);
}

static void write_flows(FILE *o, int indent, const char *key, const field *f, const void *base, size_t size,
                        size_t n)
{
    fprintf(o, "%*s%s:%s\n", indent, "", key, n ? "" : " []");
    for (size_t i = 0; i < n; i++) write_flow(o, indent + 2, f, (const char *)base + i * size);
}

static void write_profiles(FILE *o, const plan *p)
{
    fprintf(o, "  profiles:%s\n", p->n_profiles ? "" : " {}");
    for (size_t i = 0; i < p->n_profiles; i++) {
        fputs("    ", o);
        write_text(o, p->profile[i].name);
        fputs(": ", o);
        write_text(o, p->profile[i].sha256);
        fputc('\n', o);
    }
}

static void write_device(FILE *o, const plan_device *d)
{
    fprintf(o, "  - rank: %" PRIu32 "\n", d->rank);
    write_lines(o, 4, device_fields + 1, d);
    if (d->n_gpus) write_flows(o, 4, "gpus", gpu_fields, d->gpu, sizeof *d->gpu, d->n_gpus);
    write_flows(o, 4, "windows", window_fields, d->window, sizeof *d->window, d->n_windows);
    fputs("    bytes:\n", o);
    write_lines(o, 6, bytes_fields, d);
    fputs("    predicted:\n", o);
    write_lines(o, 6, device_predicted_fields, d);
    fputs("    cost:\n", o);
    write_lines(o, 6, cost_fields, d);
}

/* Everything behind the line with plan_sha256. */
static void write_rest(FILE *o, const plan *p)
{
    write_lines(o, 0, head_fields, p);
    fputs("inputs:\n", o);
    write_lines(o, 2, input_fields, p);
    write_profiles(o, p);
    fputs("model:\n", o);
    write_lines(o, 2, model_fields, p);
    fputs("net:\n", o);
    write_lines(o, 2, net_fields, p);
    write_lines(o, 0, work_fields, p);
    fputs("solver:\n", o);
    write_lines(o, 2, solver_fields, p);
    fputs("ring:\n", o);
    for (size_t i = 0; i < p->n_devices; i++) write_device(o, &p->device[i]);
    write_flows(o, 0, "unused", unused_fields, p->unused, sizeof *p->unused, p->n_unused);
    write_flows(o, 0, "fallbacks", fallback_fields, p->fallback, sizeof *p->fallback, p->n_fallbacks);
    fputs("predicted:\n", o);
    write_lines(o, 2, predicted_fields, p);
}

static const char first_line[] = "schema: prima/plan/1\n";
static const char digest_key[] = "plan_sha256: \"";

char *plan_text(plan *p, size_t *n)
{
    char *body = NULL, *text = NULL;
    size_t n_body = 0, first = sizeof first_line - 1;
    FILE *o = open_memstream(&body, &n_body);

    if (!o) return NULL;
    fputs(first_line, o);
    write_rest(o, p);
    if (fclose(o) || !(o = open_memstream(&text, n))) {
        free(body);
        return NULL;
    }
    hash_sha256_hex(body, n_body, p->plan_sha256);
    fprintf(o, "%s%s%s\"\n", first_line, digest_key, p->plan_sha256);
    fwrite(body + first, 1, n_body - first, o);
    free(body);
    if (fclose(o)) {
        free(text);
        return NULL;
    }
    return text;
}

int plan_write(plan *p, const char *path, pr_err *err)
{
    size_t n;
    char *text = plan_text(p, &n);
    int rc;

    if (!text) return pr_fail(err, PR_ERESOURCE, "plan: out of memory");
    if (strcmp(path, "-") == 0) rc = file_write_all(1, text, n, "standard output", err);
    else rc = file_write_atomic(path, text, n, err);
    free(text);
    return rc;
}

/* --- reading ---------------------------------------------------------------------------------------- */
/* UTF-8 without control characters below U+0080, as yaml.h promises. */
static bool read_path(yaml_tree *t, const yaml_item *item, char *dst, size_t cap)
{
    return (item->kind == YAML_TEXT && item->quoted && !*item->text) || yaml_text(t, item, dst, cap);
}

static void read_text(yaml_tree *t, const yaml_item *item, char *dst, size_t cap)
{
    if (!read_path(t, item, dst, cap)) return;
    for (const char *c = dst; *c; c++) {
        if (*c < ' ' || *c > '~') {
            yaml_fail(t, item, "%s: expected printable ASCII", item->key);
            return;
        }
    }
}

static void read_long_text(yaml_tree *t, const yaml_item *item, char **dst)
{
    char *text = calloc(1, MAX_LONG_TEXT);

    if (!text) {
        yaml_fail(t, item, "out of memory");
        return;
    }
    read_text(t, item, text, MAX_LONG_TEXT);
    if (*text) *dst = strdup(text);
    if (*text && !*dst) yaml_fail(t, item, "out of memory");
    free(text);
}

static void read_value(yaml_tree *t, const yaml_item *map, const field *f, void *base)
{
    void *at = (char *)base + f->at;
    const yaml_item *item = may_be_left_out(f) ? yaml_get(map, f->key) : yaml_need(t, map, f->key);

    if (!item) {
        if (f->kind == MAYBE3) *(double *)at = NAN;
        return;
    }
    switch (f->kind) {
    case TEXT: read_text(t, item, at, f->max); break;
    case PATH: read_path(t, item, at, f->max); break;
    case LONG_TEXT: read_long_text(t, item, at); break;
    case BOOL: *(bool *)at = yaml_bool(t, item, false); break;
    case OUTPUT_PLACE: *(bool *)at = yaml_choice(t, item, output_names, PLACE_RAM) == PLACE_GPU; break;
    case PLACE: *(plan_place *)at = (plan_place)yaml_choice(t, item, place_names, PLACE_RAM); break;
    case U16: *(uint16_t *)at = (uint16_t)yaml_uint(t, item, f->min, f->max, 0); break;
    case U32:
    case MAYBE_U32: *(uint32_t *)at = (uint32_t)yaml_uint(t, item, f->min, f->max, 0); break;
    case U64: *(uint64_t *)at = yaml_uint(t, item, f->min, f->max, 0); break;
    case REAL0:
    case MAYBE_REAL0:
    case REAL3:
    case MAYBE3:
    case REAL6: *(double *)at = yaml_number(t, item, 0, MAX_REAL, 0); break;
    }
}

static void read_fields(yaml_tree *t, const yaml_item *map, const field *f, void *base)
{
    if (!yaml_is_map(t, map)) return;
    for (; f->key; f++) read_value(t, map, f, base);
}

/* A map that holds these fields and nothing else. */
static void read_map(yaml_tree *t, const yaml_item *map, const field *f, void *base)
{
    const char *keys[20];
    size_t n = 0;

    for (; f[n].key; n++) keys[n] = f[n].key;
    keys[n] = NULL;
    if (yaml_keys(t, map, keys)) read_fields(t, map, f, base);
}

/* The entries of a list; returns how many. */
static size_t read_list(yaml_tree *t, const yaml_item *list, const field *f, void *base, size_t size,
                        size_t max)
{
    size_t n = 0;

    if (!yaml_is_list(t, list)) return 0;
    if (list->n > max) {
        yaml_fail(t, list, "%s: %zu entries, at most %zu are known", list->key, list->n, max);
        return 0;
    }
    for (const yaml_item *i = list->first; i; i = i->next) read_map(t, i, f, (char *)base + n++ * size);
    return n;
}

static void read_profiles(yaml_tree *t, const yaml_item *map, plan *p)
{
    if (!yaml_is_map(t, map)) return;
    if (map->n > CLUSTER_MAX_DEVICES) yaml_fail(t, map, "profiles: more than %d", CLUSTER_MAX_DEVICES);
    for (const yaml_item *i = map->first; i && !yaml_failed(t); i = i->next, p->n_profiles++) {
        size_t n = strlen(i->key);
        if (!n || n >= sizeof p->profile[0].name ||
            strspn(i->key, "abcdefghijklmnopqrstuvwxyz0123456789-") != n) {
            yaml_fail(t, i, "profiles: '%.40s' is not a device's name", i->key);
            return;
        }
        memcpy(p->profile[p->n_profiles].name, i->key, n + 1);
        read_text(t, i, p->profile[p->n_profiles].sha256, sizeof p->profile[0].sha256);
    }
}

static void read_device(yaml_tree *t, const yaml_item *map, plan_device *d)
{
    static const char *const keys[] = {"rank",      "name",           "host",        "port",
                                       "ssh",       "user",           "model",       "threads",
                                       "reader",    "owns_embedding", "owns_output", "output_place",
                                       "gpus",      "buffer_pieces",  "windows",     "bytes",
                                       "predicted", "cost",           NULL};
    const yaml_item *windows;

    if (!yaml_keys(t, map, keys)) return;
    read_fields(t, map, device_fields, d);
    read_map(t, yaml_need(t, map, "bytes"), bytes_fields, d);
    read_map(t, yaml_need(t, map, "predicted"), device_predicted_fields, d);
    read_map(t, yaml_need(t, map, "cost"), cost_fields, d);
    d->cost.fixed_layers = d->cost.fixed_gpu_layers = -1;
    if (yaml_get(map, "gpus"))
        d->n_gpus = read_list(t, yaml_get(map, "gpus"), gpu_fields, d->gpu, sizeof *d->gpu, CLUSTER_MAX_GPUS);
    windows = yaml_need(t, map, "windows");
    d->window = calloc(MAX_WINDOWS, sizeof *d->window);
    if (!d->window) yaml_fail(t, map, "out of memory");
    else d->n_windows = read_list(t, windows, window_fields, d->window, sizeof *d->window, MAX_WINDOWS);
}

static void read_ring(yaml_tree *t, const yaml_item *list, plan *p)
{
    if (!yaml_is_list(t, list)) return;
    if (list->n > CLUSTER_MAX_DEVICES) yaml_fail(t, list, "ring: more than %d devices", CLUSTER_MAX_DEVICES);
    for (const yaml_item *i = list->first; i && !yaml_failed(t); i = i->next)
        read_device(t, i, &p->device[p->n_devices++]);
}

static void read_plan(yaml_tree *t, const yaml_item *root, plan *p)
{
    static const char *const keys[] = {"schema",    "plan_sha256", "created_at",     "inputs",  "model",
                                       "ctx",       "slots",       "micro_batch",    "kv_type", "in_flight",
                                       "objective", "rounds",      "prefill_tokens", "solver",  "ring",
                                       "unused",    "fallbacks",   "predicted",      "net",     NULL};
    const yaml_item *inputs;

    yaml_schema(t, root, "plan");
    if (!yaml_keys(t, root, keys)) return;
    yaml_text(t, yaml_need(t, root, "plan_sha256"), p->plan_sha256, sizeof p->plan_sha256);
    read_fields(t, root, head_fields, p);
    inputs = yaml_need(t, root, "inputs");
    if (yaml_keys(t, inputs, (const char *const[]){"cluster_sha256", "profiles", NULL})) {
        read_fields(t, inputs, input_fields, p);
        read_profiles(t, yaml_need(t, inputs, "profiles"), p);
    }
    read_map(t, yaml_need(t, root, "model"), model_fields, p);
    read_map(t, yaml_need(t, root, "net"), net_fields, p);
    read_fields(t, root, work_fields, p);
    read_map(t, yaml_need(t, root, "solver"), solver_fields, p);
    read_ring(t, yaml_need(t, root, "ring"), p);
    p->n_unused = read_list(t, yaml_need(t, root, "unused"), unused_fields, p->unused, sizeof *p->unused,
                            CLUSTER_MAX_DEVICES);
    p->n_fallbacks = read_list(t, yaml_need(t, root, "fallbacks"), fallback_fields, p->fallback,
                               sizeof *p->fallback, CLUSTER_MAX_DEVICES);
    read_map(t, yaml_need(t, root, "predicted"), predicted_fields, p);
    if (strcmp(p->objective, "latency") && strcmp(p->objective, "throughput"))
        yaml_fail(t, yaml_get(root, "objective"), "objective: expected latency or throughput");
}

/* The digest over all bytes but the line that holds it, which must be the second. */
static int check_digest(const plan *p, const char *text, size_t n, const char *name, pr_err *err)
{
    const size_t first = sizeof first_line - 1, line = sizeof digest_key - 1 + 64 + 2;
    char digest[HASH_HEX_BYTES], *rest;

    if (n < first + line || memcmp(text, first_line, first) ||
        memcmp(text + first, digest_key, sizeof digest_key - 1) || text[first + line - 1] != '\n')
        return pr_fail(
            err, PR_EMISMATCH,
            "%s: the first two lines must be the schema and plan_sha256, as prima plan writes them", name);
    rest = malloc(n);
    if (!rest) return pr_fail(err, PR_ERESOURCE, "%s: out of memory", name);
    memcpy(rest, text, first);
    memcpy(rest + first, text + first + line, n - first - line);
    hash_sha256_hex(rest, n - line, digest);
    free(rest);
    if (strcmp(digest, p->plan_sha256))
        return pr_fail(
            err, PR_EMISMATCH,
            "%s: plan_sha256 is %.12s..., the file's content gives %.12s...: it was changed after it "
            "was made; make it anew with prima plan",
            name, p->plan_sha256, digest);
    return PR_OK;
}

int plan_parse(plan **out, const char *text, size_t n, const char *name_for_errors, pr_err *err)
{
    plan *p = calloc(1, sizeof *p);
    yaml_tree *t = NULL;
    int rc = PR_ERESOURCE;

    *out = NULL;
    if (!p) return pr_fail(err, rc, "%s: out of memory", name_for_errors);
    if ((rc = yaml_parse(&t, text, n, name_for_errors, err))) goto done;
    read_plan(t, yaml_root(t), p);
    if ((rc = yaml_error(t, err))) goto done;
    if ((rc = plan_check(p, err))) {
        pr_wrap(err, "%s", name_for_errors);
        goto done;
    }
    if ((rc = check_digest(p, text, n, name_for_errors, err))) goto done;
    *out = p;
    p = NULL;
done:
    yaml_free(t);
    plan_free(p);
    return rc;
}

int plan_read(plan **out, const char *path, pr_err *err)
{
    char *text;
    size_t n;
    int rc = file_slurp(&text, &n, path, YAML_MAX_BYTES, err);

    *out = NULL;
    if (rc) return rc;
    rc = plan_parse(out, text, n, strcmp(path, "-") ? path : "standard input", err);
    free(text);
    return rc;
}
