/* Device profiles in and out. The format is a set of tables: key, kind, place in the struct, range; reading
 * and writing walk the same tables, so what is written is what is read. One line of the file per fact or
 * measurement, so that differences between two profiles read well. What is asked of a profile stands in
 * profile_query.c. */
#include "planner/profile.h"
#include "src/base/file.h"
#include "src/base/hash.h"
#include "src/base/json.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define SCHEMA "prima/profile/1"
enum { PROFILE_MAX_BYTES = 4 << 20 };

typedef enum { TEXT, UINT32, UINT64, REAL, BOOL, GPU_OR_CPU } field_kind;
typedef struct {
    const char *key;
    field_kind kind;
    size_t offset, cap; /* cap: bytes of a TEXT */
    bool required;
    double min, max; /* of numbers; integers beyond 2^53 are not used */
} field;

#define PLACE(type, member) offsetof(type, member), sizeof(((type *)0)->member)

static const field device_fields[] = {
    {"device", TEXT, PLACE(profile, device), true, 0, 0},
    {"host", TEXT, PLACE(profile, host), false, 0, 0},
    {"os", TEXT, PLACE(profile, os), false, 0, 0},
    {"kernel", TEXT, PLACE(profile, kernel), false, 0, 0},
    {"cpu_model", TEXT, PLACE(profile, cpu_model), false, 0, 0},
    {"isa", TEXT, PLACE(profile, isa), false, 0, 0},
    {"cores_physical", UINT32, PLACE(profile, cores_physical), false, 0, 4096},
    {"threads", UINT32, PLACE(profile, threads), true, 1, 4096},
    {"numa_nodes", UINT32, PLACE(profile, numa_nodes), false, 0, 1024},
    {"ram_total_bytes", UINT64, PLACE(profile, ram_total_bytes), true, 1, 0x1p50},
    {"ram_available_bytes", UINT64, PLACE(profile, ram_available_bytes), true, 0, 0x1p50},
    {"model", TEXT, PLACE(profile, model), false, 0, 0},
    {"disk_name", TEXT, PLACE(profile, disk_name), false, 0, 0},
    {"fio_version", TEXT, PLACE(profile, fio_version), false, 0, 0},
    {"measured_at", TEXT, PLACE(profile, measured_at), false, 0, 0},
    {"prima_version", TEXT, PLACE(profile, prima_version), false, 0, 0},
    {"note", TEXT, PLACE(profile, note), false, 0, 0},
    {"mem_spread_pct", REAL, PLACE(profile, mem_spread_pct), false, 0, 1e6},
    {0}};

static const field gpu_fields[] = {
    {"name", TEXT, PLACE(profile_gpu, name), true, 0, 0},
    {"vram_total_bytes", UINT64, PLACE(profile_gpu, vram_total_bytes), true, 1, 0x1p50},
    {"vram_free_bytes", UINT64, PLACE(profile_gpu, vram_free_bytes), true, 0, 0x1p50},
    {"tflops_f16", REAL, PLACE(profile_gpu, tflops_f16), false, 0, 1e6},
    {"mem_bytes_per_s", REAL, PLACE(profile_gpu, mem_bytes_per_s), false, 0, 1e15},
    {"h2d_bytes_per_s", REAL, PLACE(profile_gpu, h2d_bytes_per_s), false, 0, 1e15},
    {"d2h_bytes_per_s", REAL, PLACE(profile_gpu, d2h_bytes_per_s), false, 0, 1e15},
    {"copy_latency_us", REAL, PLACE(profile_gpu, copy_latency_us), false, 0, 1e12},
    {"spread_pct", REAL, PLACE(profile_gpu, spread_pct), false, 0, 1e6},
    {0}};

static const field compute_fields[] = {
    {"type", TEXT, PLACE(profile_compute, type), true, 0, 0},
    {"gpu", GPU_OR_CPU, PLACE(profile_compute, gpu), false, 0, PROFILE_MAX_GPUS - 1},
    {"batch", UINT32, PLACE(profile_compute, batch), true, 1, 1 << 20},
    {"gflops", REAL, PLACE(profile_compute, gflops), true, 1e-6, 1e9},
    {"spread_pct", REAL, PLACE(profile_compute, spread_pct), false, 0, 1e6},
    {0}};

static const field disk_fields[] = {
    {"pattern", TEXT, PLACE(profile_disk, pattern), true, 0, 0},
    {"bs_bytes", UINT64, PLACE(profile_disk, bs_bytes), true, 1, 0x1p40},
    {"iodepth", UINT32, PLACE(profile_disk, iodepth), true, 1, 1 << 20},
    {"engine", TEXT, PLACE(profile_disk, engine), true, 0, 0},
    {"direct", BOOL, PLACE(profile_disk, direct), true, 0, 0},
    {"read_bytes_per_s", REAL, PLACE(profile_disk, read_bytes_per_s), true, 1, 1e15},
    {"iops", REAL, PLACE(profile_disk, iops), false, 0, 1e12},
    {"clat_p50_us", REAL, PLACE(profile_disk, clat_p50_us), false, 0, 1e12},
    {"clat_p99_us", REAL, PLACE(profile_disk, clat_p99_us), false, 0, 1e12},
    {"reps", UINT32, PLACE(profile_disk, reps), false, 0, 1 << 20},
    {"spread_pct", REAL, PLACE(profile_disk, spread_pct), false, 0, 1e6},
    {0}};

static const field overlap_fields[] = {
    {"batch", UINT32, PLACE(profile_overlap, batch), true, 1, 1 << 20},
    {"theta", REAL, PLACE(profile_overlap, theta), true, 0, 1},
    {"compute_share", REAL, PLACE(profile_overlap, compute_share), false, 0, 1},
    {"disk_share", REAL, PLACE(profile_overlap, disk_share), false, 0, 1},
    {"reps", UINT32, PLACE(profile_overlap, reps), false, 0, 1 << 20},
    {"spread_pct", REAL, PLACE(profile_overlap, spread_pct), false, 0, 100},
    {0}};

static const field net_fields[] = {{"peer", TEXT, PLACE(profile_net, peer), true, 0, 0},
                                   {"bytes_per_s", REAL, PLACE(profile_net, bytes_per_s), true, 1, 1e15},
                                   {"rtt_ms", REAL, PLACE(profile_net, rtt_ms), true, 0, 60000},
                                   {0}};

/* The lists of objects: where they are, how long one entry is, where their number stands. */
typedef struct {
    const char *key;
    const field *fields;
    size_t offset, entry_bytes, n_offset, max;
} list;

#define LIST(key, member, count, max)                                                                        \
    {                                                                                                        \
#key, key##_fields, offsetof(profile, member), sizeof(((profile *)0)->member[0]),                    \
            offsetof(profile, count), max                                                                    \
    }

static const list lists[] = {{"gpus", gpu_fields, offsetof(profile, gpu), sizeof(profile_gpu),
                              offsetof(profile, n_gpus), PROFILE_MAX_GPUS},
                             LIST(compute, compute, n_compute, PROFILE_MAX_COMPUTE),
                             LIST(disk, disk, n_disk, PROFILE_MAX_DISK),
                             LIST(overlap, overlap, n_overlap, PROFILE_MAX_OVERLAP),
                             LIST(net, net, n_net, PROFILE_MAX_NET)};
enum { N_LISTS = sizeof lists / sizeof *lists };

/* --- reading -------------------------------------------------------------------------------------------- */
/* `where` is "" or "compute[3].", in front of the key. */
static int wrong(pr_err *err, const char *where, const char *key, const char *expected)
{
    return pr_fail(err, PR_EUSAGE, "%s%s: expected %s", where, key, expected);
}

static int out_of_range(pr_err *err, const char *where, const field *f)
{
    return pr_fail(err, PR_EUSAGE, "%s%s: outside %.15g..%.15g", where, f->key, f->min, f->max);
}

static int read_text(const json_t *v, const char *where, const field *f, char *dst, pr_err *err)
{
    const char *text = json_string_value(v);
    size_t n = json_string_length(v);

    if (!text) return wrong(err, where, f->key, "a text");
    if (n >= f->cap || strlen(text) != n)
        return pr_fail(err, PR_EUSAGE, "%s%s: a text of at most %zu bytes is expected, found %zu", where,
                       f->key, f->cap - 1, n);
    if (f->required && !n) return pr_fail(err, PR_EUSAGE, "%s%s: an empty text", where, f->key);
    memcpy(dst, text, n + 1);
    return PR_OK;
}

static int read_integer(const json_t *v, const char *where, const field *f, void *dst, pr_err *err)
{
    json_int_t i = json_integer_value(v);
    uint32_t u32 = (uint32_t)i;
    uint64_t u64 = (uint64_t)i;
    int gpu = (int)i;

    if (!json_is_integer(v)) return wrong(err, where, f->key, "a whole number");
    if ((double)i < f->min || (double)i > f->max) return out_of_range(err, where, f);
    if (f->kind == UINT32) memcpy(dst, &u32, sizeof u32);
    else if (f->kind == UINT64) memcpy(dst, &u64, sizeof u64);
    else memcpy(dst, &gpu, sizeof gpu);
    return PR_OK;
}

static int read_value(const json_t *v, const char *where, const field *f, void *dst, pr_err *err)
{
    double real;
    bool flag;

    switch (f->kind) {
    case TEXT: return read_text(v, where, f, dst, err);
    case REAL:
        if (!json_is_number(v)) return wrong(err, where, f->key, "a number");
        real = json_number_value(v);
        if (!(real >= f->min && real <= f->max)) return out_of_range(err, where, f);
        memcpy(dst, &real, sizeof real);
        return PR_OK;
    case BOOL:
        if (!json_is_boolean(v)) return wrong(err, where, f->key, "true or false");
        flag = json_is_true(v);
        memcpy(dst, &flag, sizeof flag);
        return PR_OK;
    default: return read_integer(v, where, f, dst, err);
    }
}

static bool is_field(const field *fields, const char *key)
{
    for (; fields->key; fields++) {
        if (!strcmp(fields->key, key)) return true;
    }
    return false;
}

/* The fields of one object into the struct at `base`. */
static int read_fields(json_t *object, const char *where, const field *fields, void *base, pr_err *err)
{
    for (const field *f = fields; f->key; f++) {
        const json_t *v = json_object_get(object, f->key);
        int rc;
        if (!v && f->required) return pr_fail(err, PR_EUSAGE, "%s%s: the field is missing", where, f->key);
        if (v && (rc = read_value(v, where, f, (char *)base + f->offset, err))) return rc;
    }
    return PR_OK;
}

static int read_list(const json_t *v, const list *l, profile *p, pr_err *err)
{
    size_t n = json_array_size(v);

    if (!json_is_array(v)) return wrong(err, "", l->key, "a list");
    if (n > l->max)
        return pr_fail(err, PR_EUSAGE, "%s: %zu entries, at most %zu are allowed", l->key, n, l->max);
    for (size_t i = 0; i < n; i++) {
        json_t *entry = json_array_get(v, i);
        const char *key;
        json_t *ignored;
        char where[32];
        int rc;
        snprintf(where, sizeof where, "%s[%zu]", l->key, i);
        if (!json_is_object(entry)) return wrong(err, where, "", "an object");
        json_object_foreach(entry, key, ignored)
        {
            if (!is_field(l->fields, key))
                return pr_fail(err, PR_EUSAGE, "%s: unknown field '%.64s'", where, key);
        }
        snprintf(where, sizeof where, "%s[%zu].", l->key, i);
        if ((rc = read_fields(entry, where, l->fields, (char *)p + l->offset + i * l->entry_bytes, err)))
            return rc;
    }
    memcpy((char *)p + l->n_offset, &n, sizeof n);
    return PR_OK;
}

static int read_mem(const json_t *v, profile *p, pr_err *err)
{
    size_t n = json_array_size(v);

    if (!json_is_array(v)) return wrong(err, "", "mem_bytes_per_s", "a list: with 1, 2, 3, ... threads");
    if (n > PROFILE_MAX_THREADS)
        return pr_fail(err, PR_EUSAGE, "mem_bytes_per_s: %zu entries, at most %d are allowed", n,
                       PROFILE_MAX_THREADS);
    for (size_t i = 0; i < n; i++) {
        double rate = json_number_value(json_array_get(v, i));
        if (!(rate >= 1 && rate <= 1e15))
            return pr_fail(err, PR_EUSAGE, "mem_bytes_per_s[%zu]: expected a number in 1..1e+15", i);
        p->mem_bytes_per_s[i] = rate;
    }
    p->n_mem = n;
    return PR_OK;
}

static int check_schema(const json_t *root, pr_err *err)
{
    const char *schema = json_string_value(json_object_get(root, "schema"));

    if (!json_is_object(root))
        return pr_fail(err, PR_EUSAGE, "expected a JSON object with \"schema\": \"" SCHEMA "\"");
    if (!schema) return pr_fail(err, PR_EUSAGE, "schema: the field is missing, expected \"" SCHEMA "\"");
    if (!strcmp(schema, SCHEMA)) return PR_OK;
    if (!strncmp(schema, SCHEMA, sizeof SCHEMA - 2))
        return pr_fail(err, PR_EUSAGE,
                       "schema: \"%.64s\" is another version of this format, this prima reads \"" SCHEMA
                       "\": measure again with `prima profile`",
                       schema);
    return pr_fail(err, PR_EUSAGE, "schema: expected \"" SCHEMA "\", found \"%.64s\"", schema);
}

static int check_keys(json_t *root, pr_err *err)
{
    const char *key;
    json_t *ignored;

    json_object_foreach(root, key, ignored)
    {
        bool known =
            !strcmp(key, "schema") || !strcmp(key, "mem_bytes_per_s") || is_field(device_fields, key);
        for (size_t i = 0; i < N_LISTS; i++) known = known || !strcmp(key, lists[i].key);
        if (!known) return pr_fail(err, PR_EUSAGE, "unknown field '%.64s'", key);
    }
    return PR_OK;
}

/* What single fields cannot show. */
static int check_whole(const profile *p, pr_err *err)
{
    if (p->ram_available_bytes > p->ram_total_bytes)
        return pr_fail(err, PR_EUSAGE, "ram_available_bytes: more than ram_total_bytes");
    for (size_t i = 0; i < p->n_gpus; i++) {
        if (p->gpu[i].vram_free_bytes > p->gpu[i].vram_total_bytes)
            return pr_fail(err, PR_EUSAGE, "gpus[%zu].vram_free_bytes: more than vram_total_bytes", i);
    }
    for (size_t i = 0; i < p->n_disk; i++) {
        if (strcmp(p->disk[i].pattern, "seq") && strcmp(p->disk[i].pattern, "rand"))
            return pr_fail(err, PR_EUSAGE, "disk[%zu].pattern: expected \"seq\" or \"rand\"", i);
    }
    for (size_t i = 0; i < p->n_compute; i++) {
        const profile_compute *a = &p->compute[i];
        if (a->gpu >= (int)p->n_gpus)
            return pr_fail(err, PR_EUSAGE, "compute[%zu].gpu: %d, but the profile lists %zu GPUs", i, a->gpu,
                           p->n_gpus);
        for (size_t j = 0; j < i; j++) {
            const profile_compute *b = &p->compute[j];
            if (a->gpu == b->gpu && a->batch == b->batch && !strcasecmp(a->type, b->type))
                return pr_fail(err, PR_EUSAGE, "compute[%zu]: type, batch and gpu of compute[%zu] again", i,
                               j);
        }
    }
    return PR_OK;
}

static int read_all(json_t *root, profile *p, pr_err *err)
{
    int rc = check_schema(root, err);

    if (!rc) rc = check_keys(root, err);
    if (!rc) rc = read_fields(root, "", device_fields, p, err);
    for (size_t i = 0; i < PROFILE_MAX_COMPUTE; i++) p->compute[i].gpu = -1;
    for (size_t i = 0; i < N_LISTS && !rc; i++) {
        const json_t *v = json_object_get(root, lists[i].key);
        if (v) rc = read_list(v, &lists[i], p, err);
    }
    if (!rc && json_object_get(root, "mem_bytes_per_s"))
        rc = read_mem(json_object_get(root, "mem_bytes_per_s"), p, err);
    return rc ? rc : check_whole(p, err);
}

int profile_parse(profile **out, const char *text, size_t n, pr_err *err)
{
    pr_err local = {0};
    json_t *root = json_parse(text, n, &local);
    profile *p;
    int rc;

    if (!root) return pr_fail(err, local.code, "%s", local.msg);
    p = calloc(1, sizeof *p);
    rc = p ? read_all(root, p, err) : pr_fail(err, PR_ERESOURCE, "out of memory");
    json_decref(root);
    if (rc) {
        profile_free(p);
        return rc;
    }
    hash_sha256_hex(text, n, p->sha256);
    *out = p;
    return PR_OK;
}

int profile_read(profile **out, const char *path, pr_err *err)
{
    char *text;
    size_t n;
    int rc = file_slurp(&text, &n, path, PROFILE_MAX_BYTES, err);

    if (rc) return rc;
    rc = profile_parse(out, text, n, err);
    if (rc) pr_wrap(err, "%s", path);
    free(text);
    return rc;
}

void profile_free(profile *p)
{
    free(p);
}

/* --- writing -------------------------------------------------------------------------------------------- */
static json_t *value_json(const field *f, const void *src)
{
    uint32_t u32;
    uint64_t u64;
    double real;
    bool flag;
    int gpu;

    switch (f->kind) {
    case TEXT: return json_string(src);
    case UINT32: memcpy(&u32, src, sizeof u32); return json_integer((json_int_t)u32);
    case UINT64: memcpy(&u64, src, sizeof u64); return json_integer((json_int_t)u64);
    case REAL: memcpy(&real, src, sizeof real); return json_real(real);
    case BOOL: memcpy(&flag, src, sizeof flag); return json_boolean(flag);
    case GPU_OR_CPU: memcpy(&gpu, src, sizeof gpu); return json_integer(gpu);
    }
    return NULL;
}

/* What says nothing is left out: an empty text, "not a GPU". */
static bool is_absent(const field *f, const void *src)
{
    int gpu;

    if (f->kind == TEXT) return !*(const char *)src;
    if (f->kind != GPU_OR_CPU) return false;
    memcpy(&gpu, src, sizeof gpu);
    return gpu < 0;
}

/* Put the fields of a struct into object; false: out of memory, or a value that JSON cannot hold. */
static bool put_fields(json_t *object, const field *fields, const void *base)
{
    for (const field *f = fields; f->key; f++) {
        const char *src = (const char *)base + f->offset;
        if (!is_absent(f, src) && json_object_set_new(object, f->key, value_json(f, src))) return false;
    }
    return true;
}

static json_t *to_json(const profile *p)
{
    json_t *root = json_object(), *mem = json_array();
    bool ok = root && !json_object_set_new(root, "schema", json_string(SCHEMA)) &&
              put_fields(root, device_fields, p);

    for (size_t i = 0; i < p->n_mem && ok; i++)
        ok = !json_array_append_new(mem, json_real(p->mem_bytes_per_s[i]));
    ok = !json_object_set_new(root, "mem_bytes_per_s", mem) && ok;
    for (size_t i = 0; i < N_LISTS && ok; i++) {
        const list *l = &lists[i];
        json_t *entries = json_array();
        size_t n;
        memcpy(&n, (const char *)p + l->n_offset, sizeof n);
        ok = !json_object_set_new(root, l->key, entries);
        for (size_t j = 0; j < n && ok; j++) {
            json_t *entry = json_object();
            ok = entry && put_fields(entry, l->fields, (const char *)p + l->offset + j * l->entry_bytes);
            ok = !json_array_append_new(entries, entry) && ok;
        }
    }
    if (ok) return root;
    json_decref(root);
    return NULL;
}

/* A value in one line; a list of objects in one line per entry. */
static bool print_value(FILE *f, const json_t *v)
{
    size_t n = json_array_size(v);
    char *line;

    if (!n || !json_is_object(json_array_get(v, 0))) {
        if (!(line = json_line(v))) return false;
        fputs(line, f);
        free(line);
        return true;
    }
    for (size_t i = 0; i < n; i++) {
        if (!(line = json_line(json_array_get(v, i)))) return false;
        fprintf(f, "%s\n    %s", i ? "," : "[", line);
        free(line);
    }
    fputs("\n  ]", f);
    return true;
}

static bool print_object(FILE *f, json_t *root)
{
    const char *key, *before = "{";
    json_t *v;

    json_object_foreach(root, key, v)
    {
        fprintf(f, "%s\n  \"%s\": ", before, key);
        if (!print_value(f, v)) return false;
        before = ",";
    }
    fputs("\n}\n", f);
    return true;
}

/* The text of the file in memory; *text is the caller's. */
static int print_profile(const profile *p, char **text, size_t *n, pr_err *err)
{
    json_t *root = to_json(p);
    FILE *f;
    bool ok;

    *text = NULL;
    if (!root)
        return pr_fail(err, PR_EINTERNAL,
                       "profile of '%s': a text that is not UTF-8 or a rate that is no "
                       "number",
                       p->device);
    f = open_memstream(text, n);
    ok = f && print_object(f, root);
    if (f && fclose(f)) ok = false;
    json_decref(root);
    return ok ? PR_OK : pr_fail(err, PR_ERESOURCE, "profile of '%s': out of memory", p->device);
}

int profile_write(const profile *p, const char *path, pr_err *err)
{
    char *text = NULL;
    size_t n = 0;
    profile *again = NULL;
    int rc = print_profile(p, &text, &n, err);

    /* Never leave a file behind that the reader refuses. */
    if (!rc && (rc = profile_parse(&again, text, n, err))) pr_wrap(err, "%s: not written", path);
    if (!rc) rc = file_write_atomic(path, text, n, err);
    profile_free(again);
    free(text);
    return rc;
}
