/* Rows of what the devices of the ring have done: every second, before counts begin anew because the ring is
 * mended, and at the end. Workers say it in their beats, the head knows. */
#include "src/run/ring_impl.h"

static int report_peer(ring *r, size_t i, pr_err *err)
{
    peer_facts f = peer_about(r->p[i]);
    device_counts now = counts_of_beat(&f.beat);
    host_row host;

    if (f.beats == r->mark[i].beats) return PR_OK;
    report_progress(r->by.progress, peer_name(r->p[i]), &now);
    host = peer_take_host(r->p[i]);
    r->mark[i].beats = f.beats;
    return report_device(r->by.t, r->j->plan, i, &now, &host, &r->mark[i], r->o->start_ns, err);
}

static int report_head(ring *r, pr_err *err)
{
    const char *name = r->j->plan->device[0].name;
    device_counts own = counts_of_device(r->d);
    int rc = report_device(r->by.t, r->j->plan, 0, &own, NULL, &r->mark[0], r->o->start_ns, err);

    report_progress(r->by.progress, name, &own);
    report_spans(r->by.trace, name, device_stage(r->d));
    return rc;
}

int ring_rows(ring *r, pr_err *err)
{
    int rc = r->d ? report_head(r, err) : PR_OK;

    for (size_t i = 1; i < r->n && !rc; i++) rc = report_peer(r, i, err);
    return rc;
}

static bool has_answered(const peer_facts *f, uint64_t answers)
{
    return f->answers > answers;
}

/* One that still loads has done nothing, and may be busy with what we send it. */
int ring_rows_to_date(ring *r, double within_s, pr_err *err)
{
    uint64_t answers[CLUSTER_MAX_DEVICES], deadline = sock_deadline(within_s);
    bool asked[CLUSTER_MAX_DEVICES] = {false};

    for (size_t i = 1; i < r->n; i++) {
        peer_facts f = peer_about(r->p[i]);
        answers[i] = f.answers;
        asked[i] = f.state == PEER_READY;
        if (asked[i]) peer_ask(r->p[i]);
    }
    for (size_t i = 1; i < r->n; i++)
        if (asked[i]) peer_wait(r->p[i], has_answered, answers[i], "a beat", deadline, NULL);
    return ring_rows(r, err);
}
