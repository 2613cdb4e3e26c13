/* The head's loop: admit, make micro-batches, take the next one that is computed, sample, write what is
 * finished. Nothing is allocated in it but what admitting and finishing a request need. */
#include "src/run/runner.h"
#include "src/base/clock.h"
#include "src/base/log.h"
#include "src/run/request.h"
#include "src/run/schedule.h"
#include <math.h>
#include <stdlib.h>

#define SHOW_NS 100000000ull

typedef struct {
    const runner_options *o;
    runner_result *result;
    schedule *s;
    size_t next;     /* index of the next request to look at */
    request waiting; /* parsed, not yet admitted */
    bool has_waiting;
    int32_t *eog;
    size_t n_eog;
    uint64_t start_ns, first_admit_ns, last_done_ns, stop_ns;
    size_t n_total_done;
    uint64_t shown_ns;
    progress_view view; /* too large for a stack */
} runner;

static void note_progress(const runner *r)
{
    const runner_result *done = r->result;
    const progress_run now = {.n_ok = done->n_ok,
                              .n_failed = done->n_failed,
                              .n_done = r->n_total_done,
                              .n_all = prompts_count(r->o->p),
                              .n_running = schedule_running(r->s),
                              .prompt_tokens = done->prompt_tokens,
                              .completion_tokens = done->completion_tokens};
    progress_note_run(r->o->progress, &now);
}

static void show_progress(runner *r)
{
    uint64_t now = clock_ns();
    char line[256];

    if (now - r->shown_ns < SHOW_NS) return;
    r->shown_ns = now;
    note_progress(r);
    progress_look(r->o->progress, &r->view);
    progress_line(&r->view, line, sizeof line);
    log_progress("%s", line);
}

/* --- admission -------------------------------------------------------------------------------------- */
static int reject(runner *r, request *q, pr_err *err)
{
    request_times t = {.run_start_ns = r->start_ns};
    int rc = output_error(r->o->o, q, err);

    if (!rc && r->o->t) rc = timings_request(r->o->t, q, NULL, &t, err);
    r->result->n_failed++;
    r->n_total_done++;
    request_clear(q);
    return rc;
}

/* The next request that can run, parsed, in r->waiting; bad lines on the way are answered. */
static int fetch(runner *r, pr_err *err)
{
    int rc = PR_OK;

    while (!rc && !r->has_waiting && r->next < prompts_count(r->o->p)) {
        size_t i = r->next++;
        if (output_done(r->o->o, i)) continue;
        if ((rc = prompts_get(r->o->p, i, &r->waiting, err))) break;
        if (r->waiting.error.code == REQ_OK) r->has_waiting = true;
        else rc = reject(r, &r->waiting, err);
    }
    return rc;
}

static void warn_greedy(const runner_options *o, const request *q)
{
    static bool said;

    if (said || !o->warn_greedy || q->sampling.temperature > 0) return;
    said = true;
    log_warn(
        "greedy decoding tends to loop with this model: its card recommends temperature 0.6 and top_p 0.95");
}

static int admit(runner *r, pr_err *err)
{
    int rc;

    while (!(rc = fetch(r, err)) && r->has_waiting &&
           schedule_has_room(r->s, r->waiting.tokens.n + r->waiting.max_tokens)) {
        sequence *seq = sequence_new(&r->waiting, r->o->m->vocab, 0);
        if (!seq) return pr_fail(err, PR_ERESOURCE, "out of memory");
        r->has_waiting = false;
        seq->times.run_start_ns = seq->times.eligible_ns = r->start_ns;
        seq->times.admitted_ns = clock_ns();
        if (!r->first_admit_ns) r->first_admit_ns = seq->times.admitted_ns;
        warn_greedy(r->o, &seq->req);
        if ((rc = schedule_admit(r->s, seq, err))) {
            sequence_free(seq);
            return rc;
        }
    }
    return rc;
}

/* --- a step ------------------------------------------------------------------------------------------- */
static int finish(runner *r, sequence *seq, pr_err *err)
{
    completion c = sequence_completion(seq);
    int rc = output_completion(r->o->o, &seq->req, &c, &seq->times, err);

    if (!rc && r->o->t) rc = timings_request(r->o->t, &seq->req, &c, &seq->times, err);
    r->result->n_ok++;
    r->n_total_done++;
    r->result->prompt_tokens += seq->n_prompt;
    r->result->cached_tokens += seq->n_cached;
    r->last_done_ns = clock_ns();
    schedule_remove(r->s, seq);
    sequence_free(seq);
    return rc;
}

/* Not one of the logits is a number: a weight is NaN, or a value was too large for the KV cache. */
static bool all_nan(const float *logits, size_t n)
{
    size_t i = 0;

    while (i < n && isnan(logits[i])) i++;
    return i == n;
}

/* An error record is better than a completion made of nothing. */
static int fail(runner *r, sequence *seq, pr_err *err)
{
    int rc;

    request_bad(&seq->req, REQ_INTERNAL, "",
                "the model computes no numbers here (all logits are NaN): its weights are damaged, or its "
                "values are too large for the KV cache; try --kv-type f32");
    rc = reject(r, &seq->req, err);
    schedule_remove(r->s, seq);
    sequence_free(seq);
    return rc;
}

static int sample_all(runner *r, const micro_batch *mb, pr_err *err)
{
    int rc = PR_OK;

    for (size_t i = 0; i < mb->b.n_out && !rc; i++) {
        const float *logits = mb->logits + i * mb->logits_stride;
        if (all_nan(logits, vocab_size(r->o->m->vocab))) {
            rc = fail(r, mb->out[i], err);
            continue;
        }
        rc = sequence_sample(mb->out[i], r->o->m->vocab, logits, r->eog, r->n_eog, mb->end_ns, err);
        r->result->completion_tokens++;
        if (!rc && mb->out[i]->finish_reason) rc = finish(r, mb->out[i], err);
    }
    return rc;
}

/* As many micro-batches on their way as there can be. */
static int submit_all(runner *r, pr_err *err)
{
    micro_batch *mb;
    int rc = PR_OK;

    while (!rc && (mb = schedule_next(r->s))) rc = r->o->pipe->ops->submit(r->o->pipe, mb, err);
    return rc;
}

static int step(runner *r, pr_err *err)
{
    micro_batch *mb;
    pipe_event event;
    int rc = r->o->pipe->ops->next(r->o->pipe, &event, &mb, err);

    if (rc) return rc;
    show_progress(r);
    if (event == PIPE_WAKE) return PR_OK;
    if (event == PIPE_RESET) {
        schedule_replay(r->s);
        return PR_OK;
    }
    r->result->passes++;
    rc = sample_all(r, mb, err);
    schedule_done(r->s, mb);
    if (!rc) rc = output_tick(r->o->o, err);
    return rc;
}

/* After the first signal nothing new is admitted; running requests may finish within the grace time. */
static bool must_stop(runner *r)
{
    if (*r->o->stop_now) return true;
    if (!*r->o->stop) return false;
    if (!r->stop_ns) {
        r->stop_ns = clock_ns();
        log_info("stopping: %zu running requests may finish within %.0f s (a second signal stops at once)",
                 schedule_running(r->s), r->o->grace_s);
    }
    return clock_ms_since(r->stop_ns) >= r->o->grace_s * 1e3;
}

static int loop(runner *r, pr_err *err)
{
    int rc = PR_OK;

    note_progress(r); /* its time begins here */
    while (!rc && !must_stop(r)) {
        if ((!*r->o->stop && (rc = admit(r, err))) || (rc = submit_all(r, err))) break;
        if (!schedule_in_flight(r->s)) break;
        rc = step(r, err);
    }
    note_progress(r);
    log_progress("%s", "");
    if (!rc) rc = r->o->pipe->ops->report(r->o->pipe, err);
    if (!rc && *r->o->stop)
        rc = pr_fail(err, (pr_code)(-128 - *r->o->stop),
                     "stopped by a signal with %zu of %zu requests done: run again with --resume",
                     r->n_total_done, prompts_count(r->o->p));
    return rc;
}

/* --- set-up ----------------------------------------------------------------------------------------------
 */
static int find_eog(runner *r, pr_err *err)
{
    const vocab *v = r->o->m->vocab;

    r->eog = malloc((vocab_size(v) + 1) * sizeof *r->eog);
    if (!r->eog) return pr_fail(err, PR_ERESOURCE, "out of memory");
    for (uint32_t id = 0; id < vocab_size(v); id++) {
        if (vocab_is_eog(v, (int32_t)id)) r->eog[r->n_eog++] = (int32_t)id;
    }
    return PR_OK;
}

int runner_run(const runner_options *o, runner_result *result, pr_err *err)
{
    schedule_options so = {.n_slots = o->slots,
                           .depth = o->pipe->depth,
                           .max_tokens = o->pipe->max_tokens,
                           .max_prefill = o->pipe->max_prefill,
                           .n_pages = o->n_pages};
    runner r = {.o = o, .result = result, .start_ns = o->start_ns};
    int rc;

    *result = (runner_result){0};
    for (size_t i = 0; i < prompts_count(o->p); i++) r.n_total_done += output_done(o->o, i);
    if (!(r.s = schedule_new(&so))) return pr_fail(err, PR_ERESOURCE, "out of memory");
    rc = find_eog(&r, err);
    if (!rc) rc = loop(&r, err);
    if (r.first_admit_ns && r.last_done_ns)
        result->wall_s = (double)(r.last_done_ns - r.first_admit_ns) / 1e9;
    if (r.has_waiting) request_clear(&r.waiting);
    schedule_free(r.s);
    free(r.eog);
    return rc;
}
