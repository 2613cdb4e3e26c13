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

/* Pretend that the batch was computed and that every wanted logit row gave token 5. */
static void sample_all(schedule *s, const batch *b)
{
    for (size_t i = 0; i < b->n_out; i++) token_list_push(&schedule_out(s, i)->tokens, 5);
}

Test(schedule, prefill_in_chunks_then_decode)
{
    schedule *s = schedule_new(2, 16, 20);
    const batch *b;

    admit(s, 0, 40, 8);
    for (int i = 0; i < 3; i++) {
        b = schedule_next(s);
        cr_assert_eq(b->n_tokens, i < 2 ? 16u : 8u);
        cr_assert_eq(b->run[0].pos, 16u * (unsigned)i);
        cr_assert_eq(b->n_out, i < 2 ? 0u : 1u);
        cr_assert_eq(schedule_prefill_tokens(s), b->n_tokens);
        sample_all(s, b);
    }
    cr_assert_eq(b->out[0], 7);
    b = schedule_next(s);
    cr_assert_eq(b->n_tokens, 1);
    cr_assert_eq(b->run[0].pos, 40);
    cr_assert_eq(b->token[0], 5);
    cr_assert_eq(schedule_prefill_tokens(s), 0);
    schedule_free(s);
}

Test(schedule, decoding_goes_on_while_another_prompt_is_read)
{
    schedule *s = schedule_new(2, 8, 20);
    const batch *b;

    admit(s, 0, 4, 8);
    sample_all(s, schedule_next(s));
    admit(s, 100, 20, 8);
    b = schedule_next(s);
    cr_assert_eq(b->n_runs, 2);
    cr_assert_eq(b->run[0].n, 1, "the decoding sequence comes first");
    cr_assert_eq(b->run[1].n, 7, "the rest of the micro-batch is prefill");
    cr_assert_eq(b->n_out, 1);
    schedule_free(s);
}

Test(schedule, common_beginning_is_computed_once)
{
    schedule *s = schedule_new(3, 256, 40);
    sequence *a = admit(s, 0, 100, 8), *c = admit(s, 0, 100, 8), *d = admit(s, 0, 64, 8);
    const batch *b = schedule_next(s);

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
    schedule *s = schedule_new(1, 256, 3);
    sequence *a = admit(s, 0, 70, 8), *c;

    sample_all(s, schedule_next(s));
    schedule_remove(s, a);
    sequence_free(a);
    c = admit(s, 0, 80, 8);
    schedule_next(s);
    cr_assert_eq(c->n_cached, 64);
    schedule_free(s);
}

Test(schedule, a_slot_is_free_at_once_and_pages_are_counted)
{
    schedule *s = schedule_new(2, 64, 4);
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
