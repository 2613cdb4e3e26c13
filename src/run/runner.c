/* The head's loop: admit, make a batch, compute, sample, write what is finished. One pass of the loop is one
 * step of the job; nothing is allocated in it but what admitting and finishing a request need. */
#include "src/run/runner.h"
#include "src/base/clock.h"
#include "src/base/log.h"
#include "src/run/request.h"
#include "src/run/schedule.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { DEVICE_ROW_MS = 1000 };

/* What the device did since its last row of timings. */
typedef struct {
    uint64_t since_ns, passes, tokens, prefill_tokens;
    double compute_ms;
} interval;

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
    interval interval;
} runner;

/* --- timings of the device ------------------------------------------------------------------------- */
static const char *phase_of(const interval *v)
{
    return v->prefill_tokens == 0 ? "decode" : v->prefill_tokens == v->tokens ? "prefill" : "mixed";
}

static int write_interval(runner *r, uint64_t now, pr_err *err)
{
    interval *v = &r->interval;
    timings_device_row row = {.rank = 0,
                              .device = "local",
                              .phase = phase_of(v),
                              .interval_start_ms = (double)(v->since_ns - r->start_ns) / 1e6,
                              .wall_ms = (double)(now - v->since_ns) / 1e6,
                              .compute_cpu_ms = v->compute_ms,
                              .passes = v->passes,
                              .tokens = v->tokens,
                              .predicted_pass_ms = NAN,
                              .measured_pass_ms = v->passes ? v->compute_ms / (double)v->passes : NAN};
    int rc = r->o->t && v->passes ? timings_device(r->o->t, &row, err) : PR_OK;

    *v = (interval){.since_ns = now};
    return rc;
}

static int note_pass(runner *r, const batch *b, uint64_t from, uint64_t to, pr_err *err)
{
    interval *v = &r->interval;

    v->passes++;
    r->result->passes++;
    v->tokens += b->n_tokens;
    v->prefill_tokens += schedule_prefill_tokens(r->s);
    v->compute_ms += (double)(to - from) / 1e6;
    return to - v->since_ns >= DEVICE_ROW_MS * 1000000ull ? write_interval(r, to, err) : PR_OK;
}

static void show_progress(const runner *r, uint64_t now)
{
    double s = (double)(now - r->start_ns) / 1e9;
    size_t n = prompts_count(r->o->p), left = n - r->n_total_done;
    size_t done = r->result->n_ok + r->result->n_failed;

    log_progress("%zu of %zu done, %zu running, %.1f tokens/s, %.0f s left", r->n_total_done, n,
                 schedule_running(r->s), s > 0 ? (double)r->result->completion_tokens / s : 0.0,
                 done ? s / (double)done * (double)left : 0.0);
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

static int sample_all(runner *r, const batch *b, uint64_t now, pr_err *err)
{
    int rc = PR_OK;

    for (size_t i = 0; i < b->n_out && !rc; i++) {
        sequence *seq = schedule_out(r->s, i);
        if (all_nan(engine_logits(r->o->e, i), vocab_size(r->o->m->vocab))) {
            rc = fail(r, seq, err);
            continue;
        }
        rc = sequence_sample(seq, r->o->m->vocab, engine_logits(r->o->e, i), r->eog, r->n_eog, now, err);
        r->result->completion_tokens++;
        if (!rc && seq->finish_reason) rc = finish(r, seq, err);
    }
    return rc;
}

static int step(runner *r, pr_err *err)
{
    const batch *b = schedule_next(r->s);
    uint64_t from = clock_ns(), to;
    int rc;

    engine_forward(r->o->e, b);
    to = clock_ns();
    if ((rc = sample_all(r, b, to, err)) || (rc = note_pass(r, b, from, to, err)) ||
        (rc = output_tick(r->o->o, err)))
        return rc;
    show_progress(r, to);
    return PR_OK;
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

    while (!rc && !must_stop(r)) {
        if (!*r->o->stop && (rc = admit(r, err))) break;
        if (!schedule_running(r->s)) break;
        rc = step(r, err);
    }
    log_progress("%s", "");
    if (!rc) rc = write_interval(r, clock_ns(), err);
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
    runner r = {.o = o, .result = result, .start_ns = clock_ns()};
    int rc;

    *result = (runner_result){0};
    r.interval.since_ns = r.start_ns;
    for (size_t i = 0; i < prompts_count(o->p); i++) r.n_total_done += output_done(o->o, i);
    if (!(r.s = schedule_new(o->slots, o->micro_batch, o->n_pages)))
        return pr_fail(err, PR_ERESOURCE, "out of memory");
    rc = find_eog(&r, err);
    if (!rc) rc = loop(&r, err);
    if (r.first_admit_ns && r.last_done_ns)
        result->wall_s = (double)(r.last_done_ns - r.first_admit_ns) / 1e9;
    if (r.has_waiting) request_clear(&r.waiting);
    schedule_free(r.s);
    free(r.eog);
    return rc;
}
