/* The head's side of shipping; see ship.h. */
#include "src/base/hash.h"
#include "src/base/log.h"
#include "src/model/gguf_holes.h"
#include "src/model/gguf_mark.h"
#include "src/run/ship.h"
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

struct ship_source {
    const gguf *g;
    const char *header_sha256;
    pthread_mutex_t mutex;          /* of what follows */
    gguf_holes *holes;              /* the head's own file may be a part of the model */
    char (*sha256)[HASH_HEX_BYTES]; /* [n_tensors] "" until somebody has asked */
    char (*mark)[GGUF_MARK_BYTES];
};

/* Who starts a long job should know before it what cannot be done in it. */
static void warn_of_holes(const ship_source *s)
{
    size_t i = 0, n = gguf_n_tensors(s->g);
    char *layers;

    while (i < n && gguf_holes_has(s->holes, i)) i++;
    if (i == n) return;
    layers = gguf_holes_layers(s->holes);
    log_warn(
        "%s holds only these layers: %s. Workers need their own parts of the model, and no other device can "
        "take over the layers of one that is lost for good",
        gguf_part_path(s->g, 0), layers ? layers : "?");
    free(layers);
}

int ship_source_new(ship_source **out, const model *m, pr_err *err)
{
    size_t n = gguf_n_tensors(m->g) + 1;
    ship_source *s = calloc(1, sizeof *s);
    int rc;

    if (!s) return pr_fail(err, PR_ERESOURCE, "out of memory");
    s->g = m->g;
    s->header_sha256 = m->header_sha256;
    s->sha256 = calloc(n, sizeof *s->sha256);
    s->mark = calloc(n, sizeof *s->mark);
    pthread_mutex_init(&s->mutex, NULL);
    rc = s->sha256 && s->mark ? gguf_holes_open(&s->holes, m->g, err)
                              : pr_fail(err, PR_ERESOURCE, "out of memory");
    if (rc) {
        ship_source_free(s);
        return rc;
    }
    warn_of_holes(s);
    *out = s;
    return PR_OK;
}

void ship_source_free(ship_source *s)
{
    if (!s) return;
    pthread_mutex_destroy(&s->mutex);
    gguf_holes_close(s->holes);
    free(s->sha256);
    free(s->mark);
    free(s);
}

static bool is_there(ship_source *s, size_t i)
{
    pthread_mutex_lock(&s->mutex);
    bool there = gguf_holes_has(s->holes, i);
    pthread_mutex_unlock(&s->mutex);
    return there;
}

/* --- what was asked for --------------------------------------------------------------------------------- */
static int not_a_need(const control *k, const char *what, pr_err *err)
{
    return pr_fail(err, PR_EPEER, "%s: control message 'need': %s", control_peer(k), what);
}

static bool is_index(const ship_source *s, const json_t *v)
{
    return json_is_integer(v) && json_integer_value(v) >= 0 &&
           (uint64_t)json_integer_value(v) < gguf_n_tensors(s->g);
}

static int lacks_tensor(const ship_source *s, size_t i, pr_err *err)
{
    const gguf_tensor *t = gguf_tensor_at(s->g, i);

    return pr_fail(
        err, PR_EINTEGRITY,
        "it needs tensor %s, which is not in the head's own file %s (a part of the model): give the "
        "head the whole model, or that device its own part (prima pull --plan)",
        t->name, gguf_part_path(s->g, t->part));
}

/* Everything is looked at before anything is sent; no tensor twice, so the answer is bounded. */
static int check_need(ship_source *s, const control *k, const json_t *need, pr_err *err)
{
    const json_t *tensors = json_object_get(need, "tensors"), *held = json_object_get(need, "held");
    size_t n = gguf_n_tensors(s->g);
    bool *seen;
    int rc = PR_OK;

    if (!json_is_boolean(json_object_get(need, "header")) || !json_is_array(tensors) || !json_is_array(held))
        return not_a_need(k, "expected header, tensors and held", err);
    if (json_array_size(tensors) > n || json_array_size(held) > n)
        return not_a_need(k, "more tensors than the model has", err);
    if (!(seen = calloc(n + 1, sizeof *seen))) return pr_fail(err, PR_ERESOURCE, "out of memory");
    for (size_t i = 0; i < json_array_size(tensors) && !rc; i++) {
        const json_t *v = json_array_get(tensors, i);
        if (!is_index(s, v)) rc = not_a_need(k, "not a tensor of the model", err);
        else if (seen[json_integer_value(v)]) rc = not_a_need(k, "a tensor twice", err);
        else if (!is_there(s, (size_t)json_integer_value(v)))
            rc = lacks_tensor(s, (size_t)json_integer_value(v), err);
        else seen[json_integer_value(v)] = true;
    }
    for (size_t i = 0; i < json_array_size(held) && !rc; i++) {
        const json_t *pair = json_array_get(held, i);
        if (!is_index(s, json_array_get(pair, 0)) || !json_is_string(json_array_get(pair, 1)))
            rc = not_a_need(k, "expected pairs of tensor and mark", err);
    }
    free(seen);
    return rc;
}

/* --- answering -------------------------------------------------------------------------------------------
 */
static int send_header(const ship_source *s, control *k, pr_err *err)
{
    size_t n, total = 0, at = 0, n_parts = gguf_n_parts(s->g);
    uint8_t *all;
    int rc;

    for (size_t i = 0; i < n_parts; i++, total += n) gguf_header(s->g, i, &n);
    if (!(all = malloc(total))) return pr_fail(err, PR_ERESOURCE, "out of memory");
    for (size_t i = 0; i < n_parts; i++, at += n) {
        const void *p = gguf_header(s->g, i, &n);
        memcpy(all + at, p, n);
    }
    rc = control_send_bulk(k,
                           json_pack("{s:s, s:i, s:I, s:s}", "type", "have", "tensor", SHIP_HEADER, "bytes",
                                     (json_int_t)total, "sha256", s->header_sha256),
                           all, total, err);
    free(all);
    return rc;
}

/* Once for all workers; they wait for each other here, since they would wait for the same disk anyway. */
static void digest(ship_source *s, size_t i, char out[HASH_HEX_BYTES])
{
    const gguf_tensor *t = gguf_tensor_at(s->g, i);

    pthread_mutex_lock(&s->mutex);
    if (!s->sha256[i][0]) hash_sha256_hex(t->data, (size_t)t->n_bytes, s->sha256[i]);
    memcpy(out, s->sha256[i], HASH_HEX_BYTES);
    pthread_mutex_unlock(&s->mutex);
}

static int send_tensor(ship_source *s, control *k, size_t i, pr_err *err)
{
    const gguf_tensor *t = gguf_tensor_at(s->g, i);
    char sha[HASH_HEX_BYTES];
    int rc;

    digest(s, i, sha);
    rc = control_send_bulk(k,
                           json_pack("{s:s, s:I, s:I, s:s}", "type", "have", "tensor", (json_int_t)i, "bytes",
                                     (json_int_t)t->n_bytes, "sha256", sha),
                           t->data, (size_t)t->n_bytes, err);
    gguf_drop_pages(t->data, (size_t)t->n_bytes); /* the head itself has no use for it */
    return rc;
}

/* What is not in the head's file cannot tell models apart. */
static bool has_mark(ship_source *s, size_t i, const char *mark)
{
    if (!is_there(s, i)) return true;
    pthread_mutex_lock(&s->mutex);
    if (!s->mark[i][0]) gguf_mark(gguf_tensor_at(s->g, i), s->mark[i]);
    bool same = strcmp(s->mark[i], mark) == 0;
    pthread_mutex_unlock(&s->mutex);
    return same;
}

/* The tensors that the worker holds and that are not ours. NULL: out of memory. */
static json_t *find_differing(ship_source *s, const json_t *held)
{
    json_t *differs = json_array();

    for (size_t i = 0; i < json_array_size(held); i++) {
        const json_t *pair = json_array_get(held, i), *index = json_array_get(pair, 0);
        if (has_mark(s, (size_t)json_integer_value(index), json_string_value(json_array_get(pair, 1))))
            continue;
        json_array_append_new(differs, json_integer(json_integer_value(index)));
    }
    return differs;
}

int ship_answer(ship_source *s, control *k, const json_t *need, pr_err *err)
{
    const json_t *tensors = json_object_get(need, "tensors");
    json_t *differs;
    int rc = check_need(s, k, need, err);

    if (rc) return rc;
    if (!(differs = find_differing(s, json_object_get(need, "held"))))
        return pr_fail(err, PR_ERESOURCE, "out of memory");
    if (!json_array_size(differs)) {
        if (json_is_true(json_object_get(need, "header"))) rc = send_header(s, k, err);
        for (size_t i = 0; i < json_array_size(tensors) && !rc; i++)
            rc = send_tensor(s, k, (size_t)json_integer_value(json_array_get(tensors, i)), err);
    }
    if (rc) json_decref(differs);
    else rc = control_send(k, json_pack("{s:s, s:o}", "type", "had", "differs", differs), err);
    return rc;
}
