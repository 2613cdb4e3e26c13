/* Continuous batching; see schedule.h. Sequences keep the order of their admission in `running`, so that the
 * composition of batches is a function of the requests and of what has finished, and the oldest prompt is
 * always the next to be prefilled. */
#include "src/run/schedule.h"
#include "kernels/kernels.h"
#include <assert.h>
#include <stdlib.h>
#include <string.h>

/* A micro-batch and the arrays that it points to. */
typedef struct {
    micro_batch mb; /* first: the caller's pointer is ours */
    bool taken;
    int32_t *token, *out;
    batch_run *run;
} carrier;

struct schedule {
    schedule_options o;
    pages *pages;
    sequence **running; /* [n_running] in order of admission */
    size_t n_running, n_in_flight;
    bool *slot_taken;
    carrier *carrier; /* [depth] */
    uint64_t next_id;
};

static size_t pages_for(size_t n_tokens)
{
    return (n_tokens + KV_PAGE - 1) / KV_PAGE;
}

static bool carrier_init(carrier *c, const schedule_options *o)
{
    c->token = calloc(o->max_tokens, sizeof *c->token);
    c->out = calloc(o->n_slots, sizeof *c->out);
    c->run = calloc(o->n_slots, sizeof *c->run);
    c->mb.out = calloc(o->n_slots, sizeof(sequence *));
    c->mb.b = (batch){.token = c->token, .run = c->run, .out = c->out};
    return c->token && c->out && c->run && c->mb.out;
}

schedule *schedule_new(const schedule_options *o)
{
    schedule *s = calloc(1, sizeof *s);
    bool memory;

    assert(o->max_tokens >= o->n_slots && o->depth >= 1);
    assert(o->max_prefill >= 1 && o->max_prefill <= o->max_tokens);
    if (!s) return NULL;
    s->o = *o;
    s->pages = pages_new(o->n_pages);
    s->running = calloc(o->n_slots, sizeof *s->running);
    s->slot_taken = calloc(o->n_slots, sizeof *s->slot_taken);
    s->carrier = calloc(o->depth, sizeof *s->carrier);
    memory = s->pages && s->running && s->slot_taken && s->carrier;
    for (size_t i = 0; i < o->depth && memory; i++) memory = carrier_init(&s->carrier[i], o);
    if (memory) return s;
    schedule_free(s);
    return NULL;
}

void schedule_free(schedule *s)
{
    if (!s) return;
    for (size_t i = 0; i < s->n_running; i++) sequence_free(s->running[i]);
    for (size_t i = 0; s->carrier && i < s->o.depth; i++) {
        free(s->carrier[i].token);
        free(s->carrier[i].out);
        free(s->carrier[i].run);
        free(s->carrier[i].mb.out);
    }
    pages_free(s->pages);
    free(s->running);
    free(s->slot_taken);
    free(s->carrier);
    free(s);
}

size_t schedule_running(const schedule *s)
{
    return s->n_running;
}

bool schedule_has_room(const schedule *s, size_t n_tokens)
{
    return s->n_running < s->o.n_slots && pages_available(s->pages) >= pages_for(n_tokens);
}

static int32_t parent_of(const sequence *seq, size_t page)
{
    return page ? seq->pages[page - 1] : -1;
}

/* The page after the tokens computed so far when somebody has computed it already, with one owner more; -1:
 * none. At least the last token is computed by the sequence itself: its logits are wanted. */
static int32_t find_next_page(schedule *s, const sequence *seq)
{
    if (seq->n_computed % KV_PAGE || seq->n_computed + KV_PAGE >= seq->tokens.n) return -1;
    return pages_find(s->pages, parent_of(seq, seq->n_computed / KV_PAGE), seq->tokens.id + seq->n_computed);
}

/* In a replay completions are shared too; what is counted are tokens of the prompt. */
static void use_page(sequence *seq, int32_t page)
{
    size_t left = seq->n_computed < seq->n_prompt ? seq->n_prompt - seq->n_computed : 0;

    seq->pages[seq->n_computed / KV_PAGE] = page;
    seq->n_computed += KV_PAGE;
    seq->n_cached += left < KV_PAGE ? left : KV_PAGE;
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

    assert(s->n_running < s->o.n_slots);
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
static void add_run(schedule *s, carrier *c, sequence *seq, size_t n)
{
    batch *b = &c->mb.b;

    c->run[b->n_runs++] =
        (batch_run){.first = b->n_tokens, .n = n, .pos = seq->n_computed, .pages = seq->pages};
    memcpy(c->token + b->n_tokens, seq->tokens.id + seq->n_computed, n * sizeof *c->token);
    for (size_t page = seq->n_computed / KV_PAGE; page < (seq->n_computed + n) / KV_PAGE; page++)
        pages_register(s->pages, seq->pages[page], parent_of(seq, page), seq->tokens.id + page * KV_PAGE);
    seq->n_computed += n;
    b->n_tokens += n;
    if (seq->n_computed < seq->tokens.n) return;
    c->mb.out[b->n_out] = seq;
    c->out[b->n_out++] = (int32_t)(b->n_tokens - 1);
}

/* One token to compute, made by sampling: anything else is a prompt, or its replay. None at all: it waits for
 * its logits. */
static bool is_decoding(const sequence *seq)
{
    return seq->tokens.n - seq->n_computed == 1 && seq->n_computed >= seq->n_prompt;
}

static void add_decoding(schedule *s, carrier *c)
{
    size_t share = (s->n_running + s->o.depth - 1) / s->o.depth;

    for (size_t i = 0; i < s->n_running && c->mb.b.n_tokens < share; i++) {
        if (is_decoding(s->running[i])) add_run(s, c, s->running[i], 1);
    }
}

static void add_prompts(schedule *s, carrier *c)
{
    const micro_batch *mb = &c->mb;

    for (size_t i = 0; i < s->n_running; i++) {
        sequence *seq = s->running[i];
        size_t room = s->o.max_tokens - mb->b.n_tokens, left;

        if (room > s->o.max_prefill - mb->n_prefill) room = s->o.max_prefill - mb->n_prefill;
        if (!room) return;
        if (is_decoding(seq) || seq->n_computed == seq->tokens.n) continue;
        share_prefix(s, seq);
        left = seq->tokens.n - seq->n_computed;
        if (left > room) left = room;
        add_run(s, c, seq, left);
        c->mb.n_prefill += left;
    }
}

static carrier *free_carrier(schedule *s)
{
    for (size_t i = 0; i < s->o.depth; i++) {
        if (!s->carrier[i].taken) return &s->carrier[i];
    }
    return NULL;
}

micro_batch *schedule_next(schedule *s)
{
    carrier *c = free_carrier(s);

    if (!c) return NULL;
    c->mb.b.n_tokens = c->mb.b.n_runs = c->mb.b.n_out = c->mb.n_prefill = 0;
    add_decoding(s, c);
    add_prompts(s, c);
    if (!c->mb.b.n_tokens) return NULL;
    c->taken = true;
    c->mb.id = ++s->next_id;
    s->n_in_flight++;
    return &c->mb;
}

void schedule_done(schedule *s, micro_batch *mb)
{
    ((carrier *)mb)->taken = false;
    s->n_in_flight--;
}

size_t schedule_in_flight(const schedule *s)
{
    return s->n_in_flight;
}

void schedule_replay(schedule *s)
{
    pages_forget_all(s->pages);
    for (size_t i = 0; i < s->n_running; i++) s->running[i]->n_computed = s->running[i]->n_cached = 0;
    for (size_t i = 0; i < s->o.depth; i++) s->carrier[i].taken = false;
    s->n_in_flight = 0;
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
