/* Continuous batching; see schedule.h. Sequences keep the order of their admission in `running`, so that the
 * composition of batches is a function of the requests and of what has finished, and the oldest prompt is
 * always the next to be prefilled. */
#include "src/run/schedule.h"
#include "kernels/kernels.h"
#include <assert.h>
#include <stdlib.h>
#include <string.h>

struct schedule {
    size_t n_slots, max_tokens;
    pages *pages;
    sequence **running; /* [n_running] in order of admission */
    size_t n_running;
    bool *slot_taken;
    batch b;
    int32_t *token, *out;
    batch_run *run;
    sequence **out_seq;
    size_t n_prefill;
};

static size_t pages_for(size_t n_tokens)
{
    return (n_tokens + KV_PAGE - 1) / KV_PAGE;
}

schedule *schedule_new(size_t n_slots, size_t max_tokens, size_t n_pages)
{
    schedule *s = calloc(1, sizeof *s);

    assert(max_tokens >= n_slots);
    if (!s) return NULL;
    s->n_slots = n_slots;
    s->max_tokens = max_tokens;
    s->pages = pages_new(n_pages);
    s->running = calloc(n_slots, sizeof *s->running);
    s->slot_taken = calloc(n_slots, sizeof *s->slot_taken);
    s->token = calloc(max_tokens, sizeof *s->token);
    s->out = calloc(n_slots, sizeof *s->out);
    s->run = calloc(n_slots, sizeof *s->run);
    s->out_seq = calloc(n_slots, sizeof(sequence *));
    if (!s->pages || !s->running || !s->slot_taken || !s->token || !s->out || !s->run || !s->out_seq) {
        schedule_free(s);
        return NULL;
    }
    s->b = (batch){.token = s->token, .run = s->run, .out = s->out};
    return s;
}

void schedule_free(schedule *s)
{
    if (!s) return;
    for (size_t i = 0; i < s->n_running; i++) sequence_free(s->running[i]);
    pages_free(s->pages);
    free(s->running);
    free(s->slot_taken);
    free(s->token);
    free(s->out);
    free(s->run);
    free(s->out_seq);
    free(s);
}

size_t schedule_running(const schedule *s)
{
    return s->n_running;
}

bool schedule_has_room(const schedule *s, size_t n_tokens)
{
    return s->n_running < s->n_slots && pages_available(s->pages) >= pages_for(n_tokens);
}

static int32_t parent_of(const sequence *seq, size_t page)
{
    return page ? seq->pages[page - 1] : -1;
}

/* The page after the tokens computed so far when somebody has computed it already, with one owner more; -1:
 * none. At least the last prompt token is computed by the sequence itself: its logits are wanted. */
static int32_t find_next_page(schedule *s, const sequence *seq)
{
    if (seq->n_computed % KV_PAGE || seq->n_computed + KV_PAGE >= seq->n_prompt) return -1;
    return pages_find(s->pages, parent_of(seq, seq->n_computed / KV_PAGE), seq->tokens.id + seq->n_computed);
}

static void use_page(sequence *seq, int32_t page)
{
    seq->pages[seq->n_computed / KV_PAGE] = page;
    seq->n_computed += KV_PAGE;
    seq->n_cached += KV_PAGE;
}

/* Shared pages first: taking free ones might give away the very pages of this prompt's beginning. */
static void take_pages(schedule *s, sequence *seq)
{
    int32_t page;

    while ((page = find_next_page(s, seq)) >= 0) use_page(seq, page);
    for (size_t i = seq->n_computed / KV_PAGE; i < seq->n_pages; i++) {
        seq->pages[i] = pages_take(s->pages);
        assert(seq->pages[i] >= 0);
    }
}

int schedule_admit(schedule *s, sequence *seq, pr_err *err)
{
    size_t slot = 0;

    assert(s->n_running < s->n_slots);
    seq->n_pages = pages_for(seq->n_prompt + seq->req.max_tokens);
    seq->pages = calloc(seq->n_pages, sizeof *seq->pages);
    if (!seq->pages) return pr_fail(err, PR_ERESOURCE, "out of memory");
    take_pages(s, seq);
    while (s->slot_taken[slot]) slot++;
    s->slot_taken[slot] = true;
    seq->slot = slot;
    s->running[s->n_running++] = seq;
    return PR_OK;
}

/* Skip what another sequence has computed since this one was admitted. */
static void share_prefix(schedule *s, sequence *seq)
{
    int32_t page;

    while ((page = find_next_page(s, seq)) >= 0) {
        pages_release(s->pages, seq->pages[seq->n_computed / KV_PAGE]);
        use_page(seq, page);
    }
}

/* n tokens of seq join the batch; the pages that they fill become findable (they are written before anything
 * later reads them). */
static void add_run(schedule *s, sequence *seq, size_t n)
{
    batch *b = &s->b;

    s->run[b->n_runs++] =
        (batch_run){.first = b->n_tokens, .n = n, .pos = seq->n_computed, .pages = seq->pages};
    memcpy(s->token + b->n_tokens, seq->tokens.id + seq->n_computed, n * sizeof *s->token);
    for (size_t page = seq->n_computed / KV_PAGE; page < (seq->n_computed + n) / KV_PAGE; page++)
        pages_register(s->pages, seq->pages[page], parent_of(seq, page), seq->tokens.id + page * KV_PAGE);
    seq->n_computed += n;
    b->n_tokens += n;
    if (seq->n_computed < seq->tokens.n) return;
    s->out_seq[b->n_out] = seq;
    s->out[b->n_out++] = (int32_t)(b->n_tokens - 1);
}

const batch *schedule_next(schedule *s)
{
    s->b.n_tokens = s->b.n_runs = s->b.n_out = s->n_prefill = 0;
    for (size_t i = 0; i < s->n_running; i++) {
        sequence *seq = s->running[i];
        if (seq->n_computed >= seq->n_prompt) add_run(s, seq, 1);
    }
    for (size_t i = 0; i < s->n_running && s->b.n_tokens < s->max_tokens; i++) {
        sequence *seq = s->running[i];
        size_t room = s->max_tokens - s->b.n_tokens, left;
        if (seq->n_computed >= seq->n_prompt) continue;
        share_prefix(s, seq);
        left = seq->n_prompt - seq->n_computed;
        add_run(s, seq, left < room ? left : room);
        s->n_prefill += left < room ? left : room;
    }
    return &s->b;
}

sequence *schedule_out(const schedule *s, size_t i)
{
    return s->out_seq[i];
}
size_t schedule_prefill_tokens(const schedule *s)
{
    return s->n_prefill;
}

void schedule_remove(schedule *s, sequence *seq)
{
    size_t i = 0;

    while (s->running[i] != seq) i++;
    memmove(s->running + i, s->running + i + 1, (s->n_running - i - 1) * sizeof *s->running);
    s->n_running--;
    s->slot_taken[seq->slot] = false;
    /* Last page first: of a chain, the end is the first to be given away. */
    for (size_t p = seq->n_pages; p-- > 0;) pages_release(s->pages, seq->pages[p]);
}
