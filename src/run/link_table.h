/* The links of a ring, measured and as the plan has them, side by side. */
#ifndef PRIMA_RUN_LINK_TABLE_H
#define PRIMA_RUN_LINK_TABLE_H
#include "planner/plan.h"

/* What a link is like for the model of a plan. NAN: not known. */
typedef struct {
    double way_us;      /* of a small frame, one way: half of a round trip */
    double bytes_per_s; /* of large ones */
    double hop_ms;      /* the hidden states of a pass */
} link_view;

/* The plan keeps what a hop takes for a pass and for a chunk of a prompt (planner/cost.h); the two give the
 * line that they lie on, when they are different in size. */
link_view link_planned(const plan *p, size_t from, size_t n_embd);
link_view link_measured(const plan *p, size_t n_embd, double rtt_ms, double bytes_per_s);

/* Rows of a table; text that fits in is cut off. */
enum { LINK_ROW_BYTES = 192 };
void link_table_head(char out[LINK_ROW_BYTES]);
/* *is_off: a figure is more than twice, or less than half, of what the plan has. */
void link_table_row(char out[LINK_ROW_BYTES], const plan *p, size_t from, const link_view *measured,
                    const link_view *planned, bool *is_off);

#endif
