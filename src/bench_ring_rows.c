/* Rows of ring.csv; the columns are described in results/README.md. */
#include "src/base/log.h"
#include "src/bench_ring.h"
#include "src/cmd.h"
#include "src/run/timings.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

const char ring_header[] =
    "schema,build,isa,model,quant,devices,rounds,split,layers,wire,security,link_delay_ms,test,sequences,"
    "in_flight,chunk_tokens,reps,base,base_tps,ring_tps,ring_over_base,least_ratio,most_ratio,hop_us,"
    "primacpp_ring_over_one,dllama_ring_over_one,ceiling_tps,ring_over_ceiling,link_us";

/* Without other programs' figures: nobody has measured that. */
const char ring_gpu_header[] =
    "schema,build,isa,model,quant,devices,rounds,split,layers,wire,security,link_delay_ms,test,sequences,"
    "in_flight,chunk_tokens,reps,base,base_tps,ring_tps,ring_over_base,least_ratio,most_ratio,hop_us,"
    "ceiling_tps,ring_over_ceiling,link_us,gpu,vram_budget_bytes,head_vram_bytes";

static const char *split_name(const ring_case *c)
{
    return c->split == SPLIT_PLANNED ? "planned" : "even";
}

static const char *security_name(const ring_case *c)
{
    return c->secure ? "psk" : "plain";
}

void ring_case_name(char out[16], const ring_case *c)
{
    if (c->test == RING_HOP) snprintf(out, 16, "hop");
    else snprintf(out, 16, "%s%u", c->test == RING_PROMPT ? "pp" : "tg", c->n);
}

bool ring_case_has_delay(const ring_case *c)
{
    return c->delay_ms > 0;
}

static const char *base_name(const ring_case *c)
{
    if (c->test == RING_HOP) return NULL;
    return ring_case_has_delay(c) && c->in_flight > 1 ? "no delay" : "one process";
}

static void print_layers(char *out, size_t cap, const uint32_t *layers, uint32_t n)
{
    size_t at = 0;

    *out = 0;
    for (uint32_t i = 0; i < n && at < cap; i++)
        at += (size_t)snprintf(out + at, cap - at, "%s%u", i ? ":" : "", layers[i]);
}

static void write_setting(csv *file, const ring_case *c, const ring_setting *s)
{
    static const char *const elem[] = {"", "f32", "f16", "bf16"};
    char layers[64];

    print_layers(layers, sizeof layers, s->layers, c->devices);
    csv_str(file, s->gpu_name ? "prima/bench-ring-gpu/1" : "prima/bench-ring/2");
    csv_str(file, prima_version);
    csv_str(file, s->isa);
    csv_str(file, s->hp->name);
    csv_str(file, s->hp->quant);
    csv_int(file, c->devices);
    csv_int(file, c->rounds);
    csv_str(file, split_name(c));
    csv_str(file, layers);
    csv_str(file, elem[c->elem]);
    csv_str(file, security_name(c));
    csv_num(file, c->delay_ms, 0);
}

static void write_test(csv *file, const ring_case *c, size_t reps)
{
    char name[16];

    ring_case_name(name, c);
    csv_str(file, name);
    csv_int(file, c->sequences);
    csv_int(file, c->in_flight);
    if (c->test == RING_PROMPT) csv_int(file, c->chunk);
    else csv_str(file, NULL);
    csv_int(file, (int64_t)reps);
    csv_str(file, base_name(c));
}

static void write_peers(csv *file, const ring_case *c, const ring_peers *peers)
{
    const char *kind = c->test == RING_PROMPT ? "prompt" : "decode";
    bool like = c->test != RING_HOP && c->sequences == 1;
    double p = ring_peers_ratio(peers, "prima.cpp", kind, c->devices, c->rounds, c->delay_ms),
           d = ring_peers_ratio(peers, "dllama", kind, c->devices, c->rounds, c->delay_ms);

    csv_num(file, like ? p : NAN, 3);
    csv_num(file, like ? d : NAN, 3);
}

static void write_gpu(csv *file, const ring_setting *s)
{
    csv_str(file, s->gpu_name);
    csv_int(file, (int64_t)s->vram_bytes);
    csv_int(file, (int64_t)s->head_vram_bytes);
}

/* What was measured, and only that. */
static void say(const ring_case *c, const double of[FIGURES], double least, double most)
{
    char name[16], rates[96] = "", ceiling[64] = "", hop[64] = "";

    ring_case_name(name, c);
    if (!isnan(of[FIGURE_RATIO]))
        snprintf(rates, sizeof rates, ", %.2f -> %.2f tokens/s, %.3f (%.3f to %.3f)", of[FIGURE_BASE],
                 of[FIGURE_RING], of[FIGURE_RATIO], least, most);
    if (!isnan(of[FIGURE_OF_CEILING]))
        snprintf(ceiling, sizeof ceiling, ", %.3f of %.2f without a ring", of[FIGURE_OF_CEILING],
                 of[FIGURE_CEILING]);
    if (!isnan(of[FIGURE_HOP])) snprintf(hop, sizeof hop, ", a hop %.1f us", of[FIGURE_HOP]);
    if (!isnan(of[FIGURE_LINK]))
        snprintf(hop + strlen(hop), sizeof hop - strlen(hop), " (the link %.1f)", of[FIGURE_LINK]);
    log_info("%u devices x %u, %s, %s, %.0f ms: %-5s %2u sequences, %u in flight, chunk %u%s%s%s", c->devices,
             c->rounds, split_name(c), security_name(c), c->delay_ms, name, c->sequences, c->in_flight,
             c->chunk, rates, ceiling, hop);
}

int ring_row(csv *file, const ring_case *c, const ring_setting *s, double figure[FIGURES][BENCH_MAX_REPS],
             pr_err *err)
{
    double of[FIGURES], *ratio = figure[FIGURE_RATIO]; /* sorted by the loop */

    for (size_t i = 0; i < FIGURES; i++) of[i] = timings_percentile(figure[i], s->reps, 50);
    write_setting(file, c, s);
    write_test(file, c, s->reps);
    csv_num(file, of[FIGURE_BASE], 3);
    csv_num(file, of[FIGURE_RING], 3);
    csv_num(file, of[FIGURE_RATIO], 4);
    csv_num(file, c->test == RING_HOP ? NAN : ratio[0], 4);
    csv_num(file, c->test == RING_HOP ? NAN : ratio[s->reps - 1], 4);
    csv_num(file, of[FIGURE_HOP], 1);
    if (!s->gpu_name) write_peers(file, c, s->peers);
    csv_num(file, of[FIGURE_CEILING], 3);
    csv_num(file, of[FIGURE_OF_CEILING], 4);
    csv_num(file, of[FIGURE_LINK], 1);
    if (s->gpu_name) write_gpu(file, s);
    say(c, of, ratio[0], ratio[s->reps - 1]);
    return csv_row(file, err);
}
