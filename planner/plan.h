/* The frozen plan (conventions 7): what planner and runner share. YAML with fixed key order, one fact a line;
 * same inputs, same bytes. */
#ifndef PRIMA_PLANNER_PLAN_H
#define PRIMA_PLANNER_PLAN_H
#include "planner/cluster.h"
#include "planner/facts.h"
#include "planner/problem.h"
#include "src/base/err.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* gpu, ram: resident; disk: CPU layers of which some pieces (problem.h) are streamed. In a round a device has
 * its GPU layers first, a window for each of its GPUs by rising number, then its CPU layers, which are one
 * window: ram or disk. */
typedef enum { PLACE_GPU, PLACE_RAM, PLACE_DISK } plan_place;
typedef struct {
    uint32_t round, first_layer, last_layer; /* layers first..last inclusive, as in the file */
    plan_place place;
    uint32_t streamed_pieces; /* PLACE_DISK: how many of its layers' pieces are read in every pass, at least
                               * 1; which ones: piece i of n where floor((i+1)x/n) > floor(ix/n), so that
                               * reading goes on under the compute of resident ones. Else 0 */
    uint32_t gpu;             /* PLACE_GPU: which one of the device (cluster.yaml's index). Else 0 */
} plan_window;
/* Piece j of a layer of b bytes is its bytes from j c to (j+1) c, c = ceil(b / pieces), or to the end. */

/* On the device: weights_gpu + kv_gpu + buffers_gpu <= budget_gpu and weights_ram + kv_ram + buffers_ram <=
 * budget_ram. weights_ram: resident pieces, and the output projection. weights_disk: the streamed ones, read
 * again in every pass through a part of buffers_ram: buffer_pieces places, each for the largest of them. */
typedef struct {
    uint64_t weights_gpu, kv_gpu, buffers_gpu, budget_gpu;
    uint64_t weights_ram, kv_ram, buffers_ram, budget_ram;
    uint64_t weights_disk;
} plan_bytes;

typedef struct {
    uint32_t rank;
    char name[33], host[256];
    uint16_t port;
    char ssh[256], user[64], model[1024]; /* as cluster.yaml has them; "" = not given */
    char reader[48];  /* how what is streamed is read: disk_read_words, measured best; "" = not known */
    uint32_t threads; /* 0 = all */
    cluster_gpu gpu[CLUSTER_MAX_GPUS]; /* those that may be used, by rising index: what prima takes of each at
                                        * most, all together budget_gpu */
    size_t n_gpus;
    uint32_t buffer_pieces; /* of the read buffer: 0 when nothing is streamed, else at least 2 */
    plan_window *window;    /* by round; none for a head that only embeds and projects */
    size_t n_windows;
    bool owns_embedding, owns_output;
    bool output_on_gpu; /* output_place: the output projection is on the first GPU of the windows, counted in
                         * weights_gpu; else in RAM */
    plan_bytes bytes;
    double compute_ms, disk_wait_ms, net_ms, pass_ms; /* predicted, per pass; compute with the output part */
    uint64_t read_bytes_per_pass;
    problem_device cost; /* the figures that the solver had, so that a plan alone can be simulated */
} plan_device;

typedef struct {
    char name[33], reason[128];
} plan_unused;
typedef struct {
    char lost[33];
    uint32_t rounds; /* 0: none is feasible */
    double tpot_ms;
    char *layers; /* "desk=20,laptop=12" in ring order; NULL = none. Owned by the plan */
} plan_fallback;

typedef struct plan {
    char plan_sha256[65], created_at[32], cluster_sha256[65];
    size_t n_profiles;
    struct {
        char name[33], sha256[65];
    } profile[CLUSTER_MAX_DEVICES];
    struct {
        char name[128], arch[16], quant[16], header_sha256[65];
        uint32_t n_layers;
        uint64_t file_bytes;
    } model;
    /* How the devices talk, from cluster.yaml. */
    struct {
        bool secure, insecure; /* a pre-shared key; or none, spelled out where it is not loopback alone */
        char key_file[1024];   /* "" = the default */
        double connect_s, heartbeat_s, peer_s;
    } net;
    uint32_t ctx, slots, micro_batch, rounds;
    uint32_t pieces, prefill_tokens, in_flight; /* of the problem */
    char kv_type[8];
    char objective[16]; /* latency | throughput */
    struct {
        char found_by[16], certified_by[16], status[16],
            version[32]; /* status: optimal | feasible | heuristic */
        double gap_pct;
    } solver;
    size_t n_devices, n_unused, n_fallbacks;
    plan_device device[CLUSTER_MAX_DEVICES]; /* in ring order; the head first */
    plan_unused unused[CLUSTER_MAX_DEVICES];
    plan_fallback fallback[CLUSTER_MAX_DEVICES];
    struct {
        double ttft_ms; /* of a prompt of ttft_tokens, alone */
        uint32_t ttft_tokens;
        double pass_ms; /* between finished passes: problem.h's objective */
        double tpot_ms, output_tps;
        uint64_t read_bytes_per_token;
        char bottleneck[96], advice[160];
    } predicted;
    double layer_bytes, kv_layer_bytes; /* of the problem: means */
} plan;

/* Explicit layer ranges of an assignment (halda.md 7.4): cpu_r = floor((r+1)c/k) - floor(rc/k) and likewise
 * for the GPU. order[i] is the cluster's index of problem device i. Fills in what cluster, facts, problem and
 * assignment say; the rest (model and profile digests, solver, objective, predicted, fallbacks) is the
 * caller's. Devices without layers become `unused`, but for the head. The plan may exceed a budget because
 * layers differ in size: see plan_lacks. The problem must be one with pieces. */
int plan_build(plan **out, const cluster *c, const model_facts *f, const uint32_t *order, size_t n_order,
               const problem *pr, const assignment *a, pr_err *err);

/* The first device whose layers need more than its budget, and by how much; false: everything fits. */
bool plan_lacks(const plan *p, size_t *device, bool *gpu, uint64_t *bytes);

/* The file as text, with plan_sha256 set in p; caller frees. NULL: out of memory. */
char *plan_text(plan *p, size_t *n);
int plan_write(plan *p, const char *path, pr_err *err);   /* "-": standard output */
int plan_read(plan **out, const char *path, pr_err *err); /* and plan_check */
int plan_parse(plan **out, const char *text, size_t n, const char *name_for_errors, pr_err *err);
void plan_free(plan *p);

/* Invariants: every layer exactly once, ranks 0..N-1 in order, streamed pieces between 1 and all of the
 * window where it is on disk and none elsewhere, a read buffer where something is streamed, bytes <= budget.
 * PR_EMISMATCH says which device or layer. (The digest is checked by plan_parse.) */
int plan_check(const plan *p, pr_err *err);

/* Layers of a device: all, and those on its GPU. */
uint32_t plan_device_layers(const plan_device *d, uint32_t *gpu_layers);

/* The problem and assignment that the plan solves, rebuilt from its figures (devices in use only). Where the
 * plan streams more than the problem would, because its layers are larger than the mean, the problem's RAM is
 * cut to what gives that. PR_EMISMATCH when they do not fit together. */
int plan_problem(const plan *p, problem *pr, assignment *a, pr_err *err);

/* While a job runs: the same devices without one of them. `lost` is a device of p, not the head; f: of the
 * model's header. The solver's best for what is left, from the figures in p, rounds chosen by playing; no
 * certificate, no fallbacks of its own. PR_EINFEASIBLE: what is left cannot hold the model, with the missing
 * bytes. (plan_without.c) */
int plan_without(plan **out, const plan *p, const char *lost, const model_facts *f, pr_err *err);

#endif
