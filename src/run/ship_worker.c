/* The worker's side of shipping; see ship.h. */
#include "src/base/clock.h"
#include "src/base/hash.h"
#include "src/base/log.h"
#include "src/model/gguf_holes.h"
#include "src/model/gguf_mark.h"
#include "src/model/tensor_use.h"
#include "src/run/ship.h"
#include "src/run/ship_cache.h"
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum {
    HEADER_MAX_BYTES = 256 << 20, /* of the largest vocabularies, many times over */
    BATCH_BYTES = 128 << 20,      /* asked for at once: the head hears nothing else meanwhile */
    TRIES = 3
};

typedef struct {
    const ship_wish *w;
    control *k;
    ship_cache *cache; /* NULL: the model is the device's own file */
    const gguf *g;
    bool *wanted;   /* [n_tensors] */
    bool *asked;    /* [n_tensors] and not answered yet */
    bool checked;   /* the head has seen our marks */
    bool another;   /* and says that they are of another model ... */
    size_t differs; /* ... at this tensor */
    pr_err failed;  /* our own trouble while a batch comes: the rest of it is let pass, so that
                     * the connection stays in step and the head can be told */
    uint64_t start_ns, to_come_bytes;
    ship_counts count;
} shipment;

/* --- messages ------------------------------------------------------------------------------------------ */
static int end_of_run(control *k, pr_err *err)
{
    control_send(k, json_pack("{s:s}", "type", "bye"), NULL);
    return pr_fail(err, PR_EINTERRUPTED, "the run is over");
}

/* The next message that is not a beat. Caller decrefs. */
static int next_message(control *k, json_t **message, pr_err *err)
{
    for (;;) {
        int rc = control_recv(k, message, err);
        if (rc) {
            pr_wrap(err, "head lost");
            return rc;
        }
        if (control_is(*message, "stop")) {
            json_decref(*message);
            return end_of_run(k, err);
        }
        if (!control_is(*message, "beat")) return PR_OK;
        json_decref(*message);
    }
}

static int bad_message(const control *k, const json_t *message, const char *what, pr_err *err)
{
    return pr_fail(err, PR_EPEER, "%s: control message '%s': %s", control_peer(k), control_type(message),
                   what);
}

/* The facts of a `have`, with a digest that looks like one. */
typedef struct {
    json_int_t tensor;
    uint64_t bytes;
    char sha256[HASH_HEX_BYTES];
} have;

static int read_have(have *h, const control *k, const json_t *message, pr_err *err)
{
    const json_t *tensor = json_object_get(message, "tensor"), *n = json_object_get(message, "bytes"),
                 *sha = json_object_get(message, "sha256");

    if (!control_is(message, "have")) return bad_message(k, message, "does not belong here", err);
    if (!json_is_integer(tensor) || !json_is_integer(n) || json_integer_value(n) <= 0 ||
        !json_is_string(sha) || strspn(json_string_value(sha), "0123456789abcdef") != HASH_HEX_BYTES - 1 ||
        json_string_length(sha) != HASH_HEX_BYTES - 1)
        return bad_message(k, message, "expected tensor, bytes and sha256", err);
    h->tensor = json_integer_value(tensor);
    h->bytes = (uint64_t)json_integer_value(n);
    memcpy(h->sha256, json_string_value(sha), sizeof h->sha256);
    return PR_OK;
}

/* --- the header ---------------------------------------------------------------------------------------- */
typedef struct {
    uint8_t *p;
    size_t n, cap;
} buffer;

/* Grows with what comes: an announced size costs nothing. */
static int take_header(void *arg, const void *data, size_t n, pr_err *err)
{
    buffer *b = arg;

    if (b->cap - b->n < n) {
        size_t cap = (b->cap + n) * 2;
        uint8_t *bigger = realloc(b->p, cap);
        if (!bigger) return pr_fail(err, PR_ERESOURCE, "out of memory for the model's header");
        b->p = bigger;
        b->cap = cap;
    }
    memcpy(b->p + b->n, data, n);
    b->n += n;
    return PR_OK;
}

static int receive_header(shipment *s, buffer *b, pr_err *err)
{
    uint64_t most = s->w->file_bytes < HEADER_MAX_BYTES ? s->w->file_bytes : HEADER_MAX_BYTES;
    json_t *message;
    have h;
    int rc = next_message(s->k, &message, err);

    if (rc) return rc;
    rc = read_have(&h, s->k, message, err);
    if (!rc && (h.tensor != SHIP_HEADER || h.bytes > most))
        rc = bad_message(s->k, message, "expected the header", err);
    json_decref(message);
    if (rc || (rc = control_recv_bulk(s->k, (size_t)h.bytes, take_header, b, err)) ||
        (rc = next_message(s->k, &message, err)))
        return rc;
    if (!control_is(message, "had")) rc = bad_message(s->k, message, "expected the end", err);
    json_decref(message);
    return rc;
}

static int fetch_header(shipment *s, pr_err *err)
{
    int rc = PR_EINTEGRITY;

    for (int try = 0; try < TRIES && rc == PR_EINTEGRITY; try++) {
        buffer b = {0};
        if (try)
            log_warn("%s: %s: asking again", control_peer(s->k), err ? err->msg : "the header is damaged");
        rc = control_send(
            s->k, json_pack("{s:s, s:b, s:[], s:[]}", "type", "need", "header", 1, "tensors", "held"), err);
        if (!rc) rc = receive_header(s, &b, err);
        s->count.received_bytes += b.n;
        if (!rc && !(rc = ship_cache_check_room(s->cache, b.n, err)))
            rc = ship_cache_make(s->cache, b.p, b.n, s->w->file_bytes, err);
        free(b.p);
    }
    return rc;
}

/* --- what is wanted ------------------------------------------------------------------------------------ */
static bool has_layer(const ship_wish *w, uint32_t layer)
{
    for (size_t i = 0; i < w->n_windows; i++)
        if (layer >= w->window[i].first && layer < w->window[i].end) return true;
    return false;
}

/* The layers' tensors, and small ones that belong to the whole model (rope_freqs.weight); not what only a
 * head computes with. */
static bool is_wanted(const ship_wish *w, const char *name)
{
    uint32_t layer = 0;
    tensor_use use = tensor_use_of(name, &layer);

    return use == USE_LAYER ? has_layer(w, layer) : use == USE_EVERYWHERE;
}

static bool is_missing(const shipment *s, size_t i)
{
    return s->wanted[i] && s->cache && !ship_cache_has(s->cache, i);
}

/* Look at the model from here on: the cached one, or the own file. */
static int begin(shipment *s, const gguf *g, pr_err *err)
{
    size_t n = gguf_n_tensors(g);

    free(s->wanted);
    free(s->asked);
    s->g = g;
    s->wanted = calloc(n + 1, sizeof *s->wanted);
    s->asked = calloc(n + 1, sizeof *s->asked);
    if (!s->wanted || !s->asked) return pr_fail(err, PR_ERESOURCE, "out of memory");
    s->checked = s->another = false;
    s->count.wanted = 0;
    s->count.wanted_bytes = s->count.here_bytes = 0;
    for (size_t i = 0; i < gguf_n_parts(g); i++) {
        size_t n_header;
        gguf_header(g, i, &n_header);
        s->count.wanted_bytes += n_header;
        if (!s->count.received_bytes) s->count.here_bytes += n_header;
    }
    for (size_t i = 0; i < n; i++) {
        const gguf_tensor *t = gguf_tensor_at(g, i);
        if (!(s->wanted[i] = is_wanted(s->w, t->name))) continue;
        s->count.wanted++;
        s->count.wanted_bytes += t->n_bytes;
        if (!is_missing(s, i)) s->count.here_bytes += t->n_bytes;
    }
    return PR_OK;
}

static uint64_t missing_bytes(const shipment *s)
{
    uint64_t total = 0;

    for (size_t i = 0; i < gguf_n_tensors(s->g); i++)
        if (is_missing(s, i)) total += gguf_tensor_at(s->g, i)->n_bytes;
    return total;
}

/* --- tensors ------------------------------------------------------------------------------------------- */
typedef struct {
    shipment *s;
    size_t tensor;
    uint64_t at;
} landing;

static void show_progress(const shipment *s)
{
    double received = (double)s->count.received_bytes;

    log_progress("from the head: %.2f GiB, %.2f GiB to come, %.0f MB/s", received / 0x1p30,
                 (double)s->to_come_bytes / 0x1p30, received / 1e3 / (clock_ms_since(s->start_ns) + 1));
}

static int take_tensor(void *arg, const void *data, size_t n, pr_err *err)
{
    landing *l = arg;
    shipment *s = l->s;

    (void)err;
    if (s->failed.code) return PR_OK;
    if (ship_cache_write(s->cache, l->tensor, l->at, data, n, &s->failed)) {
        char context[64];
        snprintf(context, sizeof context, "%" PRIu64 " bytes of the model are still to come",
                 s->to_come_bytes);
        pr_wrap(&s->failed, "%s", context);
        return PR_OK;
    }
    l->at += n;
    s->count.received_bytes += n;
    s->to_come_bytes -= n < s->to_come_bytes ? n : s->to_come_bytes;
    show_progress(s);
    return PR_OK;
}

/* The tensor that a `have` announces, if we asked for it and it is what we asked for. */
static int landing_of(landing *l, const have *h, const json_t *message, pr_err *err)
{
    shipment *s = l->s;

    if (h->tensor < 0 || (uint64_t)h->tensor >= gguf_n_tensors(s->g) || !s->asked[h->tensor])
        return bad_message(s->k, message, "a tensor that was not asked for", err);
    if (h->bytes != gguf_tensor_at(s->g, (size_t)h->tensor)->n_bytes)
        return bad_message(s->k, message, "not as many bytes as the header says", err);
    l->tensor = (size_t)h->tensor;
    s->asked[l->tensor] = false;
    return PR_OK;
}

static int receive_tensor(shipment *s, const json_t *message, pr_err *err)
{
    landing l = {.s = s};
    bool same = false;
    have h;
    int rc;

    if ((rc = read_have(&h, s->k, message, err)) || (rc = landing_of(&l, &h, message, err)) ||
        (rc = control_recv_bulk(s->k, (size_t)h.bytes, take_tensor, &l, err)))
        return rc;
    if (s->failed.code || ship_cache_keep(s->cache, l.tensor, h.sha256, &same, &s->failed)) return PR_OK;
    if (same) s->count.received++;
    else log_warn("%s: tensor %s came damaged", control_peer(s->k), gguf_tensor_at(s->g, l.tensor)->name);
    return PR_OK;
}

static int read_had(shipment *s, const json_t *message, pr_err *err)
{
    const json_t *differs = json_object_get(message, "differs"), *first = json_array_get(differs, 0);

    if (!json_is_array(differs)) return bad_message(s->k, message, "expected differs", err);
    s->checked = true;
    s->another = json_array_size(differs) > 0;
    if (!s->another) return PR_OK;
    if (!json_is_integer(first) || json_integer_value(first) < 0 ||
        (uint64_t)json_integer_value(first) >= gguf_n_tensors(s->g))
        return bad_message(s->k, message, "not a tensor", err);
    s->differs = (size_t)json_integer_value(first);
    return PR_OK;
}

/* What is still missing, a batch of it; and, the first time, what we hold. */
static json_t *next_need(shipment *s)
{
    json_t *tensors = json_array(), *held = json_array();
    uint64_t n_bytes = 0, most = s->w->batch_bytes ? s->w->batch_bytes : BATCH_BYTES;

    for (size_t i = 0; i < gguf_n_tensors(s->g); i++) {
        const gguf_tensor *t = gguf_tensor_at(s->g, i);
        char mark[GGUF_MARK_BYTES];
        s->asked[i] = is_missing(s, i) && n_bytes < most;
        if (s->asked[i]) {
            n_bytes += t->n_bytes;
            json_array_append_new(tensors, json_integer((json_int_t)i));
        } else if (s->wanted[i] && !s->checked && !is_missing(s, i)) {
            gguf_mark(t, mark);
            json_array_append_new(held, json_pack("[I, s]", (json_int_t)i, mark));
        }
    }
    return json_pack("{s:s, s:b, s:o, s:o}", "type", "need", "header", 0, "tensors", tensors, "held", held);
}

static int exchange(shipment *s, pr_err *err)
{
    int rc = control_send(s->k, next_need(s), err);

    while (!rc) {
        json_t *message;
        if ((rc = next_message(s->k, &message, err))) return rc;
        bool is_end = control_is(message, "had");
        rc = is_end ? read_had(s, message, err) : receive_tensor(s, message, err);
        json_decref(message);
        if (is_end) break;
    }
    return rc || !s->failed.code ? rc : pr_fail(err, s->failed.code, "%s", s->failed.msg);
}

/* Until nothing is missing. A batch that brings nothing new is a try. */
static int fetch_tensors(shipment *s, pr_err *err)
{
    int rc;

    if ((rc = ship_cache_check_room(s->cache, s->to_come_bytes = missing_bytes(s), err))) return rc;
    for (int tries = 0; !s->checked || missing_bytes(s);) {
        size_t before = s->count.received;
        bool was_checked = s->checked;
        if ((rc = exchange(s, err)) || s->another) return rc;
        if ((rc = ship_cache_settle(s->cache, err))) return rc;
        s->to_come_bytes = missing_bytes(s);
        if (s->count.received == before && was_checked && ++tries == TRIES)
            return pr_fail(
                err, PR_EINTEGRITY,
                "%s: tensors come with another digest than announced, again and again: the network "
                "or the memory of one of the two machines changes bytes",
                control_peer(s->k));
    }
    return ship_cache_seal(s->cache, err);
}

/* --- both ways to a model ------------------------------------------------------------------------------- */
/* Another worker of this machine may be filling the same cache: meanwhile the head is listened to. */
static int wait_for_lock(shipment *s, pr_err *err)
{
    bool locked;
    int rc = ship_cache_lock(s->cache, &locked, err);

    if (!rc && !locked) log_info("another worker of this machine fills the cache: waiting for it");
    while (!rc && !locked) {
        json_t *message;
        if ((rc = control_recv(s->k, &message, err))) {
            pr_wrap(err, "head lost");
            return rc;
        }
        if (control_is(message, "stop")) rc = end_of_run(s->k, err);
        else if (!control_is(message, "beat")) rc = bad_message(s->k, message, "does not belong here", err);
        json_decref(message);
        if (!rc) rc = ship_cache_lock(s->cache, &locked, err);
    }
    return rc;
}

static int fill_cache(shipment *s, pr_err *err)
{
    int rc;

    if ((rc = wait_for_lock(s, err)) || (rc = ship_cache_load(s->cache, s->w->verify, err))) return rc;
    s->count.from_cache = true;
    for (int again = 0; again < 2; again++) {
        if (!ship_cache_gguf(s->cache) && (rc = fetch_header(s, err))) return rc;
        if ((rc = begin(s, ship_cache_gguf(s->cache), err)) || (rc = fetch_tensors(s, err)) || !s->another)
            return rc;
        log_warn("%s: cached from another model with the same header (tensor %s differs): dropped",
                 ship_cache_path(s->cache), gguf_tensor_at(s->g, s->differs)->name);
        if ((rc = ship_cache_reset(s->cache, err))) return rc;
    }
    return pr_fail(err, PR_EPEER, "%s: says that its own tensors are not its own", control_peer(s->k));
}

static int open_cached(shipment *s, model *m, pr_err *err)
{
    int rc = ship_cache_open(&s->cache, s->w->header_sha256, err);

    if (rc) return rc;
    rc = fill_cache(s, err);
    log_progress("%s", "");
    if (!rc && s->count.received_bytes)
        log_info("%.3f GB of the model came in %.1f s, kept in %s", (double)s->count.received_bytes / 1e9,
                 clock_ms_since(s->start_ns) / 1e3, ship_cache_path(s->cache));
    if (!rc) rc = model_open(m, ship_cache_path(s->cache), err);
    s->g = NULL;
    ship_cache_close(s->cache);
    return rc;
}

/* The own file may be a part of the model that was pulled for another plan. */
static int look_for_holes(const shipment *s, const char *path, bool *lacks, pr_err *err)
{
    gguf_holes *h;
    size_t i = 0, n = gguf_n_tensors(s->g);
    int rc = gguf_holes_open(&h, s->g, err);

    if (rc) return rc;
    while (i < n && (!s->wanted[i] || gguf_holes_has(h, i))) i++;
    *lacks = i < n;
    if (*lacks) {
        char *layers = gguf_holes_layers(h);
        log_warn(
            "%s holds only these layers: %s, and %s is needed: the head ships this device's tensors instead",
            path, layers ? layers : "?", gguf_tensor_at(s->g, i)->name);
        free(layers);
    }
    gguf_holes_close(h);
    return PR_OK;
}

static int check_own(shipment *s, const char *path, bool *lacks, pr_err *err)
{
    char sha[HASH_HEX_BYTES];
    int rc;

    gguf_header_sha256(s->g, sha);
    if (strcmp(sha, s->w->header_sha256))
        return pr_fail(
            err, PR_EMISMATCH,
            "%s has a header with digest %.12s, the plan is for a model with %.12s: give the plan's "
            "model, or no file and the head ships its part",
            path, sha, s->w->header_sha256);
    if ((rc = begin(s, s->g, err)) || (rc = look_for_holes(s, path, lacks, err)) || *lacks ||
        (rc = exchange(s, err)) || !s->another)
        return rc;
    return pr_fail(err, PR_EMISMATCH,
                   "%s has the same header as the head's model but other data (tensor %s): give the same "
                   "model, or no file and the head ships its part",
                   path, gguf_tensor_at(s->g, s->differs)->name);
}

/* *lacks: the file does not have all that is wanted, and the model is not open. */
static int open_own(shipment *s, model *m, bool *lacks, pr_err *err)
{
    gguf *g;
    int rc = gguf_open(&g, s->w->path, err);

    if (rc) return rc;
    s->g = g;
    rc = check_own(s, s->w->path, lacks, err);
    s->g = NULL;
    gguf_close(g);
    return rc || *lacks ? rc : model_open(m, s->w->path, err);
}

int ship_model(model *m, const ship_wish *w, control *k, ship_counts *counts, pr_err *err)
{
    shipment s = {.w = w, .k = k, .start_ns = clock_ns()};
    bool use_cache = !w->path || !*w->path;
    pr_err why = {0};
    int rc = use_cache ? PR_OK : open_own(&s, m, &use_cache, &why);

    if (!rc && use_cache) rc = open_cached(&s, m, &why);
    if (counts) *counts = s.count;
    free(s.wanted);
    free(s.asked);
    return rc ? pr_fail(err, why.code, "%s", why.msg) : PR_OK;
}
