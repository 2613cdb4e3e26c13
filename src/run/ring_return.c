/* Devices that the ring goes on without are waited for by a thread: it starts or finds them, lets them load
 * their layers of the plan with everybody who is there, and then raises `returned`. The ring is made again
 * with them between two micro-batches. */
#include "src/base/clock.h"
#include "src/base/cond.h"
#include "src/base/log.h"
#include "src/base/thread.h"
#include "src/run/ring_impl.h"
#include <stdlib.h>
#include <string.h>

static const double TRY_S = 5, BETWEEN_S = 10;

/* --- the plan with those that are there ----------------------------------------------------------------- */
static bool is_away(ring *r, const char *name, const char *but)
{
    bool away = false;

    pthread_mutex_lock(&r->peers_mutex);
    for (const gone *g = r->gone; g; g = g->next) {
        if (!strcmp(g->name, name)) away = !g->ready && strcmp(name, but);
    }
    pthread_mutex_unlock(&r->peers_mutex);
    return away;
}

/* The user's plan without those that are away still; `back` counts as here. */
static int plan_with(ring *r, const char *back, char **text, size_t *n, pr_err *err)
{
    plan *p, *smaller;
    int rc = plan_parse(&p, r->o->plan_text, r->o->plan_bytes, "plan", err);

    for (size_t i = 1; !rc && i < p->n_devices;) {
        if (!is_away(r, p->device[i].name, back)) {
            i++;
            continue;
        }
        rc = plan_without(&smaller, p, p->device[i].name, r->o->facts, err);
        plan_free(p);
        p = rc ? NULL : smaller;
        i = 1;
    }
    if (rc) return rc;
    *text = plan_text(p, n);
    plan_free(p);
    if (!*text) return pr_fail(err, PR_ERESOURCE, "out of memory");
    if ((rc = ring_check_plan(r, *text, *n, err))) free(*text);
    return rc;
}

/* --- waiting -----------------------------------------------------------------------------------------------
 */
static bool is_ready(const peer_facts *f, uint64_t arg)
{
    (void)arg;
    return f->state == PEER_READY;
}

static int connect_and_load(ring *r, gone *g, const job *j, const char *text, size_t n, pr_err *err)
{
    uint64_t deadline = sock_deadline(TRY_S);
    const plan_device *d = job_device(j);
    const peer_terms terms = ring_terms(r);
    sock_addr at = {.port = d->port};
    peer *p = NULL;
    int rc;

    snprintf(at.host, sizeof at.host, "%s", d->host);
    if ((rc = ring_launch(r, d, &g->l, deadline, err)) ||
        (rc = peer_new(&p, d->name, &r->watch, r->source, err)))
        return rc;
    peer_set_member(p, false); /* nobody is alarmed when it is lost again */
    if ((rc = peer_connect(p, &at, &r->so, &r->sec, &terms, r->sizes.peer_s, deadline, err))) {
        peer_free(p);
        return rc;
    }
    pthread_mutex_lock(&r->peers_mutex);
    g->p = p;
    pthread_mutex_unlock(&r->peers_mutex);
    if ((rc = peer_job(p, job_to_json(text, n, j->rank, &r->sizes), err))) return rc;
    do rc = peer_wait(p, is_ready, 0, "loading", sock_deadline(1), err);
    while (rc == PR_EPEER && peer_about(p).state != PEER_LOST && !r->over);
    return rc;
}

static void let_go(ring *r, gone *g)
{
    pthread_mutex_lock(&r->peers_mutex);
    peer *p = g->p;
    g->p = NULL;
    pthread_mutex_unlock(&r->peers_mutex);
    peer_free(p);
    launch_stop(g->l, 0);
    g->l = NULL;
}

static int try_one(ring *r, gone *g, pr_err *err)
{
    char *text = NULL;
    size_t n = 0;
    job *j = NULL;
    int rc;

    if ((rc = plan_with(r, g->name, &text, &n, err))) text = NULL;
    for (uint32_t rank = 1; !rc && !j; rank++) {
        if ((rc = job_new(&j, text, n, rank, &r->sizes, err)) || !strcmp(job_device(j)->name, g->name)) break;
        job_free(j);
        j = NULL;
    }
    if (!rc) rc = connect_and_load(r, g, j, text, n, err);
    job_free(j);
    free(text);
    if (rc) {
        let_go(r, g);
        return rc;
    }
    pthread_mutex_lock(&r->peers_mutex);
    g->ready = true;
    pthread_mutex_unlock(&r->peers_mutex);
    r->returned = true;
    return PR_OK;
}

static gone *next_away(ring *r)
{
    pthread_mutex_lock(&r->peers_mutex);
    gone *g = r->gone;
    while (g && g->ready) g = g->next;
    pthread_mutex_unlock(&r->peers_mutex);
    return g;
}

static void *wait_for_them(void *arg)
{
    ring *r = arg;

    while (!r->over) {
        uint64_t until = sock_deadline(r->sizes.peer_s < BETWEEN_S ? r->sizes.peer_s : BETWEEN_S);
        gone *g = r->returned ? NULL : next_away(r);
        pr_err err = {0};
        if (g && try_one(r, g, &err)) log_debug("%s is not back: %s", g->name, err.msg);
        pthread_mutex_lock(&r->watch.mutex);
        while (!r->over && clock_ns() < until) cond_wait_until(&r->watch.changed, &r->watch.mutex, until);
        pthread_mutex_unlock(&r->watch.mutex);
    }
    return NULL;
}

void ring_miss(ring *r, const char *name)
{
    gone *g = calloc(1, sizeof *g);

    if (!g) return;
    snprintf(g->name, sizeof g->name, "%s", name);
    g->next = r->gone;
    r->gone = g;
    if (!r->has_returning) r->has_returning = thread_start(&r->returning, wait_for_them, r) == 0;
}

/* --- joining ---------------------------------------------------------------------------------------------
 */
/* Devices that are ready get a place in the ring's list; ring_adopt puts them in the plan's order. */
static void take_ready(ring *r)
{
    pthread_mutex_lock(&r->peers_mutex);
    for (gone **at = &r->gone; *at;) {
        gone *g = *at;
        if (!g->ready) {
            at = &g->next;
            continue;
        }
        log_info("%s is back", g->name);
        progress_note_restart(r->by.progress);
        peer_set_member(g->p, true);
        r->p[r->n] = g->p;
        r->launched[r->n] = g->l;
        r->mark[r->n++] = (report_mark){.at_ns = clock_ns()};
        *at = g->next;
        free(g);
    }
    r->returned = false;
    pthread_mutex_unlock(&r->peers_mutex);
}

/* There is no plan with those that are ready. */
static void send_away(ring *r)
{
    for (gone *g = r->gone; g; g = g->next) { /* the thread that waits leaves the list alone */
        if (!g->ready) continue;
        let_go(r, g);
        pthread_mutex_lock(&r->peers_mutex);
        g->ready = false;
        pthread_mutex_unlock(&r->peers_mutex);
    }
    r->returned = false;
}

int ring_take_back(ring *r, pr_err *err)
{
    char *text;
    size_t n;
    int rc;

    if ((rc = plan_with(r, "", &text, &n, err))) {
        log_warn("the ring stays as it is: %s", err->msg);
        send_away(r);
        return rc == PR_EINFEASIBLE ? PR_EPEER : rc;
    }
    take_ready(r);
    ring_warn_of_mix(r);
    return ring_adopt(r, text, n, err);
}

void ring_stop_waiting(ring *r)
{
    if (r->has_returning) pthread_join(r->returning, NULL);
    while (r->gone) {
        gone *g = r->gone;
        r->gone = g->next;
        if (g->p) peer_stop(g->p);
        peer_free(g->p);
        launch_stop(g->l, 0);
        free(g);
    }
}
