/* The handle of fetch.h, and what is asked in one request: what a resource is, and small bodies. */
#include "net/fetch_impl.h"
#include "src/base/clock.h"
#include "src/base/file.h"
#include "src/base/hash.h"
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* --- the handle ------------------------------------------------------------------------------------- */
/* A token goes into a header line: what would end the line is refused. */
static int check_token(const fetch_options *o, char origin[FETCH_ORIGIN_BYTES], pr_err *err)
{
    if (!o->token) return PR_OK;
    for (const char *c = o->token; *c; c++)
        if (*c <= 0x20 || *c >= 0x7f)
            return pr_fail(err, PR_EAUTH,
                           "the token (HF_TOKEN) holds a blank or a control character: it is damaged");
    if (!*o->token) return pr_fail(err, PR_EAUTH, "the token (HF_TOKEN) is empty");
    if (!o->token_origin || !fetch_url_origin(origin, o->token_origin))
        return pr_fail(err, PR_EUSAGE,
                       "\"%.200s\": expected the host that the token is for, such as https://huggingface.co",
                       o->token_origin ? o->token_origin : "");
    return PR_OK;
}

static void defaults(fetch_options *o)
{
    if (!o->jobs) o->jobs = 1;
    if (!o->stall_bytes_s) o->stall_bytes_s = 1024;
    if (!(o->stall_s > 0)) o->stall_s = 30;
    if (!o->tries) o->tries = 8;
    if (!(o->backoff_s > 0)) o->backoff_s = 1;
}

int fetch_new(fetch **out, const fetch_options *o, pr_err *err)
{
    fetch *f;
    char origin[FETCH_ORIGIN_BYTES] = "";
    int rc;

    if (o->jobs > FETCH_MOST_JOBS)
        return pr_fail(err, PR_EUSAGE, "%u connections at once: at most %d", o->jobs, FETCH_MOST_JOBS);
    if ((rc = check_token(o, origin, err))) return rc;
    if (curl_global_init(CURL_GLOBAL_DEFAULT)) return pr_fail(err, PR_ERESOURCE, "libcurl does not start");
    if (!(f = calloc(1, sizeof *f))) {
        curl_global_cleanup();
        return pr_fail(err, PR_ERESOURCE, "fetch: out of memory");
    }
    f->o = *o;
    f->o.token = o->token ? strdup(o->token) : NULL;
    f->o.token_origin = NULL;
    memcpy(f->token_origin, origin, sizeof origin);
    defaults(&f->o);
    f->random = clock_ns() ^ (uint64_t)getpid() << 32 ^ 0x9e3779b97f4a7c15;
    f->multi = curl_multi_init();
    if (!f->multi || (o->token && !f->o.token)) {
        fetch_free(f);
        return pr_fail(err, PR_ERESOURCE, "fetch: out of memory");
    }
    curl_multi_setopt(f->multi, CURLMOPT_PIPELINING, (long)CURLPIPE_NOTHING);
    curl_multi_setopt(f->multi, CURLMOPT_MAXCONNECTS, (long)f->o.jobs + 2);
    *out = f;
    return PR_OK;
}

void fetch_free(fetch *f)
{
    if (!f) return;
    part_close(f->open);
    curl_multi_cleanup(f->multi);
    free((char *)f->o.token);
    free(f);
    curl_global_cleanup();
}

void fetch_facts_clear(fetch_facts *x)
{
    free(x->url);
    free(x->etag);
    *x = (fetch_facts){0};
}

/* --- one request ------------------------------------------------------------------------------------ */
typedef struct {
    const char *url;
    bool is_head, probe; /* probe: the first byte alone, for what a HEAD did not tell */
    bool over;
    answer a;  /* of the last answer; its strings are ours */
    bool left; /* the chain ended at a redirect to another host */
    bool refused;
    char *text; /* a body, when it is wanted */
    size_t n, room, max;
} exchange;

static bool exchange_ask(void *arg, slot *s)
{
    exchange *x = arg;

    if (x->over) return false;
    s->url = x->url;
    s->is_head = s->stay = x->is_head;
    s->ranged = s->takes_416 = x->probe;
    s->first = 0;
    s->end = 1;
    return true;
}

static bool exchange_finished(void *arg)
{
    return ((exchange *)arg)->over;
}

static int exchange_begin(void *arg, slot *s, pr_err *err)
{
    exchange *x = arg;

    (void)s;
    (void)err;
    x->n = 0; /* of a try before this one */
    return PR_OK;
}

static int exchange_body(void *arg, slot *s, const char *data, size_t n, pr_err *err)
{
    exchange *x = arg;
    char shown[FETCH_SHOWN_BYTES];

    if (!x->max) {
        s->enough = true;
        return PR_OK;
    }
    if (n > x->max - x->n) {
        fetch_url_show(shown, s->at ? s->at : s->url);
        return pr_fail(err, PR_EINTEGRITY,
                       "%s: the answer is larger than the %zu bytes that such an answer may have", shown,
                       x->max);
    }
    if (x->n + n + 1 > x->room) {
        size_t room = (x->n + n + 1) * 2;
        char *bigger = realloc(x->text, room);
        if (!bigger) return pr_fail(err, PR_ERESOURCE, "fetch: out of memory");
        x->text = bigger;
        x->room = room;
    }
    memcpy(x->text + x->n, data, n);
    x->n += n;
    return PR_OK;
}

static bool exchange_end(void *arg, slot *s)
{
    exchange *x = arg;

    x->over = true;
    x->left = answer_is_redirect(&s->a);
    x->refused = !s->accepted && !x->left;
    answer_clear(&x->a);
    x->a = s->a;
    s->a.location = s->a.next = NULL; /* moved */
    if (x->a.next) {                  /* as seen from where the answer came from */
        char *next = fetch_url_join(s->at ? s->at : s->url, x->a.next);
        free(x->a.next);
        x->a.next = next;
    }
    return true;
}

static int exchange_run(fetch *f, exchange *x, pr_err *err)
{
    const client c = {.arg = x,
                      .ask = exchange_ask,
                      .finished = exchange_finished,
                      .begin = exchange_begin,
                      .body = exchange_body,
                      .end = exchange_end};
    slot s;

    answer_clear(&x->a);
    return fetch_run(f, &s, 1, &c, err);
}

/* --- what a resource is ----------------------------------------------------------------------------- */
static bool is_sha256(const char *s)
{
    return strlen(s) == 64 && strspn(s, "0123456789abcdefABCDEF") == 64;
}

/* What was said on the way. */
static void take_chain(fetch_facts *x, const answer *a)
{
    if (is_sha256(a->linked_etag))
        for (size_t i = 0; i < 65; i++) x->sha256[i] = (char)tolower((unsigned char)a->linked_etag[i]);
    memcpy(x->commit, a->commit, sizeof x->commit);
    if (a->has_linked_size) {
        x->bytes = a->linked_size;
        x->has_bytes = true;
    }
}

static int set_validator(fetch_facts *x, const char *v, bool quote, pr_err *err)
{
    if (asprintf(&x->etag, quote ? "\"%s\"" : "%s", v) < 0) x->etag = NULL;
    return x->etag ? PR_OK : pr_fail(err, PR_ERESOURCE, "fetch: out of memory");
}

static int set_size(fetch_facts *x, uint64_t bytes, pr_err *err)
{
    char shown[FETCH_SHOWN_BYTES];

    if (x->has_bytes && x->bytes != bytes) {
        fetch_url_show(shown, x->url);
        return pr_fail(err, PR_EINTEGRITY, "%s: the hub says it has %llu bytes, the server that has it %llu",
                       shown, (unsigned long long)x->bytes, (unsigned long long)bytes);
    }
    x->bytes = bytes;
    x->has_bytes = true;
    return PR_OK;
}

/* One byte asked for tells the size, the validator and whether there are ranges. */
static int probe(fetch *f, fetch_facts *x, pr_err *err)
{
    exchange e = {.url = x->url, .probe = true};
    int rc = exchange_run(f, &e, err);

    if (rc) return rc;
    take_chain(x, &e.a);
    x->has_ranges = e.a.status == 206;
    if (e.a.status == 416) {
        if (e.a.has_total) rc = set_size(x, e.a.total, err);
    } else if (x->has_ranges) {
        if (e.a.has_total) rc = set_size(x, e.a.total, err);
    } else if (e.a.has_length) rc = set_size(x, e.a.length, err);
    if (!rc) rc = set_validator(x, answer_validator(&e.a), false, err);
    answer_clear(&e.a);
    return rc;
}

static int head(fetch *f, fetch_facts *x, pr_err *err)
{
    exchange e = {.url = x->url, .is_head = true};
    int rc = exchange_run(f, &e, err);

    if (rc) return rc;
    if (e.left && e.a.has_linked_size &&
        *e.a.linked_etag) { /* the hub has said all: what the CDN says is not asked */
        take_chain(x, &e.a);
        x->has_ranges = true;
        rc = set_validator(x, *x->sha256 ? x->sha256 : e.a.linked_etag, true, err);
    } else if (e.left || e.refused || !e.a.has_length || (!e.a.accepts_ranges && !e.a.accepts_none)) {
        rc = probe(f, x, err);
    } else {
        take_chain(x, &e.a);
        x->has_ranges = e.a.accepts_ranges;
        if (!(rc = set_size(x, e.a.length, err))) rc = set_validator(x, answer_validator(&e.a), false, err);
    }
    answer_clear(&e.a);
    return rc;
}

int fetch_head(fetch *f, const char *url, fetch_facts *out, pr_err *err)
{
    char *path;
    int rc;

    *out = (fetch_facts){0};
    if (fetch_stopped(f)) return fetch_interrupted(err);
    if (fetch_url_local(url, &path)) {
        rc = local_head(url, path, out, err);
        free(path);
    } else if (!(out->url = strdup(url))) rc = pr_fail(err, PR_ERESOURCE, "fetch: out of memory");
    else rc = head(f, out, err);
    if (rc) fetch_facts_clear(out);
    return rc;
}

int fetch_text(fetch *f, const char *url, size_t max, char **text, size_t *n, char **link_next, pr_err *err)
{
    exchange e = {.url = url, .max = max};
    char *path;
    int rc;

    if (link_next) *link_next = NULL;
    if (fetch_url_local(url, &path)) {
        rc = path ? file_slurp(text, n, path, max, err)
                  : pr_fail(err, PR_EUSAGE, "%.200s: not a file of this machine", url);
        free(path);
        return rc;
    }
    if (!(rc = exchange_run(f, &e, err)) && !e.text && !(e.text = malloc(1)))
        rc = pr_fail(err, PR_ERESOURCE, "fetch: out of memory");
    if (rc) free(e.text);
    else {
        e.text[e.n] = 0;
        *text = e.text;
        *n = e.n;
        if (link_next) {
            *link_next = e.a.next;
            e.a.next = NULL;
        }
    }
    answer_clear(&e.a);
    return rc;
}
