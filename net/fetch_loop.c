/* Requests over libcurl's multi interface, in one thread: several slots, each with one request at a time.
 * Here are the rules that hold for all of them: which redirects are followed and with which token, which
 * answers are asked for again and when, and when to give up. libcurl follows nothing and retries nothing by
 * itself.
 *
 * HTTP/1.1 on purpose: several connections are there to get more than one TCP window, one path through a CDN
 * and one server's throttle; HTTP/2 would put all ranges into one connection again, behind one lost packet.
 */
#include "net/fetch_impl.h"
#include "src/base/clock.h"
#include "src/base/log.h"
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    POLL_MS = 100, /* how late a stop flag may be seen */
    TICK_MS = 100,
    BACKOFF_MOST_S = 60,
    REFUSED_TRIES = 3,          /* where nobody has answered yet; a moment is enough for a server to start */
    TELL_FROM_S = 1,            /* shorter pauses need no line in the log */
    RETRY_AFTER_MOST_S = 600,   /* what a server asks for beyond that is not waited */
    DISCARD_MOST_BYTES = 65536, /* the page behind an error: read, so that the connection can be kept */
    BUFFERS_BYTES = 16 << 20,   /* libcurl's receive buffers of all slots */
    BUFFER_MOST_BYTES = 512 << 10,
    BUFFER_LEAST_BYTES = 64 << 10
};

static uint64_t seconds_ns(double s)
{
    return (uint64_t)(s * 1e9);
}

bool fetch_stopped(const fetch *f)
{
    return f->o.stop && *f->o.stop;
}

int fetch_interrupted(pr_err *err)
{
    return pr_fail(err, PR_EINTERRUPTED, "interrupted; what has been fetched is kept");
}

/* Uniform in [0.5, 1): those who were refused together do not come back together (xorshift). */
static double jitter(fetch *f)
{
    f->random ^= f->random << 13;
    f->random ^= f->random >> 7;
    f->random ^= f->random << 17;
    return 0.5 + 0.5 * (double)(f->random >> 11) / (double)(UINT64_C(1) << 53);
}

static const char *where(const slot *s)
{
    return s->at ? s->at : s->start_at ? s->start_at : s->url;
}

/* --- from libcurl ----------------------------------------------------------------------------------- */
static size_t on_header(char *line, size_t size, size_t n, void *arg)
{
    slot *s = arg;

    (void)size;
    if (s->rc || s->again) return 0;
    answer_line(&s->a, line, n, fetch_url_same_origin(where(s), s->url));
    if (!s->a.complete || s->accepted) return n;
    if (s->a.status / 100 != 2 && !(s->a.status == 416 && s->takes_416)) return n;
    s->accepted = true;
    if (s->a.encoded && !s->is_head) {
        char shown[FETCH_SHOWN_BYTES];
        fetch_url_show(shown, where(s));
        s->rc = pr_fail(&s->err, PR_EINTEGRITY,
                        "%s: the server sends it compressed although it was asked not to", shown);
    } else s->rc = s->c->begin(s->c->arg, s, &s->err);
    return s->rc || s->again ? 0 : n;
}

static size_t on_body(char *data, size_t size, size_t n, void *arg)
{
    slot *s = arg;

    (void)size;
    if (s->enough || s->rc || s->again) return CURL_WRITEFUNC_ERROR;
    s->window_bytes += n;
    if (!s->accepted || s->a.status == 416) {
        s->discarded += n;
        return s->discarded > DISCARD_MOST_BYTES ? CURL_WRITEFUNC_ERROR : n;
    }
    s->had_bytes = true;
    s->rc = s->c->body(s->c->arg, s, data, n, &s->err);
    return s->rc || s->enough ? CURL_WRITEFUNC_ERROR : n;
}

/* --- one request ------------------------------------------------------------------------------------ */
static bool add_header(slot *s, const char *fmt, const char *value)
{
    char *line = NULL;
    struct curl_slist *l = NULL;

    if (asprintf(&line, fmt, value) >= 0) l = curl_slist_append(s->headers, line);
    else line = NULL;
    free(line);
    if (l) s->headers = l;
    return l != NULL;
}

static bool headers(slot *s)
{
    char range[64], origin[FETCH_ORIGIN_BYTES];
    bool ok;

    curl_slist_free_all(s->headers);
    s->headers = NULL;
    ok = add_header(s, "Accept-Encoding: %s", "identity");
    if (ok && s->ranged) {
        snprintf(range, sizeof range, "bytes=%llu-%llu", (unsigned long long)s->first,
                 (unsigned long long)s->end - 1);
        ok = add_header(s, "Range: %s", range);
        if (ok && *s->if_range) ok = add_header(s, "If-Range: %s", s->if_range);
    }
    if (ok && s->f->o.token && fetch_url_origin(origin, where(s)) && strcmp(origin, s->f->token_origin) == 0)
        ok = add_header(s, "Authorization: Bearer %s", s->f->o.token);
    return ok;
}

/* Certificates that are trusted: the system's, or those of the file that OpenSSL's variable names, which
 * libcurl does not look at by itself. */
static void trust(CURL *e)
{
    const char *file = getenv("SSL_CERT_FILE");

    if (file && *file) curl_easy_setopt(e, CURLOPT_CAINFO, file);
}

static void set_up(slot *s, unsigned n)
{
    const fetch_options *o = &s->f->o;
    long buffer = BUFFERS_BYTES / (long)n;
    CURL *e = s->easy;

    if (buffer > BUFFER_MOST_BYTES) buffer = BUFFER_MOST_BYTES;
    if (buffer < BUFFER_LEAST_BYTES) buffer = BUFFER_LEAST_BYTES;
    curl_easy_setopt(e, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(e, CURLOPT_FOLLOWLOCATION, 0L);
    curl_easy_setopt(e, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    curl_easy_setopt(e, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
    trust(e);
    curl_easy_setopt(e, CURLOPT_USERAGENT, "prima");
    curl_easy_setopt(e, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(e, CURLOPT_QUICK_EXIT, 1L); /* an end does not wait for a name server */
    curl_easy_setopt(e, CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
    curl_easy_setopt(e, CURLOPT_HEADEROPT, (long)CURLHEADER_SEPARATE); /* the token is not for proxies */
    curl_easy_setopt(e, CURLOPT_CONNECTTIMEOUT_MS, (long)(o->stall_s * 1000) + 1);
    curl_easy_setopt(e, CURLOPT_BUFFERSIZE, buffer);
    curl_easy_setopt(e, CURLOPT_ERRORBUFFER, s->curl_error);
    curl_easy_setopt(e, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(e, CURLOPT_HEADERDATA, s);
    curl_easy_setopt(e, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(e, CURLOPT_WRITEDATA, s);
    curl_easy_setopt(e, CURLOPT_PRIVATE, s);
}

static int out_of_memory(pr_err *err)
{
    return pr_fail(err, PR_ERESOURCE, "fetch: out of memory");
}

/* Send what the slot says to where the chain is. */
static int send_request(slot *s, pr_err *err)
{
    if (!s->easy) return out_of_memory(err);
    if (!headers(s)) return out_of_memory(err);
    *s->curl_error = 0;
    s->accepted = s->enough = s->again = s->had_bytes = false;
    s->discarded = s->window_bytes = 0;
    s->window_ns = clock_ns();
    if (s->is_head) curl_easy_setopt(s->easy, CURLOPT_NOBODY, 1L);
    else curl_easy_setopt(s->easy, CURLOPT_HTTPGET, 1L);
    if (curl_easy_setopt(s->easy, CURLOPT_URL, where(s)) ||
        curl_easy_setopt(s->easy, CURLOPT_HTTPHEADER, s->headers) ||
        curl_multi_add_handle(s->f->multi, s->easy))
        return out_of_memory(err);
    s->state = SLOT_BUSY;
    return PR_OK;
}

/* A new chain: at the caller's URL, or at a target that is known. */
static int start_chain(slot *s, pr_err *err)
{
    int rc;

    free(s->at);
    s->at = NULL;
    s->hops = 0;
    answer_clear(&s->a);
    if ((rc = fetch_url_check(s->url, s->f->o.insecure_http, PR_EUSAGE, err))) return rc;
    return send_request(s, err);
}

/* --- what an answer means --------------------------------------------------------------------------- */
/* Asked again later, unless it has failed so many times. why: what happened; wait_s < 0: by the rule of
 * back-off. */
static int ask_again_within(slot *s, unsigned tries, double wait_s, const char *why, pr_err *err)
{
    fetch *f = s->f;
    uint64_t news = s->c->news ? s->c->news(s->c->arg) : 0;
    char shown[FETCH_SHOWN_BYTES];

    fetch_url_show(shown, where(s));
    if (news != s->news_seen) s->failures = 0;
    s->news_seen = news;
    if (s->had_bytes) s->own_failures = 0;
    else if (s->start_at) s->renew = true; /* the host behind it may have gone; the source may know another */
    if (++s->failures >= tries)
        return pr_fail(err, PR_ENETWORK,
                       "%s: %s; gave up after %u tries without a new byte. What has been fetched is kept: "
                       "call again to go on where this stopped",
                       shown, why, s->failures);
    if (wait_s < 0) {
        /* The first try after bytes have come is made nearly at once. */
        wait_s = f->o.backoff_s * (s->own_failures ? exp2(s->own_failures - 1) : 0.1);
        if (wait_s > BACKOFF_MOST_S) wait_s = BACKOFF_MOST_S;
        wait_s *= jitter(f);
    } else if (f->hold_ns < clock_ns() + seconds_ns(wait_s)) {
        f->hold_ns = clock_ns() + seconds_ns(wait_s); /* the server speaks for all connections */
    }
    if (s->own_failures < 31) s->own_failures++;
    log_msg(wait_s < TELL_FROM_S ? LOG_DEBUG : LOG_INFO, "%s: %s; again in %.1f s", shown, why, wait_s);
    s->due_ns = clock_ns() + seconds_ns(wait_s);
    s->state = SLOT_WAITING;
    return PR_OK;
}

static int ask_again(slot *s, double wait_s, const char *why, pr_err *err)
{
    return ask_again_within(s, s->f->o.tries, wait_s, why, err);
}

/* Some refuse HEAD and allow GET: that is no failure yet. */
static bool head_refused(const slot *s)
{
    long status = s->a.status;

    return s->is_head && (status == 400 || status == 403 || status == 405 || status == 501);
}

static int no_access(const slot *s, const char *shown, pr_err *err)
{
    char origin[FETCH_ORIGIN_BYTES];
    const fetch *f = s->f;
    long status = s->a.status;

    /* The source let us in, and a store (signed addresses) takes no token. */
    if (status == 403 && s->at && !fetch_url_same_origin(s->at, s->url))
        return pr_fail(
            err, PR_ENETWORK,
            "%s: HTTP %ld: the host that the source redirects to refuses: its address has expired, "
            "or a proxy or firewall is in between. Call again, perhaps from another network",
            shown, status);
    if (!f->o.token)
        return pr_fail(
            err, PR_EAUTH,
            "%s: HTTP %ld: this needs a token: set HF_TOKEN, and accept the terms of the model on its page",
            shown, status);
    if (fetch_url_origin(origin, where(s)) && strcmp(origin, f->token_origin) != 0)
        return pr_fail(err, PR_EAUTH,
                       "%s: HTTP %ld: access denied; the token is for %s and is not sent to other hosts",
                       shown, status, f->token_origin);
    return pr_fail(
        err, PR_EAUTH,
        "%s: HTTP %ld: the token (HF_TOKEN) is not accepted, or it has no access: check it, and accept the "
        "terms of the model on its page",
        shown, status);
}

static int refused(slot *s, pr_err *err)
{
    char shown[FETCH_SHOWN_BYTES], why[64];
    long status = s->a.status;

    snprintf(why, sizeof why, "HTTP %ld", status);
    if (s->start_at && status / 100 == 4 && status != 429 && status != 408) {
        s->renew = true; /* an address of a CDN that has expired: asked for at the source again, at once */
        s->state = SLOT_IDLE;
        return PR_OK;
    }
    if (status == 429 || status == 408 || status == 425 || status >= 500)
        return ask_again(s, fmin(s->a.retry_after_s, RETRY_AFTER_MOST_S), why, err);
    if (s->proven && s->at && !fetch_url_same_origin(s->at, s->url))
        return ask_again(s, -1, why, err); /* it has expired already, but such addresses have worked */
    fetch_url_show(shown, where(s));
    if (status == 401 || status == 403) return no_access(s, shown, err);
    if (status == 404 || status == 410)
        return pr_fail(err, PR_ENETWORK, "%s: HTTP %ld: there is no such file; check name and revision",
                       shown, status);
    return pr_fail(err, PR_ENETWORK, "%s: HTTP %ld: the server refuses the request", shown, status);
}

static int follow(slot *s, pr_err *err)
{
    char from[FETCH_SHOWN_BYTES];
    char *next = fetch_url_join(where(s), s->a.location);
    int rc;

    fetch_url_show(from, where(s));
    if (!next) return pr_fail(err, PR_ENETWORK, "%s redirects to what is no address", from);
    if (s->stay && !fetch_url_same_origin(next, s->url)) {
        free(next);
        s->state = SLOT_IDLE;
        s->c->end(s->c->arg, s);
        return PR_OK;
    }
    if (++s->hops > FETCH_MOST_HOPS) {
        free(next);
        return pr_fail(err, PR_ENETWORK, "%s: more than %d redirects, one after the other", from,
                       FETCH_MOST_HOPS);
    }
    if ((rc = fetch_url_check(next, s->f->o.insecure_http, PR_ENETWORK, err))) {
        pr_wrap(err, "%s redirects", from);
        free(next);
        return rc;
    }
    free(s->at);
    s->at = next;
    if (*s->a.linked_etag)
        *s->if_range = 0; /* that names the content; the next host has an ETag of its own */
    return send_request(s, err);
}

static void curl_reason(char out[CURL_ERROR_SIZE], const slot *s, CURLcode code)
{
    snprintf(out, CURL_ERROR_SIZE, "%s", *s->curl_error ? s->curl_error : curl_easy_strerror(code));
}

/* Trying again would not help: a host that cannot prove who it is, an address that is none. */
static bool is_permanent(CURLcode code)
{
    return code == CURLE_PEER_FAILED_VERIFICATION || code == CURLE_SSL_CACERT_BADFILE ||
           code == CURLE_SSL_ISSUER_ERROR || code == CURLE_URL_MALFORMAT ||
           code == CURLE_UNSUPPORTED_PROTOCOL || code == CURLE_COULDNT_RESOLVE_PROXY;
}

static bool is_refused(const slot *s, CURLcode code)
{
    long why = 0;

    return code == CURLE_COULDNT_CONNECT && !curl_easy_getinfo(s->easy, CURLINFO_OS_ERRNO, &why) &&
           why == ECONNREFUSED;
}

/* No answer at all. A host that has answered before will do so again; of another one the address is the first
 * thing to doubt, and nobody wants to wait two minutes for a slip of the pen. */
static int unanswered(slot *s, CURLcode code, const char *why, pr_err *err)
{
    char shown[FETCH_SHOWN_BYTES], host[FETCH_ORIGIN_BYTES], refused[CURL_ERROR_SIZE + 80];
    fetch *f = s->f;

    fetch_url_show(shown, where(s));
    if (is_permanent(code)) return pr_fail(err, PR_ENETWORK, "%s: %s", shown, why);
    if (f->reached || !fetch_url_host(host, where(s))) return ask_again(s, -1, why, err);
    if (code == CURLE_COULDNT_RESOLVE_HOST && fetch_host_is_unknown(host))
        return pr_fail(
            err, PR_ENETWORK,
            "%s: there is no host named %s, says this system's resolver: check the address, and the network",
            shown, host);
    if (!is_refused(s, code)) return ask_again(s, -1, why, err);
    snprintf(refused, sizeof refused, "%s: connection refused: is the address right, is the server up", why);
    return ask_again_within(s, f->o.tries < REFUSED_TRIES ? f->o.tries : REFUSED_TRIES, -1, refused, err);
}

/* A request is over, well or not. */
static int ended(slot *s, CURLcode code, pr_err *err)
{
    char why[CURL_ERROR_SIZE];

    curl_multi_remove_handle(s->f->multi, s->easy);
    s->state = SLOT_IDLE;
    if (s->rc) return pr_fail(err, s->rc, "%s", s->err.msg);
    if (s->again) return ask_again(s, -1, "the answer does not fit", err);
    curl_reason(why, s, code);
    if (!s->a.complete) return unanswered(s, code, code ? why : "no answer", err);
    s->f->reached = true;
    if (answer_is_redirect(&s->a)) return follow(s, err);
    if (!s->accepted) {
        if (!head_refused(s)) return refused(s, err);
        s->c->end(s->c->arg, s);
        return PR_OK;
    }
    if (code && !s->enough && s->a.status != 416) return ask_again(s, -1, why, err);
    if (!s->c->end(s->c->arg, s)) return ask_again(s, -1, "the body ended early", err);
    s->failures = s->own_failures = 0;
    return PR_OK;
}

/* --- all slots -------------------------------------------------------------------------------------- */
static int start_due(slot *s, unsigned n, const client *c, pr_err *err)
{
    uint64_t now = clock_ns();
    int rc;

    for (unsigned i = 0; i < n; i++) {
        if (s[i].state == SLOT_WAITING && now >= s[i].due_ns) s[i].state = SLOT_IDLE;
        if (s[i].state != SLOT_IDLE || now < s->f->hold_ns || c->finished(c->arg) || !c->ask(c->arg, &s[i]))
            continue;
        if ((rc = start_chain(&s[i], err))) return rc;
    }
    return PR_OK;
}

static int drain(fetch *f, pr_err *err)
{
    CURLMsg *m;
    int left, rc;

    while ((m = curl_multi_info_read(f->multi, &left))) {
        slot *s = NULL;
        CURLcode code = m->data.result;
        if (m->msg != CURLMSG_DONE) continue;
        curl_easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, (char **)&s);
        if ((rc = ended(s, code, err))) return rc;
    }
    return PR_OK;
}

/* Less than the limit in a whole window: the connection is given up. A window ends as soon as enough has
 * come, so that one that says nothing any more is found out stall_s later, not twice that. */
static int find_stalled(slot *s, unsigned n, pr_err *err)
{
    uint64_t now = clock_ns();
    int rc;

    for (unsigned i = 0; i < n; i++) {
        const fetch_options *o = &s[i].f->o;
        char why[80];
        if (s[i].state != SLOT_BUSY) continue;
        if ((double)s[i].window_bytes >= (double)o->stall_bytes_s * o->stall_s) {
            s[i].window_ns = now;
            s[i].window_bytes = 0;
        } else if (now - s[i].window_ns >= seconds_ns(o->stall_s)) {
            curl_multi_remove_handle(s[i].f->multi, s[i].easy);
            snprintf(why, sizeof why, "%llu bytes in %.3g s: stalled", (unsigned long long)s[i].window_bytes,
                     o->stall_s);
            if ((rc = ask_again(&s[i], -1, why, err))) return rc;
        }
    }
    return PR_OK;
}

static bool any_in_use(const slot *s, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        if (s[i].state != SLOT_IDLE) return true;
    return false;
}

static int multi_failed(CURLMcode code, pr_err *err)
{
    return pr_fail(err, PR_EINTERNAL, "libcurl: %s", curl_multi_strerror(code));
}

static int turn(fetch *f, slot *s, unsigned n, const client *c, uint64_t *ticked, pr_err *err)
{
    int running, rc;
    CURLMcode code;

    if (fetch_stopped(f)) return fetch_interrupted(err);
    if ((code = curl_multi_perform(f->multi, &running))) return multi_failed(code, err);
    if ((rc = drain(f, err)) || (rc = find_stalled(s, n, err)) || (rc = start_due(s, n, c, err))) return rc;
    if (c->tick && clock_ms_since(*ticked) >= TICK_MS) {
        *ticked = clock_ns();
        if ((rc = c->tick(c->arg, err))) return rc;
    }
    if (c->finished(c->arg)) return PR_OK;
    if (!any_in_use(s, n) && clock_ns() >= f->hold_ns)
        return pr_fail(err, PR_EINTERNAL, "fetch: nothing left to ask, but not finished");
    if ((code = curl_multi_poll(f->multi, NULL, 0, POLL_MS, NULL))) return multi_failed(code, err);
    return PR_OK;
}

int fetch_run(fetch *f, slot *s, unsigned n, const client *c, pr_err *err)
{
    uint64_t ticked = clock_ns();
    int rc = PR_OK;

    for (unsigned i = 0; i < n; i++) {
        s[i] = (slot){.f = f, .c = c, .i = i, .easy = curl_easy_init()};
        answer_clear(&s[i].a);
        if (s[i].easy) set_up(&s[i], n);
    }
    while (!rc && !c->finished(c->arg)) rc = turn(f, s, n, c, &ticked, err);
    for (unsigned i = 0; i < n; i++) {
        if (s[i].state == SLOT_BUSY) curl_multi_remove_handle(f->multi, s[i].easy);
        curl_easy_cleanup(s[i].easy);
        curl_slist_free_all(s[i].headers);
        free(s[i].at);
        free(s[i].start_at);
        answer_clear(&s[i].a);
    }
    return rc;
}
