/* Where a run stands; see progress.h. */
#include "src/run/progress.h"
#include "src/base/clock.h"
#include "src/run/rate.h"
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    progress_shown s;
    progress_device last;
    rate busy;
} known;

struct progress {
    pthread_mutex_t mutex;
    uint64_t start_ns;
    progress_run run;
    rate tokens;
    uint32_t restarts;
    known device[PROGRESS_DEVICES];
    size_t n_devices;
};

progress *progress_new(void)
{
    progress *p = calloc(1, sizeof *p);

    if (!p) return NULL;
    pthread_mutex_init(&p->mutex, NULL);
    p->start_ns = clock_ns();
    return p;
}

void progress_free(progress *p)
{
    if (!p) return;
    pthread_mutex_destroy(&p->mutex);
    free(p);
}

/* --- telling it ------------------------------------------------------------------------------------------
 */
void progress_note_run(progress *p, const progress_run *r)
{
    uint64_t now = clock_ns();

    if (!p) return;
    pthread_mutex_lock(&p->mutex);
    if (!p->tokens.n) p->start_ns = now; /* loading does not count */
    p->run = *r;
    rate_add(&p->tokens, now, (double)r->completion_tokens);
    pthread_mutex_unlock(&p->mutex);
}

/* The mutex is held. NULL: no more room. */
static known *find(progress *p, const char *name)
{
    known *k = p->device;

    while (k < p->device + p->n_devices && strcmp(k->s.name, name)) k++;
    if (k < p->device + p->n_devices) return k;
    if (p->n_devices == PROGRESS_DEVICES) return NULL;
    p->n_devices++;
    snprintf(k->s.name, sizeof k->s.name, "%s", name);
    return k;
}

static uint64_t grown(uint64_t from, uint64_t to, bool anew)
{
    return anew ? to : to > from ? to - from : 0;
}

/* The mutex is held. */
static void note_device(known *k, const progress_device *d)
{
    const progress_device *l = &k->last;
    bool anew = d->since_ns != l->since_ns;
    progress_device *t = &k->s.total;

    t->at_ns = d->at_ns;
    t->compute_s += anew ? d->compute_s : d->compute_s - l->compute_s;
    t->wait_s += anew ? d->wait_s : fmax(0, d->wait_s - l->wait_s);
    t->send_s += anew ? d->send_s : fmax(0, d->send_s - l->send_s);
    t->disk_s += anew ? d->disk_s : fmax(0, d->disk_s - l->disk_s);
    t->disk_bytes += grown(l->disk_bytes, d->disk_bytes, anew);
    t->rx_bytes += grown(l->rx_bytes, d->rx_bytes, anew);
    t->tx_bytes += grown(l->tx_bytes, d->tx_bytes, anew);
    k->last = *d;
    k->s.is_up = true;
    if (anew) k->busy = (rate){0};
    rate_add(&k->busy, d->at_ns, d->compute_s + d->disk_s);
}

void progress_note_device(progress *p, const char *name, const progress_device *d)
{
    known *k;

    if (!p) return;
    pthread_mutex_lock(&p->mutex);
    if ((k = find(p, name))) note_device(k, d);
    pthread_mutex_unlock(&p->mutex);
}

void progress_note_up(progress *p, const char *name, bool is_up)
{
    known *k;

    if (!p) return;
    pthread_mutex_lock(&p->mutex);
    if ((k = find(p, name))) k->s.is_up = is_up;
    pthread_mutex_unlock(&p->mutex);
}

void progress_note_restart(progress *p)
{
    if (!p) return;
    pthread_mutex_lock(&p->mutex);
    p->restarts++;
    pthread_mutex_unlock(&p->mutex);
}

/* --- asking it -------------------------------------------------------------------------------------------
 */
/* As long as those that are done took in this run. */
static double left_s(const progress *p, uint64_t now)
{
    size_t done = p->run.n_ok + p->run.n_failed, left = p->run.n_all - p->run.n_done;
    return done ? (double)(now - p->start_ns) / 1e9 / (double)done * (double)left : NAN;
}

/* A device's share is of its own time up to its last news: it may have been silent because it computes. */
void progress_look(progress *p, progress_view *v)
{
    uint64_t now = clock_ns();

    pthread_mutex_lock(&p->mutex);
    v->run = p->run;
    v->tokens_per_s = rate_per_s(&p->tokens, now);
    v->left_s = left_s(p, now);
    v->restarts = p->restarts;
    v->n_devices = p->n_devices;
    for (size_t i = 0; i < p->n_devices; i++) {
        v->device[i] = p->device[i].s;
        v->device[i].busy = fmin(1, rate_per_s(&p->device[i].busy, 0));
    }
    pthread_mutex_unlock(&p->mutex);
}

static const progress_shown *slowest(const progress_view *v)
{
    const progress_shown *most = NULL;

    for (size_t i = 0; i < v->n_devices; i++) {
        const progress_shown *d = &v->device[i];
        if (d->is_up && d->busy > 0 && (!most || d->busy > most->busy)) most = d;
    }
    return most;
}

static void print_left(char *out, size_t n, double s)
{
    unsigned long t = s < 1e9 ? (unsigned long)(s + 0.5) : 0;

    if (!(s < 1e9)) *out = 0;
    else if (t < 60) snprintf(out, n, ", %lu s left", t);
    else if (t < 3600) snprintf(out, n, ", %lu min %02lu s left", t / 60, t % 60);
    else snprintf(out, n, ", %lu h %02lu min left", t / 3600, t / 60 % 60);
}

void progress_line(const progress_view *v, char *out, size_t n)
{
    const progress_shown *most = v->n_devices > 1 ? slowest(v) : NULL;
    char left[64], busy[PROGRESS_NAME_BYTES + 32] = "";

    print_left(left, sizeof left, v->left_s);
    if (most) snprintf(busy, sizeof busy, ", slowest: %s %.0f %%", most->name, 100 * most->busy);
    snprintf(out, n, "%zu of %zu done, %zu running, %.1f tokens/s%s%s", v->run.n_done, v->run.n_all,
             v->run.n_running, v->tokens_per_s, left, busy);
}
