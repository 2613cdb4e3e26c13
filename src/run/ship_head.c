/* The head's side of shipping; see ship.h. */
#include "src/base/hash.h"
#include "src/run/ship.h"
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum { SAMPLE_BYTES = 4096 };

struct ship_source {
    const gguf *g;
    const char *header_sha256;
    pthread_mutex_t mutex;          /* of the digests */
    char (*sha256)[HASH_HEX_BYTES]; /* [n_tensors] "" until somebody has asked */
    char (*mark)[SHIP_MARK_BYTES];
};

void ship_mark(const gguf_tensor *t, char out[SHIP_MARK_BYTES])
{
    uint64_t n = t->n_bytes < SAMPLE_BYTES ? t->n_bytes : SAMPLE_BYTES, at = (t->n_bytes - n) / 2;
    char sha[HASH_HEX_BYTES];

    hash_sha256_hex(t->data + at, (size_t)n, sha);
    memcpy(out, sha, SHIP_MARK_BYTES - 1);
    out[SHIP_MARK_BYTES - 1] = 0;
}

int ship_source_new(ship_source **out, const model *m, pr_err *err)
{
    size_t n = gguf_n_tensors(m->g) + 1;
    ship_source *s = calloc(1, sizeof *s);

    if (!s) return pr_fail(err, PR_ERESOURCE, "out of memory");
    s->g = m->g;
    s->header_sha256 = m->header_sha256;
    s->sha256 = calloc(n, sizeof *s->sha256);
    s->mark = calloc(n, sizeof *s->mark);
    pthread_mutex_init(&s->mutex, NULL);
    if (s->sha256 && s->mark) {
        *out = s;
        return PR_OK;
    }
    ship_source_free(s);
    return pr_fail(err, PR_ERESOURCE, "out of memory");
}

void ship_source_free(ship_source *s)
{
    if (!s) return;
    pthread_mutex_destroy(&s->mutex);
    free(s->sha256);
    free(s->mark);
    free(s);
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

/* Everything is looked at before anything is sent; no tensor twice, so the answer is bounded. */
static int check_need(const ship_source *s, const control *k, const json_t *need, pr_err *err)
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

static bool has_mark(ship_source *s, size_t i, const char *mark)
{
    pthread_mutex_lock(&s->mutex);
    if (!s->mark[i][0]) ship_mark(gguf_tensor_at(s->g, i), s->mark[i]);
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
