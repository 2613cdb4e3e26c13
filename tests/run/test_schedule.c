/* Continuous batching, on paper: what is in each micro-batch, without computing it. The embedded demo model
 * lends its vocabulary. */
#include "kernels/kernels.h"
#include "src/model/model.h"
#include "src/run/schedule.h"
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

static model m;

static void open_model(void)
{
    pr_err err = {0};
    cr_assert_eq(model_open(&m, "datasets/demo/demo.gguf", &err), PR_OK, "%s", err.msg);
}

static void close_model(void)
{
    model_close(&m);
}

TestSuite(schedule, .init = open_model, .fini = close_model, .timeout = 20);

/* A request of n prompt tokens first, first + 1, ... */
static sequence *new_sequence(int32_t first, size_t n, size_t max_tokens)
{
    request r = {
        .max_tokens = max_tokens, .sampling = sample_defaults, .id = strdup("x"), .ignore_eos = true};

    for (size_t i = 0; i < n; i++) token_list_push(&r.tokens, 3 + (first + (int32_t)i) % 500);
    sequence *s = sequence_new(&r, m.vocab, 0);
    cr_assert_not_null(s);
    return s;
}

static sequence *admit(schedule *s, int32_t first, size_t n, size_t max_tokens)
{
    pr_err err = {0};
    sequence *q = new_sequence(first, n, max_tokens);

    cr_assert(schedule_has_room(s, n + max_tokens));
    cr_assert_eq(schedule_admit(s, q, &err), PR_OK, "%s", err.msg);
    return q;
}

/* A schedule with one micro-batch at a time. */
static schedule *single(size_t n_slots, size_t max_tokens, size_t n_pages)
{
    return schedule_new(&(schedule_options){n_slots, 1, max_tokens, max_tokens, n_pages});
}

/* Pretend that the micro-batch was computed and that every wanted logit row gave token 5. */
static void come_back(schedule *s, micro_batch *mb)
{
    for (size_t i = 0; i < mb->b.n_out; i++) token_list_push(&mb->out[i]->tokens, 5);
    schedule_done(s, mb);
}

Test(schedule, prefill_in_chunks_then_decode)
{
    schedule *s = single(2, 16, 20);
    micro_batch *mb;
    const batch *b;

    admit(s, 0, 40, 8);
    for (int i = 0; i < 3; i++) {
        mb = schedule_next(s);
        b = &mb->b;
        cr_assert_eq(b->n_tokens, i < 2 ? 16u : 8u);
        cr_assert_eq(b->run[0].pos, 16u * (unsigned)i);
        cr_assert_eq(b->n_out, i < 2 ? 0u : 1u);
        cr_assert_eq(mb->n_prefill, b->n_tokens);
        come_back(s, mb);
    }
    cr_assert_eq(b->out[0], 7);
    mb = schedule_next(s);
    b = &mb->b;
    cr_assert_eq(b->n_tokens, 1);
    cr_assert_eq(b->run[0].pos, 40);
    cr_assert_eq(b->token[0], 5);
    cr_assert_eq(mb->n_prefill, 0);
    cr_assert_null(schedule_next(s), "one at a time");
    schedule_free(s);
}

Test(schedule, decoding_goes_on_while_another_prompt_is_read)
{
    schedule *s = single(2, 8, 20);
    const batch *b;

    admit(s, 0, 4, 8);
    come_back(s, schedule_next(s));
    admit(s, 100, 20, 8);
    b = &schedule_next(s)->b;
    cr_assert_eq(b->n_runs, 2);
    cr_assert_eq(b->run[0].n, 1, "the decoding sequence comes first");
    cr_assert_eq(b->run[1].n, 7, "the rest of the micro-batch is prefill");
    cr_assert_eq(b->n_out, 1);
    schedule_free(s);
}

Test(schedule, common_beginning_is_computed_once)
{
    schedule *s = single(3, 256, 40);
    sequence *a = admit(s, 0, 100, 8), *c = admit(s, 0, 100, 8), *d = admit(s, 0, 64, 8);
    const batch *b = &schedule_next(s)->b;

    cr_assert_eq(a->n_cached, 0);
    cr_assert_eq(c->n_cached, 96, "three whole pages of the same batch");
    cr_assert_eq(d->n_cached, 32, "the last prompt token is always computed");
    cr_assert_eq(b->n_tokens, 100u + 4 + 32);
    for (int i = 0; i < 3; i++) cr_assert_eq(c->pages[i], a->pages[i]);
    cr_assert_neq(c->pages[3], a->pages[3]);
    schedule_free(s);
}

/* Three pages in all, exactly what one sequence needs: the second must not give the first one's pages away.
 */
Test(schedule, beginning_is_found_after_its_first_owner_has_gone)
{
    schedule *s = single(1, 256, 3);
    sequence *a = admit(s, 0, 70, 8), *c;

    come_back(s, schedule_next(s));
    schedule_remove(s, a);
    sequence_free(a);
    c = admit(s, 0, 80, 8);
    schedule_next(s);
    cr_assert_eq(c->n_cached, 64);
    schedule_free(s);
}

Test(schedule, a_slot_is_free_at_once_and_pages_are_counted)
{
    schedule *s = single(2, 64, 4);
    sequence *a = admit(s, 0, 32, 32), *c = admit(s, 50, 10, 20);

    cr_assert_eq(a->slot, 0);
    cr_assert_eq(c->slot, 1);
    cr_assert_not(schedule_has_room(s, 1), "both slots are taken");
    schedule_remove(s, a);
    sequence_free(a);
    cr_assert(schedule_has_room(s, 3 * KV_PAGE));
    cr_assert_not(schedule_has_room(s, 3 * KV_PAGE + 1), "one of four pages is still owned");
    cr_assert_eq(admit(s, 9, 10, 10)->slot, 0);
    schedule_free(s);
}

/* --- several on their way ----------------------------------------------------------------------------- */
Test(schedule, chunks_of_a_prompt_follow_each_other)
{
    schedule *s = schedule_new(&(schedule_options){2, 3, 256, 16, 20});
    micro_batch *mb[3];

    admit(s, 0, 40, 8);
    for (unsigned i = 0; i < 3; i++) {
        mb[i] = schedule_next(s);
        cr_assert_eq(mb[i]->id, i + 1);
        cr_assert_eq(mb[i]->b.n_tokens, i < 2 ? 16u : 8u);
        cr_assert_eq(mb[i]->b.run[0].pos, 16 * i);
        cr_assert_eq(mb[i]->b.n_out, i == 2);
    }
    cr_assert_eq(schedule_in_flight(s), 3);
    cr_assert_null(schedule_next(s), "no fourth one");
    come_back(s, mb[0]);
    cr_assert_null(schedule_next(s), "the sequence waits for its logits");
    come_back(s, mb[1]);
    come_back(s, mb[2]);
    cr_assert_eq(schedule_in_flight(s), 0);
    mb[0] = schedule_next(s);
    cr_assert_eq(mb[0]->b.n_tokens, 1);
    cr_assert_eq(mb[0]->b.run[0].pos, 40);
    schedule_free(s);
}

/* Six sequences that decode and three micro-batches: two in each, every sequence in exactly one. */
Test(schedule, decoding_sequences_are_shared_out)
{
    schedule *s = schedule_new(&(schedule_options){6, 3, 64, 64, 40});
    micro_batch *mb[3];
    int seen[6] = {0};

    for (int i = 0; i < 6; i++) admit(s, 40 * i, 4, 20);
    come_back(s, schedule_next(s));
    for (int step = 0; step < 12; step++) {
        for (int i = step ? step % 3 : 0; i < (step ? step % 3 + 1 : 3); i++) {
            mb[i] = schedule_next(s);
            cr_assert_eq(mb[i]->b.n_tokens, 2);
            cr_assert_eq(mb[i]->b.n_out, 2);
            for (int j = 0; j < 2; j++) seen[mb[i]->out[j]->slot]++;
        }
        cr_assert_null(schedule_next(s));
        come_back(s, mb[(step + 1) % 3]); /* in the order of making */
    }
    for (int i = 0; i < 6; i++) cr_assert_geq(seen[i], 4, "sequence %d has got %d tokens", i, seen[i]);
    schedule_free(s);
}

/* All caches are lost: prompt and completion so far are computed again, then decoding goes on; what two
 * sequences share is computed once. */
Test(schedule, replay)
{
    schedule *s = schedule_new(&(schedule_options){2, 2, 64, 64, 40});
    sequence *a = admit(s, 0, 40, 20), *c;
    micro_batch *mb;

    for (int i = 0; i < 3; i++)
        come_back(s, schedule_next(s)); /* 40 + 2 tokens computed, a third one is there */
    c = admit(s, 0, 40, 20);
    cr_assert_eq(c->n_cached, 32);
    schedule_next(s); /* lost */
    cr_assert_eq(schedule_in_flight(s), 1);
    schedule_replay(s);
    cr_assert_eq(schedule_in_flight(s), 0);
    mb = schedule_next(s);
    cr_assert_eq(mb->b.n_runs, 2);
    cr_assert_eq(mb->b.run[0].pos, 0);
    cr_assert_eq(mb->b.run[0].n, 43);
    cr_assert_eq(mb->n_prefill, 43 + 8);
    cr_assert_eq(mb->b.run[1].pos, 32, "the shared page is computed by the first one");
    cr_assert_eq(mb->b.n_out, 2);
    for (size_t i = 0; i < 43; i++) cr_assert_eq(mb->b.token[i], a->tokens.id[i]);
    come_back(s, mb);
    mb = schedule_next(s);
    cr_assert_eq(mb->b.n_tokens, 1, "half of the sequences");
    cr_assert_eq(mb->n_prefill, 0);
    schedule_free(s);
}

/* What counts as shared is of the prompt, also when a completion is computed again with it. */
Test(schedule, replay_of_equal_completions_shares_no_more_than_the_prompt)
{
    schedule *s = schedule_new(&(schedule_options){2, 1, 256, 256, 40});
    sequence *a = admit(s, 0, 40, 120), *c = admit(s, 0, 40, 120);

    for (int i = 0; i < 70; i++) come_back(s, schedule_next(s));
    cr_assert_eq(c->n_cached, 32);
    schedule_replay(s);
    come_back(s, schedule_next(s));
    cr_expect_eq(a->n_cached, 0);
    cr_expect_eq(c->n_cached, 40, "%zu of 40", c->n_cached);
    schedule_free(s);
}
