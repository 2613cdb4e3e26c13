/* The manifest: {"schema", "run_id", "input", what the caller says must agree, "info", "started_at",
 * "resumed_at", "forced"}.
 *
 * "info" is only noted. What must agree is compared key by key, down to the value that differs, so that the
 * user reads "options.ctx is 4096 there and 2048 now". */
#include "src/run/manifest.h"
#include "src/base/clock.h"
#include "src/base/file.h"
#include "src/base/hash.h"
#include "src/run/text.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SCHEMA "prima/manifest/1"
enum { MAX_BYTES = 16 << 20 };

int manifest_run_id(char id[RUN_ID_BYTES], const output_options *o, const prompts *p, pr_err *err)
{
    char *facts = json_line(o->manifest), unique[64] = "", hex[2 * HASH_HEX_BYTES];

    if (!facts) return pr_fail(err, PR_ERESOURCE, "manifest: out of memory");
    hash_sha256_hex(facts, strlen(facts), hex);
    free(facts);
    if (o->created_s) snprintf(unique, sizeof unique, "%" PRIu64 " %ld", clock_ns(), (long)getpid());
    snprintf(hex + HASH_HEX_BYTES - 1, HASH_HEX_BYTES, "%s", prompts_sha256(p));
    snprintf(id, RUN_ID_BYTES, "%012" PRIx64,
             (hash_seed(0, hex) ^ (*unique ? hash_seed(1, unique) : 0)) & 0xFFFFFFFFFFFF);
    return PR_OK;
}

static json_t *now(void)
{
    char text[CLOCK_RFC3339_BYTES];

    clock_rfc3339(text);
    return json_string(text);
}

/* --- writing --------------------------------------------------------------------------------- */

/* Takes over started_at, resumed_at and forced. */
static int save(const char *path, const char *run_id, const output_options *o, const prompts *p,
                json_t *started_at, json_t *resumed_at, json_t *forced, pr_err *err)
{
    json_t *m = json_pack("{s:s,s:s,s:{s:o,s:I,s:s}}", "schema", SCHEMA, "run_id", run_id, "input", "path",
                          text_json(o->input_path, strlen(o->input_path)), "bytes",
                          (json_int_t)prompts_bytes(p), "sha256", prompts_sha256(p));
    json_t *end = json_pack("{s:O*,s:o,s:o,s:o}", "info", o->info, "started_at", started_at, "resumed_at",
                            resumed_at, "forced", forced);
    bool ok = m && end && !json_object_update(m, o->manifest) && !json_object_update(m, end);
    char *text = ok ? json_line(m) : NULL;
    int rc = text ? file_write_atomic(path, text, strlen(text), err)
                  : pr_fail(err, PR_ERESOURCE, "%s: out of memory", path);

    free(text);
    json_decref(m);
    json_decref(end);
    return rc;
}

int manifest_start(const char *path, const char *run_id, const output_options *o, const prompts *p,
                   pr_err *err)
{
    return save(path, run_id, o, p, now(), json_array(), json_array(), err);
}

/* --- comparing ------------------------------------------------------------------------------- */

/* Where two values differ, and what stands there. */
typedef struct {
    char where[160], then[64], now[64];
} difference;

static void show(char out[64], const json_t *v)
{
    char *text = v ? json_line(v) : NULL;

    snprintf(out, 64, "%s", text ? text : "absent");
    text_trim(out);
    free(text);
}

static bool differ(difference *d, const char *where, const json_t *then, const json_t *present);

/* The keys of both objects, those of `keys_of` first to last. */
static bool differ_in_keys(difference *d, const char *where, const json_t *then, const json_t *present,
                           const json_t *keys_of)
{
    json_t *object = (json_t *)keys_of; /* jansson's iterators take no const; nothing is changed */
    char inner[160];

    for (void *it = json_object_iter(object); it; it = json_object_iter_next(object, it)) {
        const char *key = json_object_iter_key(it);
        snprintf(inner, sizeof inner, "%s%s%s", where, *where ? "." : "", key);
        if (differ(d, inner, json_object_get(then, key), json_object_get(present, key))) return true;
    }
    return false;
}

static bool differ(difference *d, const char *where, const json_t *then, const json_t *present)
{
    if (json_is_object(then) && json_is_object(present))
        return differ_in_keys(d, where, then, present, present) ||
               differ_in_keys(d, where, then, present, then);
    if (then && present && json_equal(then, present)) return false;
    snprintf(d->where, sizeof d->where, "%s", where);
    text_trim(d->where);
    show(d->then, then);
    show(d->now, present);
    return true;
}

/* The facts of a manifest: without the keys that are ours. */
static json_t *facts_of(const json_t *manifest)
{
    static const char *const ours[] = {"schema",     "run_id",     "input", "info",
                                       "started_at", "resumed_at", "forced"};
    json_t *facts = json_copy((json_t *)manifest);

    for (size_t i = 0; facts && i < sizeof ours / sizeof *ours; i++) json_object_del(facts, ours[i]);
    return facts;
}

static bool find_difference(difference *d, const json_t *manifest, const output_options *o, const prompts *p)
{
    json_t *then = json_object_get(json_object_get(manifest, "input"), "sha256");
    json_t *sha = json_string(prompts_sha256(p)), *facts = facts_of(manifest);
    bool differs = differ(d, "input.sha256", then, sha) || differ(d, "", facts, o->manifest);

    json_decref(sha);
    json_decref(facts);
    return differs;
}

/* --- resuming -------------------------------------------------------------------------------- */

/* *m is NULL when there is none, or none that can be used. */
static int load(json_t **m, const char *path, pr_err *err)
{
    char *text;
    size_t n;
    int rc;
    const char *schema, *id;
    pr_err syntax = {0};

    *m = NULL;
    if (access(path, F_OK))
        return pr_fail(err, PR_EMISMATCH, "%s is missing: nothing says which run this was", path);
    if ((rc = file_slurp(&text, &n, path, MAX_BYTES, err))) return rc;
    *m = json_parse(text, n, &syntax);
    free(text);
    if (!*m) return pr_fail(err, PR_EMISMATCH, "%s: %s", path, syntax.msg);
    schema = json_string_value(json_object_get(*m, "schema"));
    id = json_string_value(json_object_get(*m, "run_id"));
    if (schema && !strcmp(schema, SCHEMA) && id && strlen(id) == RUN_ID_BYTES - 1) return PR_OK;
    json_decref(*m);
    *m = NULL;
    return pr_fail(err, PR_EMISMATCH, "%s is not a manifest of this version (schema %s expected)", path,
                   SCHEMA);
}

/* An array of the old manifest, with one more string; a new one when it has none. */
static json_t *array_with(const json_t *manifest, const char *key, json_t *more)
{
    json_t *old = json_object_get(manifest, key), *a = json_is_array(old) ? json_incref(old) : json_array();

    if (more && json_array_append_new(a, more)) {
        json_decref(a);
        return NULL;
    }
    return a;
}

static int force_new(const char *path, char id[RUN_ID_BYTES], const output_options *o, const prompts *p,
                     pr_err *err)
{
    int rc = manifest_run_id(id, o, p, err);

    if (rc) return rc;
    return save(path, id, o, p, now(), json_array(), json_pack("[s]", "the manifest was missing or damaged"),
                err);
}

int manifest_resume(const char *path, char id[RUN_ID_BYTES], const output_options *o, const prompts *p,
                    pr_err *err)
{
    difference d;
    json_t *m, *started_at, *forced = NULL;
    pr_err why = {0};
    int rc = load(&m, path, &why);

    if (rc == PR_EMISMATCH && o->force_resume) return force_new(path, id, o, p, err);
    if (rc)
        return pr_fail(err, rc, "%s%s", why.msg,
                       rc == PR_EMISMATCH ? "; --force-resume goes on regardless" : "");
    if (find_difference(&d, m, o, p)) {
        if (!o->force_resume) {
            json_decref(m);
            return pr_fail(err, PR_EMISMATCH,
                           "%s: %s is %s there and %s now; repeat the run as it was, or --force-resume", path,
                           d.where, d.then, d.now);
        }
        forced = json_sprintf("%s was %s, became %s", d.where, d.then, d.now);
    }
    snprintf(id, RUN_ID_BYTES, "%s", json_string_value(json_object_get(m, "run_id")));
    started_at = json_object_get(m, "started_at");
    rc = save(path, id, o, p, started_at ? json_incref(started_at) : now(),
              array_with(m, "resumed_at", now()), array_with(m, "forced", forced), err);
    json_decref(m);
    return rc;
}
