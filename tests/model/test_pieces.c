/* Pieces of a layer: every group once, in the order of use, near an eighth each. */
#include "src/model/pieces.h"
#include <criterion/criterion.h>
#include <string.h>

/* A layout by hand: sizes of no model, so that nothing divides evenly. */
static layer_layout layout_of(const size_t groups[LAYER_MATRICES], const size_t bytes[LAYER_MATRICES])
{
    layer_layout l = {.vectors_bytes = LAYER_ALIGN};
    size_t at = LAYER_ALIGN;

    for (int m = 0; m < LAYER_MATRICES; m++) {
        l.matrix[m] = (matrix_place){.n_groups = groups[m], .group_bytes = bytes[m], .at = at};
        at += (groups[m] * bytes[m] + LAYER_ALIGN - 1) / LAYER_ALIGN * LAYER_ALIGN;
    }
    l.bytes = at;
    return l;
}

static void check(const layer_layout *l)
{
    piece p[LAYER_PIECES];
    size_t next[LAYER_MATRICES] = {0}, last = 0, all = 0, largest = 0;

    pieces_of_layer(p, l, 7);
    for (int m = 0; m < LAYER_MATRICES; m++) {
        all += l->matrix[m].n_groups * l->matrix[m].group_bytes;
        if (l->matrix[m].group_bytes > largest) largest = l->matrix[m].group_bytes;
    }
    for (int j = 0; j < LAYER_PIECES; j++) {
        size_t groups = 0, bytes = 0;
        cr_assert_eq(p[j].layer, 7);
        for (size_t k = 0; k < p[j].n_runs; k++) {
            const piece_run *r = &p[j].run[k];
            const matrix_place *m = &l->matrix[r->matrix];
            size_t at = m->at + r->group_first * m->group_bytes;
            cr_assert_eq(r->group_first, next[r->matrix], "each group once");
            cr_assert_lt(r->group_first, r->group_end);
            cr_assert_eq(p[j].at + r->at, at, "the run lies where the record has it");
            cr_assert_geq(at, last, "in the order of use");
            next[r->matrix] = r->group_end;
            last = at + (r->group_end - r->group_first) * m->group_bytes;
            cr_assert_leq(last, p[j].at + p[j].bytes);
            groups += r->group_end - r->group_first;
            bytes += (r->group_end - r->group_first) * m->group_bytes;
        }
        cr_assert_eq(groups, p[j].n_groups);
        cr_assert_lt((double)bytes, (double)all / LAYER_PIECES + (double)largest + 1);
        cr_assert_gt((double)bytes, (double)all / LAYER_PIECES - (double)largest - LAYER_PIECES);
    }
    for (int m = 0; m < LAYER_MATRICES; m++) cr_assert_eq(next[m], l->matrix[m].n_groups, "all groups");
}

Test(pieces, cover_a_layer_in_order)
{
    layer_layout like_8b = layout_of((size_t[]){256, 64, 64, 256, 896, 896, 256},
                                     (size_t[]){36864, 36864, 53760, 36864, 36864, 36864, 188160});
    layer_layout odd =
        layout_of((size_t[]){3, 1, 1, 3, 11, 11, 5}, (size_t[]){704, 704, 832, 64, 576, 576, 9000});
    layer_layout tiny = layout_of((size_t[]){1, 1, 1, 1, 1, 1, 1}, (size_t[]){64, 64, 64, 64, 64, 64, 64});

    check(&like_8b);
    check(&odd);
    check(&tiny);
}

Test(pieces, streamed_ones_come_in_turn)
{
    for (uint64_t n = 1; n <= 64; n++) {
        for (uint64_t x = 0; x <= n; x++) {
            uint64_t count = 0, gap = 0, longest = 0;
            for (uint64_t i = 0; i < n; i++) {
                bool streamed = piece_is_streamed(i, n, x);
                count += streamed;
                gap = streamed ? 0 : gap + 1;
                if (gap > longest) longest = gap;
            }
            cr_assert_eq(count, x);
            if (x) cr_assert_leq(longest, (n + x - 1) / x, "no long stretch without reading");
            if (x) cr_assert(piece_is_streamed(n - 1, n, x), "the last one is the last");
        }
    }
}
