/* A device in a run; see device.h. */
#include "src/run/device.h"
#include "src/base/log.h"
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum {
    PARCELS = 4
}; /* two wait in the mailbox, one is computed, one leaves; the head has room for every micro-batch
    * besides, so that it never stops reading while it hands one out */

struct device {
    const job *j;
    const model *m;
    uint32_t *streamed; /* [rounds] */
    engine *e;
    stage *s;
    wire_limits limits;
    size_t depth; /* of the head; 0 */
    parcels *incoming, *outgoing;
    pthread_mutex_t mutex; /* of what a ring has, which device_break reads from other threads */
    mailbox *in;
    channel *from, *to;
    link_in *link_in;
    link_out *link_out;
    link_counts received, sent; /* of rings that are gone */
};

static int check_model(const job *j, const model *m, pr_err *err)
{
    if (strcmp(j->plan->model.header_sha256, m->header_sha256))
        return pr_fail(
            err, PR_EMISMATCH,
            "the plan is for a model with header %.12s, this file has %.12s: plan again or give the "
            "right file",
            j->plan->model.header_sha256, m->header_sha256);
    if (j->plan->model.n_layers != m->hp.n_layers)
        return pr_fail(err, PR_EMISMATCH, "the plan shares out %u layers, the model has %u: plan again",
                       j->plan->model.n_layers, m->hp.n_layers);
    return PR_OK;
}

/* Pieces are whole groups of rows and so may take a little more than the plan's equal ones: then some more of
 * them are streamed. A device that has all its layers in memory never begins to stream by itself. */
static int fit_budget(device *d, engine_options *eo, pr_err *err)
{
    const plan_device *p = job_device(d->j);
    uint64_t need = engine_need(d->m, eo).total;

    if (need <= p->bytes.budget_ram) return PR_OK;
    if (p->buffer_pieces) return engine_fit(d->m, eo, d->streamed, p->bytes.budget_ram, err);
    return pr_fail(err, PR_ERESOURCE, "%s: %llu bytes are needed, the plan's budget is %llu", p->name,
                   (unsigned long long)need, (unsigned long long)p->bytes.budget_ram);
}

/* What the plan lets it take of each GPU. */
static size_t gpu_caps(engine_gpu_cap cap[CLUSTER_MAX_GPUS], const plan_device *p)
{
    for (size_t i = 0; i < p->n_gpus; i++)
        cap[i] = (engine_gpu_cap){(int)p->gpu[i].index, p->gpu[i].vram_bytes};
    return p->n_gpus;
}

/* As it was measured on this device, within the limits given here. */
static disk_read_options reader_of(const job *j, const device_options *o)
{
    disk_read_options r = o->disk;
    const char *words = job_device(j)->reader;

    if (*words && !disk_read_parse(&r, words))
        log_warn("%s: the plan's reader '%s' is not known here: the usual one is taken", job_device(j)->name,
                 words);
    return r;
}

static int load(device *d, const device_options *o, pr_err *err)
{
    const job *j = d->j;
    uint32_t rounds = j->plan->rounds;
    engine_gpu_cap cap[CLUSTER_MAX_GPUS];
    engine_options eo = {.isa = o->isa,
                         .n_threads = o->n_threads ? o->n_threads : (int)job_device(j)->threads,
                         .kv = j->kv,
                         .n_pages = j->sizes.n_pages,
                         .max_tokens = j->sizes.merge_tokens,
                         .max_out = j->rank ? 0 : j->sizes.max_out,
                         .window = j->window,
                         .n_windows = rounds,
                         .is_worker = j->rank > 0,
                         .buffer_pieces = job_device(j)->buffer_pieces,
                         .stream = j->sizes.stream,
                         .disk = reader_of(j, o),
                         .pack_dir = o->pack_dir,
                         .gpu_part = j->gpu_part,
                         .n_gpu_parts = j->n_gpu_parts,
                         .output_on_gpu = job_device(j)->output_on_gpu,
                         .output_gpu = j->n_gpu_parts ? j->gpu_part[0].gpu : 0,
                         .gpu_cap = cap,
                         .n_gpu_caps = gpu_caps(cap, job_device(j)),
                         .max_positions = j->plan->ctx};
    int rc;

    if (!(d->streamed = calloc(rounds, sizeof *d->streamed)))
        return pr_fail(err, PR_ERESOURCE, "out of memory");
    memcpy(d->streamed, j->streamed, rounds * sizeof *d->streamed);
    eo.streamed = d->streamed;
    rc = fit_budget(d, &eo, err);
    return rc ? rc : engine_new(&d->e, d->m, &eo, err);
}

static int make_stage(device *d, pr_err *err)
{
    const job *j = d->j;
    uint32_t n = (uint32_t)j->plan->n_devices;
    stage_options so = {.e = d->e,
                        .window = j->window,
                        .n_rounds = j->plan->rounds,
                        .n_layers = d->m->hp.n_layers,
                        .rank = (uint16_t)j->rank,
                        .previous = (uint16_t)((j->rank + n - 1) % n),
                        .n_ranks = (uint16_t)n,
                        .limits = d->limits,
                        .merge_tokens = j->sizes.merge_tokens,
                        .trace = j->sizes.trace};
    return stage_new(&d->s, &so, err);
}

static size_t payload_bytes(const device *d)
{
    return wire_max_bytes(&d->limits) + stage_walk_bytes(d->j->plan->n_devices, d->j->plan->rounds);
}

/* Frames say how long they are in 32 bits. */
static int check_frames(const device *d, pr_err *err)
{
    const wire_limits *l = &d->limits;
    uint64_t values = (uint64_t)l->max_tokens * l->n_embd;

    if (values <= UINT32_MAX / sizeof(float) && payload_bytes(d) <= UINT32_MAX) return PR_OK;
    return pr_fail(
        err, PR_ERESOURCE,
        "a micro-batch of %u tokens (%u embeddings, %u sequences, a context of %u) is too large for "
        "a frame: lower --micro-batch, or the plan's slots or context",
        l->max_tokens, l->n_embd, l->max_runs, l->ctx);
}

int device_new(device **out, const job *j, const model *m, const device_options *o, pr_err *err)
{
    device *d = calloc(1, sizeof *d);
    int rc;

    if (!d) return pr_fail(err, PR_ERESOURCE, "out of memory");
    d->j = j;
    d->m = m;
    d->limits = job_limits(j, &m->hp);
    d->depth = j->rank == 0 ? o->depth : 0;
    pthread_mutex_init(&d->mutex, NULL);
    if ((rc = check_model(j, m, err)) || (rc = check_frames(d, err)) || (rc = load(d, o, err)) ||
        (rc = make_stage(d, err)) ||
        (j->rank == 0 && (rc = parcels_new(&d->outgoing, o->depth, payload_bytes(d), err))))
        device_free(d);
    else *out = d;
    return rc;
}

void device_free(device *d)
{
    if (!d) return;
    device_part(d);
    parcels_delete(d->outgoing);
    stage_free(d->s);
    engine_free(d->e);
    free(d->streamed);
    pthread_mutex_destroy(&d->mutex);
    free(d);
}

/* --- the ring ------------------------------------------------------------------------------------------ */
static int open_ring(device *d, uint64_t session, pr_err *err)
{
    const plan *p = d->j->plan;
    size_t n = p->n_devices, rank = d->j->rank;
    const char *before = p->device[(rank + n - 1) % n].name, *after = p->device[(rank + 1) % n].name;
    frame_limits fl = {.max_payload_bytes = (uint32_t)payload_bytes(d),
                       .types = FRAME_BIT(FRAME_PASS) | FRAME_BIT(FRAME_WALK)};
    int rc;

    if ((rc = mailbox_new(&d->in, err)) ||
        (rc = parcels_new(&d->incoming, PARCELS + d->depth, payload_bytes(d), err)) ||
        (rc = link_in_start(&d->link_in, d->from, before, &fl, d->incoming, d->in, err)) ||
        (rc = link_out_start(&d->link_out, d->to, after, d->in, err)))
        return rc;
    if (d->j->sizes.trace) link_out_watch(d->link_out, stage_note_sent, d->s);
    stage_join(d->s, session, d->in, d->link_out);
    return PR_OK;
}

int device_join(device *d, uint64_t session, channel *from, channel *to, pr_err *err)
{
    int rc;

    device_part(d);
    pthread_mutex_lock(&d->mutex);
    d->from = from;
    d->to = to;
    rc = open_ring(d, session, err);
    pthread_mutex_unlock(&d->mutex);
    if (rc) device_part(d);
    return rc;
}

void device_break(device *d, const pr_err *why)
{
    pthread_mutex_lock(&d->mutex);
    if (d->in) mailbox_break(d->in, why);
    if (d->from) channel_shutdown(d->from);
    if (d->to) channel_shutdown(d->to);
    if (d->incoming) parcels_break(d->incoming);
    pthread_mutex_unlock(&d->mutex);
}

static link_counts add(link_counts a, link_counts b)
{
    return (link_counts){a.frames + b.frames, a.bytes + b.bytes, a.wait_ms + b.wait_ms};
}

void device_part(device *d)
{
    static const pr_err parted = {PR_EPEER, "the ring is taken apart"};

    device_break(d, &parted);
    pthread_mutex_lock(&d->mutex); /* the links' threads do not take it */
    if (d->link_in) d->received = add(d->received, link_in_counts(d->link_in));
    if (d->link_out) d->sent = add(d->sent, link_out_counts(d->link_out));
    link_in_stop(d->link_in);
    link_out_stop(d->link_out);
    mailbox_delete(d->in);
    channel_close(d->from);
    channel_close(d->to);
    parcels_delete(d->incoming);
    d->link_in = NULL;
    d->link_out = NULL;
    d->in = NULL;
    d->from = d->to = NULL;
    d->incoming = NULL;
    pthread_mutex_unlock(&d->mutex);
}

engine *device_engine(device *d)
{
    return d->e;
}

stage *device_stage(device *d)
{
    return d->s;
}

mailbox *device_mailbox(device *d)
{
    return d->in;
}

parcels *device_outgoing(device *d)
{
    return d->outgoing;
}

const wire_limits *device_limits(const device *d)
{
    return &d->limits;
}

link_counts device_received(device *d)
{
    pthread_mutex_lock(&d->mutex);
    link_counts c = d->link_in ? add(d->received, link_in_counts(d->link_in)) : d->received;
    pthread_mutex_unlock(&d->mutex);
    return c;
}

link_counts device_sent(device *d)
{
    pthread_mutex_lock(&d->mutex);
    link_counts c = d->link_out ? add(d->sent, link_out_counts(d->link_out)) : d->sent;
    pthread_mutex_unlock(&d->mutex);
    return c;
}
