/* A device's job; see job.h. */
#include "src/run/job.h"
#include "kernels/cuda/device.h"
#include "src/model/pieces.h"
#include <stdlib.h>
#include <string.h>

enum { MAX_TOKENS = 65536, MAX_SLOTS = 65536, MAX_PAGES = 1 << 24 };

static const char *const elem_name[] = {"", "f32", "f16", "bf16"};
static const char *const stream_name[] = {[STREAM_READ] = "streamed", [STREAM_MAP] = "mapped"};

static int take_gpu_window(job *j, const plan_window *w, pr_err *err)
{
    if (!j->gpu_part) j->gpu_part = calloc(job_device(j)->n_windows, sizeof *j->gpu_part);
    if (!j->gpu_part) return pr_fail(err, PR_ERESOURCE, "out of memory");
    j->gpu_part[j->n_gpu_parts++] =
        (engine_gpu_part){w->round, (int)w->gpu, w->last_layer - w->first_layer + 1};
    return PR_OK;
}

/* The layers of each round, which are one range: a device's windows of a round follow each other. */
static int take_windows(job *j, pr_err *err)
{
    const plan_device *d = job_device(j);

    j->window = calloc(j->plan->rounds, sizeof *j->window);
    j->streamed = calloc(j->plan->rounds, sizeof *j->streamed);
    if (!j->window || !j->streamed) return pr_fail(err, PR_ERESOURCE, "out of memory");
    for (size_t i = 0; i < d->n_windows; i++) {
        const plan_window *w = &d->window[i];
        layer_range *r = &j->window[w->round];
        if (w->place == PLACE_GPU && take_gpu_window(j, w, err)) return PR_ERESOURCE;
        if (w->place == PLACE_DISK && j->plan->pieces != LAYER_PIECES)
            return pr_fail(err, PR_EMISMATCH,
                           "%s: the plan cuts layers in %u pieces, this build in %d: plan again", d->name,
                           j->plan->pieces, LAYER_PIECES);
        if (r->first == r->end) r->first = w->first_layer;
        r->end = w->last_layer + 1;
        j->streamed[w->round] += w->streamed_pieces;
    }
    return PR_OK;
}

int job_new(job **out, const char *plan_text, size_t n, uint32_t rank, const job_sizes *sizes, pr_err *err)
{
    job *j = calloc(1, sizeof *j);
    int rc;

    if (!j) return pr_fail(err, PR_ERESOURCE, "out of memory");
    j->sizes = *sizes;
    j->rank = rank;
    rc = plan_parse(&j->plan, plan_text, n, "plan", err);
    if (!rc && rank >= j->plan->n_devices)
        rc = pr_fail(err, PR_EMISMATCH, "rank %u of a plan with %zu devices", rank, j->plan->n_devices);
    if (!rc && !kv_type_parse(j->plan->kv_type, &j->kv))
        rc = pr_fail(err, PR_EMISMATCH, "the plan's KV type '%s' is not known", j->plan->kv_type);
    if (!rc) rc = take_windows(j, err);
    if (rc) job_free(j);
    else *out = j;
    return rc;
}

void job_free(job *j)
{
    if (!j) return;
    plan_free(j->plan);
    free(j->window);
    free(j->streamed);
    free(j->gpu_part);
    free(j);
}

int job_check_gpus(const job *j, pr_err *err)
{
    const plan_device *d = job_device(j);
    pr_err why = {0};
    int n = j->n_gpu_parts ? gpu_count(&why) : 0;

    for (size_t i = 0; i < d->n_windows; i++) {
        const plan_window *w = &d->window[i];
        if (w->place != PLACE_GPU || (n && w->gpu < (unsigned)n)) continue;
        if (n) pr_fail(&why, PR_ERESOURCE, "this machine has GPUs 0 to %d, not %u", n - 1, w->gpu);
        return pr_fail(err, PR_EMISMATCH,
                       "%s: the plan puts layers %u to %u on the GPU, which cannot be done here: %s: plan "
                       "without GPUs",
                       d->name, w->first_layer, w->last_layer, why.msg);
    }
    return PR_OK;
}

bool job_is_same(const job *a, const job *b)
{
    const job_sizes *x = &a->sizes, *y = &b->sizes;

    return strcmp(a->plan->plan_sha256, b->plan->plan_sha256) == 0 && a->rank == b->rank &&
           strcmp(x->token, y->token) == 0 && x->max_tokens == y->max_tokens &&
           x->merge_tokens == y->merge_tokens && x->max_out == y->max_out && x->n_pages == y->n_pages &&
           x->elem == y->elem && x->stream == y->stream;
}

const plan_device *job_device(const job *j)
{
    return &j->plan->device[j->rank];
}

wire_limits job_limits(const job *j, const hparams *hp)
{
    return (wire_limits){.n_embd = hp->n_embd,
                         .max_tokens = j->sizes.max_tokens,
                         .max_runs =
                             j->sizes.max_tokens < j->sizes.max_out ? j->sizes.max_tokens : j->sizes.max_out,
                         .max_out = j->sizes.max_out,
                         .n_pages = j->sizes.n_pages,
                         .ctx = j->plan->ctx,
                         .elem = j->sizes.elem};
}

/* --- as a message ------------------------------------------------------------------------------------ */
json_t *job_to_json(const char *plan_text, size_t n, uint32_t rank, const job_sizes *s)
{
    return json_pack("{s:s, s:I, s:s%, s:s, s:I, s:I, s:I, s:I, s:s, s:f, s:f, s:f, s:b, s:s}", "type", "job",
                     "rank", (json_int_t)rank, "plan", plan_text, n, "token", s->token, "max_tokens",
                     (json_int_t)s->max_tokens, "merge_tokens", (json_int_t)s->merge_tokens, "max_out",
                     (json_int_t)s->max_out, "n_pages", (json_int_t)s->n_pages, "wire", elem_name[s->elem],
                     "heartbeat_s", s->heartbeat_s, "peer_s", s->peer_s, "connect_s", s->connect_s, "trace",
                     s->trace, "stream", stream_name[s->stream]);
}

static int take_count(uint32_t *out, const json_t *m, const char *key, json_int_t least, json_int_t most,
                      pr_err *err)
{
    const json_t *v = json_object_get(m, key);

    if (!json_is_integer(v) || json_integer_value(v) < least || json_integer_value(v) > most)
        return pr_fail(err, PR_EPEER, "job: %s: expected a number from %lld to %lld", key, (long long)least,
                       (long long)most);
    *out = (uint32_t)json_integer_value(v);
    return PR_OK;
}

static int take_seconds(double *out, const json_t *m, const char *key, pr_err *err)
{
    const json_t *v = json_object_get(m, key);

    if (!json_is_number(v) || !(json_number_value(v) > 0) || json_number_value(v) > 1e6)
        return pr_fail(err, PR_EPEER, "job: %s: expected seconds", key);
    *out = json_number_value(v);
    return PR_OK;
}

static int take_bool(bool *out, const json_t *m, const char *key, pr_err *err)
{
    const json_t *v = json_object_get(m, key);

    if (!json_is_boolean(v)) return pr_fail(err, PR_EPEER, "job: %s: expected true or false", key);
    *out = json_is_true(v);
    return PR_OK;
}

static int take_text(char *out, size_t cap, const json_t *m, const char *key, pr_err *err)
{
    const json_t *v = json_object_get(m, key);
    size_t n = json_string_length(v);

    if (!json_is_string(v) || n >= cap || strlen(json_string_value(v)) != n)
        return pr_fail(err, PR_EPEER, "job: %s: expected a text below %zu bytes", key, cap);
    memcpy(out, json_string_value(v), n + 1);
    return PR_OK;
}

static int take_elem(frame_elem *out, const json_t *m, pr_err *err)
{
    char name[8];
    int rc = take_text(name, sizeof name, m, "wire", err);

    if (rc) return rc;
    for (int i = FRAME_F32; i <= FRAME_BF16; i++) {
        if (strcmp(name, elem_name[i])) continue;
        *out = (frame_elem)i;
        return PR_OK;
    }
    return pr_fail(err, PR_EPEER, "job: wire: expected f32, f16 or bf16");
}

static int take_stream(stream_kind *out, const json_t *m, pr_err *err)
{
    char name[16];
    int rc = take_text(name, sizeof name, m, "stream", err);

    if (rc) return rc;
    for (int i = STREAM_READ; i <= STREAM_MAP; i++) {
        if (strcmp(name, stream_name[i])) continue;
        *out = (stream_kind)i;
        return PR_OK;
    }
    return pr_fail(err, PR_EPEER, "job: stream: expected streamed or mapped");
}

int job_from_json(job **out, const json_t *m, pr_err *err)
{
    const json_t *text = json_object_get(m, "plan");
    job_sizes s = {0};
    uint32_t rank;
    job *j;
    int rc;

    if (!json_is_string(text)) return pr_fail(err, PR_EPEER, "job: no plan");
    if ((rc = take_text(s.token, sizeof s.token, m, "token", err)) ||
        (rc = take_count(&rank, m, "rank", 1, CLUSTER_MAX_DEVICES - 1, err)) ||
        (rc = take_count(&s.max_tokens, m, "max_tokens", 1, MAX_TOKENS, err)) ||
        (rc = take_count(&s.merge_tokens, m, "merge_tokens", s.max_tokens, MAX_TOKENS, err)) ||
        (rc = take_count(&s.max_out, m, "max_out", 1, MAX_SLOTS, err)) ||
        (rc = take_count(&s.n_pages, m, "n_pages", 1, MAX_PAGES, err)) || (rc = take_elem(&s.elem, m, err)) ||
        (rc = take_seconds(&s.heartbeat_s, m, "heartbeat_s", err)) ||
        (rc = take_seconds(&s.peer_s, m, "peer_s", err)) ||
        (rc = take_seconds(&s.connect_s, m, "connect_s", err)) ||
        (rc = take_bool(&s.trace, m, "trace", err)) || (rc = take_stream(&s.stream, m, err)))
        return rc;
    if ((rc = job_new(&j, json_string_value(text), json_string_length(text), rank, &s, err))) return rc;
    if ((rc = job_check_gpus(j, err))) job_free(j);
    else *out = j;
    return rc;
}

int job_send_join(const job *j, channel *c, uint64_t session, uint64_t deadline_ns, pr_err *err)
{
    uint8_t room[FRAME_HEADER_BYTES + JOB_TOKEN_BYTES];
    uint32_t n = (uint32_t)strlen(j->sizes.token);
    frame f = {
        .type = FRAME_JOIN, .rank = (uint16_t)j->rank, .session = session, .extra = n, .payload_bytes = n};

    memcpy(room + FRAME_HEADER_BYTES, j->sizes.token, n);
    return frame_send(c, room, &f, deadline_ns, err);
}
