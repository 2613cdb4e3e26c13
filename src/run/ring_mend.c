/* Mending the ring: a lost device is started again, or waited for, as often as the user allows; when that
 * fails, or is used up, the others go on without it on a plan of their own. Sequences are then computed again
 * from their tokens, which the head has (schedule_replay): completions are the same bytes. */
#include "src/base/clock.h"
#include "src/base/log.h"
#include "src/run/ring_impl.h"
#include <assert.h>
#include <stdlib.h>
#include <string.h>

static const double SETTLE_S = 0.5; /* a broken data link is often the first sign of a lost device */
enum { MAX_TRIES = 3 };             /* to make a ring of devices that are all there */

/* --- with it ------------------------------------------------------------------------------------------- */
static int bring_back(ring *r, size_t i, pr_err *err)
{
    peer_facts f = peer_about(r->p[i]);
    int rc;

    progress_note_up(r->by.progress, peer_name(r->p[i]), false);
    log_warn("%s is lost: %s; last seen at micro-batch %llu, layer %u", peer_name(r->p[i]), f.why.msg,
             (unsigned long long)f.beat.batch, f.beat.layer);
    if (r->restarts >= r->o->restarts)
        return pr_fail(err, f.why.code, "%s is lost (%s) and %u restarts are used up", peer_name(r->p[i]),
                       f.why.msg, r->restarts);
    r->restarts++;
    if ((rc = ring_greet(r, i, sock_deadline(r->sizes.connect_s), err)) || (rc = ring_send_job(r, i, err)) ||
        (rc = ring_await_ready(r, i, err)))
        return rc;
    ring_warn_of_mix(r);
    progress_note_restart(r->by.progress);
    return PR_OK;
}

/* --- without it ---------------------------------------------------------------------------------------- */
static void dismiss(ring *r, size_t i)
{
    peer_stop(r->p[i]);
    peer_free(r->p[i]);
    launch_stop(r->launched[i], 0);
    r->p[i] = NULL;
    r->launched[i] = NULL;
}

static size_t find_peer(const ring *r, const char *name)
{
    size_t i = 1;

    while (i < r->n && (!r->p[i] || strcmp(peer_name(r->p[i]), name))) i++;
    return i;
}

/* Devices that the new plan has keep their connection, in its order; the others leave, and are missed: the
 * one that is lost, and those that the plan without it has no layers for. */
static void keep_devices(ring *r, const plan *p)
{
    pthread_mutex_lock(&r->peers_mutex);
    for (size_t rank = 1; rank < p->n_devices; rank++) {
        size_t i = find_peer(r, p->device[rank].name);
        assert(i < r->n); /* plans are made of devices that are here */
        peer *q = r->p[rank];
        launched *l = r->launched[rank];
        report_mark mark = r->mark[rank];
        r->p[rank] = r->p[i];
        r->launched[rank] = r->launched[i];
        r->mark[rank] = r->mark[i];
        r->p[i] = q;
        r->launched[i] = l;
        r->mark[i] = mark;
    }
    for (size_t i = p->n_devices; i < r->n; i++) {
        ring_miss(r, peer_name(r->p[i]));
        dismiss(r, i);
    }
    r->n = p->n_devices;
    pthread_mutex_unlock(&r->peers_mutex);
}

/* The head lets go of its layers: the new ones may need the memory. */
static void drop_head(ring *r)
{
    device *d = r->d;

    pthread_mutex_lock(&r->watch.mutex);
    r->d = NULL;
    pthread_mutex_unlock(&r->watch.mutex);
    device_free(d);
}

int ring_check_plan(const ring *r, const char *text, size_t n, pr_err *err)
{
    uint32_t n_devices = 1;
    pr_err why = {0};

    for (uint32_t rank = 0; rank < n_devices; rank++) {
        job *j;
        int rc = job_new(&j, text, n, rank, &r->sizes, &why);
        if (rc) return pr_fail(err, rc == PR_EMISMATCH ? PR_EINFEASIBLE : (pr_code)rc, "%s", why.msg);
        n_devices = (uint32_t)j->plan->n_devices;
        job_free(j);
    }
    return PR_OK;
}

/* Everybody gets the new plan's job and loads, also when one is lost meanwhile: it is the next in turn. There
 * is always a head, or an error that ends the run. */
int ring_adopt(ring *r, char *text, size_t n, pr_err *err)
{
    job *j;
    pr_err why = {0};
    int sent, rc = job_new(&j, text, n, 0, &r->sizes, err);

    if (rc) {
        free(text);
        return rc;
    }
    drop_head(r);
    job_free(r->j);
    free(r->plan_text);
    r->j = j;
    r->plan_text = text;
    r->plan_bytes = n;
    keep_devices(r, j->plan);
    for (size_t i = 1; i < r->n; i++) {
        sent = peer_job(r->p[i], job_to_json(text, n, (uint32_t)i, &r->sizes), rc ? NULL : err);
        if (!rc) rc = sent;
    }
    if (ring_load_head(r, &why)) return pr_fail(err, why.code, "%s", why.msg);
    if ((sent = ring_await_all(r, &why)) && !rc) /* one that cannot load is as good as lost */
        rc = pr_fail(err, sent == PR_EINTERRUPTED ? PR_EINTERRUPTED : PR_EPEER, "%s", why.msg);
    return rc;
}

/* PR_EINFEASIBLE: what is left cannot do it. */
static int go_on_without(ring *r, size_t lost, pr_err *err)
{
    char name[33], *text;
    plan *p;
    size_t n;
    int rc;

    snprintf(name, sizeof name, "%s", peer_name(r->p[lost]));
    if ((rc = plan_without(&p, r->j->plan, name, r->o->facts, err))) return rc;
    text = plan_text(p, &n);
    rc = text ? ring_check_plan(r, text, n, err) : pr_fail(err, PR_ERESOURCE, "out of memory");
    if (!rc)
        log_warn("going on without %s: %zu devices, %u rounds, %.0f ms a pass as predicted", name,
                 p->n_devices, p->rounds, p->predicted.pass_ms);
    plan_free(p);
    if (!rc) return ring_adopt(r, text, n, err);
    free(text);
    return rc;
}

/* --- both ------------------------------------------------------------------------------------------------
 */
/* An error: neither with it nor without it, and no more restarts. Its code is that of the device's own
 * failure (PR_EPEER when it was only lost; a full disk stays a full disk), or of ours when disk or memory are
 * too small here. */
static int replace(ring *r, size_t lost, pr_err *err)
{
    char name[33];
    pr_err why, without = {0};
    int rc = bring_back(r, lost, err);

    if (!rc || rc == PR_EINTERRUPTED) return rc;
    snprintf(name, sizeof name, "%s", peer_name(r->p[lost]));
    log_warn("%s", err->msg);
    why = *err;
    rc = go_on_without(r, lost, &without);
    if (!rc || rc == PR_EPEER) return PR_OK; /* or another one is lost: it is the next in turn */
    if (rc == PR_EINFEASIBLE && r->restarts < r->o->restarts) return PR_OK; /* once more */
    if (rc == PR_EINTERRUPTED) return pr_fail(err, PR_EINTERRUPTED, "%s", without.msg);
    return pr_fail(err, rc == PR_ERESOURCE ? PR_ERESOURCE : why.code, "%.200s. Without %s: %.200s", why.msg,
                   name, without.msg);
}

/* What has been done stands in the tables before anything begins anew; that they cannot be written is no
 * device's fault. */
int ring_mend(ring *r, const pr_err *why, pr_err *err)
{
    int rc = ring_rows_to_date(r, SETTLE_S, err);

    if (rc) return rc;
    if (r->returned) {
        if ((rc = ring_take_back(r, err)) && rc != PR_EPEER) return rc;
    } else {
        log_warn("the ring has broken: %s", why->msg);
    }
    rc = PR_EPEER;
    for (int tries = 0; rc && tries < MAX_TRIES;) {
        size_t lost = peers_wait_lost(&r->watch, r->p, r->n, 0);
        if (lost) {
            if ((rc = replace(r, lost, err))) return rc;
            rc = PR_EPEER;
            continue;
        }
        rc = ring_form(r, err);
        if (rc == PR_EINTERRUPTED) return rc;
        if (rc) log_warn("the ring could not be made: %s", err->msg);
        tries += rc && !peers_wait_lost(&r->watch, r->p, r->n, sock_deadline(SETTLE_S));
    }
    if (!rc) log_info("the ring runs again; sequences on their way are computed again");
    return rc;
}
