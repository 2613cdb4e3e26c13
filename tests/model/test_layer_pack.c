/* A layer's record in memory: every byte against pack_model.h, which knows the description only. */
#include "src/model/layer_pack.h"
#include "src/model/weights.h"
#include "tests/model/pack_model.h"
#include <criterion/parameterized.h>

static pool *p;
static model m;

static void setup(void)
{
    pr_err err = {0};

    test_dir_new();
    pm_write(in_dir("m.gguf"), 1);
    cr_assert_eq(model_open(&m, in_dir("m.gguf"), &err), PR_OK, "%s", err.msg);
}

static void teardown(void)
{
    pool_free(p);
    model_close(&m);
    test_dir_remove();
}
TestSuite(layer_pack, .init = setup, .fini = teardown, .timeout = 20);

ParameterizedTestParameters(layer_pack, record_is_as_described)
{
    static int threads[] = {1, 3};
    return cr_make_param_array(int, threads, 2);
}
ParameterizedTest(int *threads, layer_pack, record_is_as_described)
{
    cr_assert_eq(pool_new(&p, *threads, NULL), PR_OK);
    for (uint32_t il = 0; il < PM_LAYERS; il++) {
        size_t n;
        uint8_t *expected = pm_record(il, 1, &n), *got;
        layer_layout l;

        layer_layout_of(&l, &m.hp.layer[il]);
        cr_assert_eq(l.bytes, n);
        got = malloc(n);
        memset(got, 0xAA, n);
        layer_pack(got, &l, &m.hp.layer[il], p);
        for (size_t i = 0; i < n; i++) cr_assert_eq(got[i], expected[i], "layer %u byte %zu", il, i);
        free(got);
        free(expected);
    }
}

Test(layer_pack, vectors_alone_are_its_beginning)
{
    size_t n;
    uint8_t *expected = pm_record(2, 1, &n), *got;
    layer_layout l;

    layer_layout_of(&l, &m.hp.layer[2]);
    got = malloc(l.vectors_bytes);
    memset(got, 0xAA, l.vectors_bytes);
    layer_pack_vectors(got, &l, &m.hp.layer[2]);
    cr_expect_eq(l.vectors_bytes, 4096);
    cr_expect(memcmp(got, expected, l.vectors_bytes) == 0);
    free(got);
    free(expected);
}

Test(layer_pack, any_run_of_groups_is_its_part_of_the_matrix)
{
    size_t n;
    uint8_t *expected = pm_record(3, 1, &n);
    layer_layout l;

    cr_assert_eq(pool_new(&p, 2, NULL), PR_OK);
    layer_layout_of(&l, &m.hp.layer[3]);
    for (layer_matrix k = 0; k < LAYER_MATRICES; k++) {
        const matrix_place *x = &l.matrix[k];
        for (size_t first = 0; first < x->n_groups; first += 5) {
            size_t end = first + 7 < x->n_groups ? first + 7 : x->n_groups;
            uint8_t *got = malloc((end - first) * x->group_bytes);
            layer_pack_groups(got, layer_matrix_of(&m.hp.layer[3], k), first, end, p);
            cr_assert(!memcmp(got, expected + x->at + first * x->group_bytes, (end - first) * x->group_bytes),
                      "matrix %d groups %zu..%zu", (int)k, first, end);
            free(got);
        }
    }
    free(expected);
}

Test(layer_pack, places_are_aligned_and_do_not_overlap)
{
    layer_layout l;
    size_t at;

    layer_layout_of(&l, &m.hp.layer[0]);
    for (layer_vector v = 0; v < LAYER_VECTORS; v++) {
        const gguf_tensor *t = layer_vector_of(&m.hp.layer[0], v);
        cr_assert_eq(l.vector_at[v] == SIZE_MAX, t == NULL);
        if (!t) continue;
        cr_assert_eq(l.vector_at[v] % 64, 0);
        cr_assert_leq(l.vector_at[v] + t->n_bytes, l.vectors_bytes);
        for (layer_vector w = 0; w < v; w++)
            if (l.vector_at[w] != SIZE_MAX)
                cr_assert_geq(l.vector_at[v], l.vector_at[w] + layer_vector_of(&m.hp.layer[0], w)->n_bytes);
    }
    at = l.vectors_bytes;
    for (layer_matrix k = 0; k < LAYER_MATRICES; k++) {
        cr_assert_eq(l.matrix[k].at % LAYER_ALIGN, 0);
        cr_assert_geq(l.matrix[k].at, at);
        at = l.matrix[k].at + l.matrix[k].n_groups * l.matrix[k].group_bytes;
    }
    cr_assert_eq(l.bytes, pm_align(at, LAYER_ALIGN));
}

Test(layer_pack, resident_weights_need_the_sum_of_their_records)
{
    size_t n, sum = 0;

    for (uint32_t il = 1; il < 4; il++) {
        free(pm_record(il, 1, &n));
        sum += n;
    }
    cr_assert_eq(weights_need_bytes(&m.hp, 1, 4), sum);
}
