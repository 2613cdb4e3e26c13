/* Figures of a problem, computed by hand from a cluster of two devices. */
#include "planner/cost.h"
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define near(a, b)                                                                                           \
    cr_assert_float_eq((double)(a), (double)(b), 1e-9 * (1 + fabs((double)(b))), "%.12g, expected %.12g",    \
                       (double)(a), (double)(b))

/* 80 layers as in Llama 3 70B; the weights are round numbers: 0.5e9 elements of Q4_K and 0.1e9 of Q6_K. */
static model_facts *facts_70b(void)
{
    model_facts *f = calloc(1, sizeof *f);

    f->n_layers = 80;
    f->n_embd = 8192;
    f->n_ff = 28672;
    f->n_heads = 64;
    f->n_kv_heads = 8;
    f->head_size = 128;
    f->n_vocab = 128256;
    for (uint32_t i = 0; i < 80; i++) f->layer_bytes[i] = 500000000 + (i % 2) * 20000000;
    f->input_row_bytes = 4608;
    f->output_bytes = 861900000;
    f->n_work = 2;
    f->work[0] = (facts_work){.type = "Q4_K", .layer_elements = 0.5e9};
    f->work[1] = (facts_work){.type = "Q6_K", .layer_elements = 0.1e9, .output_elements = 1e9};
    return f;
}

static void measured(profile *p, const char *type, int gpu, uint32_t batch, double gflops)
{
    profile_compute *c = &p->compute[p->n_compute++];
    *c = (profile_compute){.gpu = gpu, .batch = batch, .gflops = gflops};
    strcpy(c->type, type);
}

static profile *profile_of(const char *device)
{
    profile *p = calloc(1, sizeof *p);

    strcpy(p->device, device);
    p->threads = 8;
    p->ram_total_bytes = 32000000000;
    p->ram_available_bytes = 20000000000;
    measured(p, "q4_k", -1, 1, 50);
    measured(p, "q4_k", -1, 16, 200);
    measured(p, "q6_k", -1, 1, 40);
    measured(p, "q6_k", -1, 16, 100);
    p->disk[0] = (profile_disk){
        .pattern = "seq", .engine = "io_uring", .direct = true, .iodepth = 8, .read_bytes_per_s = 2e9};
    p->n_disk = 1;
    return p;
}

static model_facts *f;
static cluster *c;
static profile *prof[2];
static const uint32_t order[] = {0, 1};

static void set_up(void)
{
    f = facts_70b();
    c = calloc(1, sizeof *c);
    c->n_devices = 2;
    strcpy(c->device[0].name, "desk");
    strcpy(c->device[1].name, "laptop");
    c->device[0].ram_bytes = 9000000000;
    c->device[1].reserve_bytes = 1000000000;
    prof[0] = profile_of("desk");
    prof[1] = profile_of("laptop");
}

static void tear_down(void)
{
    free(f);
    free(c);
    for (int i = 0; i < 2; i++) profile_free(prof[i]);
}

static const workload latency = {.ctx = 4000, .slots = 2, .micro_batch = 1, .kv_type = "f16"};

static problem make(const workload *w)
{
    problem p;
    pr_err err = {0};

    cr_assert_eq(cost_problem(&p, c, prof, f, w, order, 2, &err), PR_OK, "%s", err.msg);
    return p;
}

TestSuite(cost, .init = set_up, .fini = tear_down);

Test(cost, products)
{
    near(cost_layer_ms(prof[0], f, -1, 1), 1e9 / 50e6 + 0.2e9 / 40e6);
    near(cost_output_ms(prof[0], f, -1, 1), 2e9 / 40e6);
    near(cost_layer_ms(prof[0], f, -1, 16), 16 * (1e9 / 200e6 + 0.2e9 / 100e6));
    near(cost_output_ms(prof[0], f, -1, 16), 16 * 2e9 / 100e6);
    /* Between the measured batches: 4 is half-way in logarithms, sqrt(50 x 200) and sqrt(40 x 100). */
    near(cost_layer_ms(prof[0], f, -1, 4), 4 * (1e9 / 100e6 + 0.2e9 / sqrt(4000) / 1e6));
    cr_assert(isnan(cost_layer_ms(prof[0], f, 0, 1)), "nothing was measured on a GPU");
}

Test(cost, hop)
{
    /* 8192 f32 and a frame header over 1 Gbit/s, half a round trip. */
    near(cost_hop_ms(f, 1, 1000, 0.5), 0.25 + (32768 + 64) * 8 / 1e6);
    near(cost_hop_ms(f, 16, 1000, 0), (16 * 32768 + 64) * 8 / 1e6);
}

Test(cost, link_sources)
{
    double mbit, rtt;

    cr_assert_not(cost_link(c, prof, 0, 1, &mbit, &rtt));
    near(mbit, 1000);
    near(rtt, 0.5);
    cr_assert_eq(cost_warn_links(c, prof, order, 2), 1, "there and back is one link");

    prof[1]->n_net = 2; /* the laptop measured it; the desk finds that too */
    prof[1]->net[0] = (profile_net){.peer = "phone", .bytes_per_s = 1, .rtt_ms = 99};
    prof[1]->net[1] = (profile_net){.peer = "desk", .bytes_per_s = 50e6, .rtt_ms = 3};
    cr_assert(cost_link(c, prof, 0, 1, &mbit, &rtt));
    near(mbit, 400);
    near(rtt, 3);

    c->n_links = 1; /* what the user says counts more */
    c->link[0] = (cluster_link){.from = 1, .to = 0, .mbit_per_s = 940, .rtt_ms = 0.4};
    cr_assert(cost_link(c, prof, 0, 1, &mbit, &rtt) && cost_link(c, prof, 1, 0, &mbit, &rtt));
    near(mbit, 940);
    near(rtt, 0.4);
    cr_assert_eq(cost_warn_links(c, prof, order, 2), 0);
    near(make(&latency).device[1].hop_ms, cost_hop_ms(f, 1, 940, 0.4));
}

Test(cost, problem)
{
    problem p = make(&latency);

    cr_assert_eq(p.n_layers, 80);
    cr_assert_eq(p.n_devices, 2);
    cr_assert_eq(p.max_rounds, PROBLEM_MAX_ROUNDS);
    cr_assert_not(p.throughput);
    near(p.layer_bytes, 510000000);
    near(p.kv_layer_bytes, 2 * 4000 * 4096); /* 4000 tokens are 125 pages of 32 */
    near(p.device[0].cpu_ms, 25);
    near(p.device[0].out_ms, 50);
    near(p.device[0].ram_bytes, 9e9);
    near(p.device[1].ram_bytes, 19e9);
    near(p.device[0].disk_bytes_per_ms, 2e6);
    near(p.device[0].theta, 0.5);
    near(p.device[0].vram_bytes, 0);
    cr_assert_eq(p.device[0].fixed_layers, -1);
    cr_assert_eq(p.device[0].fixed_gpu_layers, -1);
    cr_assert_str_eq(p.device[1].name, "laptop");
}

/* A chunk of 256 tokens: rates of batch 16, the largest that was measured; half a round trip and 8 MiB a hop.
 */
Test(cost, prefill)
{
    workload w = latency;
    problem p = make(&w);

    cr_assert_eq(p.pieces, PROBLEM_PIECES);
    cr_assert_eq(p.prefill_tokens, 256);
    near(p.device[0].prefill_cpu_ms, 256 * (1e9 / 200e6 + 0.2e9 / 100e6));
    near(p.device[0].prefill_hop_ms, 0.25 + (256 * 32768 + 64) * 8 / 1e6);
    w.ctx = 100; /* no prompt is longer */
    p = make(&w);
    cr_assert_eq(p.prefill_tokens, 100);
    near(p.device[0].prefill_cpu_ms, 100 * (1e9 / 200e6 + 0.2e9 / 100e6));
}

/* The one measured at the nearest batch counts. */
Test(cost, measured_theta)
{
    workload w = {.ctx = 100, .slots = 16, .micro_batch = 16, .kv_type = "f16", .throughput = true};

    prof[1]->n_overlap = 2;
    prof[1]->overlap[0] = (profile_overlap){.batch = 1, .theta = 0.75, .reps = 3};
    prof[1]->overlap[1] = (profile_overlap){.batch = 16, .theta = 0, .reps = 3};
    near(make(&latency).device[0].theta, 0.5);
    near(make(&latency).device[1].theta, 0.75);
    near(make(&w).device[1].theta, 0);
}

Test(cost, in_flight)
{
    workload w = {.ctx = 100, .slots = 10, .micro_batch = 4, .kv_type = "f16", .throughput = true};

    cr_assert_eq(make(&w).in_flight, 3);
    cr_assert_eq(make(&latency).in_flight, 0);
}

/* workspace_need_bytes of src/model/forward.c says 153,894,912 for this shape, 8 threads, 256 tokens; hidden
 * states come on top: the batch and four frames of 256 x 8192 x 4 bytes. */
Test(cost, work_buffers)
{
    problem p = make(&latency);
    double runtime = 153894912 + 5 * 256 * 8192 * 4;

    cr_assert(p.device[0].cpu_buffer_bytes >= runtime && p.device[0].cpu_buffer_bytes < 1.02 * runtime,
              "%.0f, the runtime takes %.0f", p.device[0].cpu_buffer_bytes, runtime);
    /* Output projection and logits of two slots at least. */
    cr_assert(p.device[0].head_bytes > 861900000 + 2 * 128256 * 4);
    cr_assert(p.device[0].head_bytes < 861900000 + 2 * 128256 * 4 + 100e6);
}

Test(cost, several_tokens_a_pass)
{
    workload w = {
        .ctx = 100, .slots = 16, .micro_batch = 16, .kv_type = "q8_0", .throughput = true, .max_rounds = 4};
    problem p;
    uint64_t kv_token = facts_kv_token_bytes(f, "q8_0");

    prof[0]->n_mem = 2;
    prof[0]->mem_bytes_per_s[0] = 10e9;
    prof[0]->mem_bytes_per_s[1] = 16e9;
    p = make(&w);
    cr_assert(p.throughput);
    cr_assert_eq(p.max_rounds, 4);
    near(p.kv_layer_bytes, 16.0 * 128 * (double)kv_token); /* 100 tokens take 4 pages */
    /* 112 ms of products, and 16 half-full caches read at the rate of most threads that was measured. */
    near(p.device[0].cpu_ms, 112 + 16 * 50.0 * (double)kv_token / 16e9 * 1e3);
    near(p.device[1].cpu_ms, 112);
    w.slots = 4; /* 16 tokens of 4 sequences read 4 caches */
    near(make(&w).device[0].cpu_ms, 112 + 4 * 50.0 * (double)kv_token / 16e9 * 1e3);
    near(p.device[0].hop_ms, cost_hop_ms(f, 16, 1000, 0.5));
}

Test(cost, fewer_threads)
{
    c->device[1].threads = 2;
    near(make(&latency).device[1].cpu_ms, 100);
    near(make(&latency).device[1].out_ms, 200);
    c->device[1].threads = 64; /* more than it has */
    near(make(&latency).device[1].cpu_ms, 25);
}

Test(cost, gpus)
{
    double buffers, layer, share;
    problem p;

    c->device[0].n_gpus = 2;
    c->device[0].gpu[0] = (cluster_gpu){.index = 0, .vram_bytes = 6000000000};
    c->device[0].gpu[1] = (cluster_gpu){.index = 1, .vram_bytes = 2000000000};
    for (int gpu = 0; gpu < 2; gpu++) {
        measured(prof[0], "q4_k", gpu, 1, gpu ? 250 : 1000);
        measured(prof[0], "q6_k", gpu, 1, gpu ? 200 : 800);
    }
    p = make(&latency);
    /* 9 and 2 whole layers of 510 MB and 4000 x 2 x 4096 bytes of KV cache (in whole pages) beside the
     * buffers */
    buffers = p.device[0].gpu_buffer_bytes / 2;
    layer = 510e6 + p.kv_layer_bytes;
    near(p.kv_layer_bytes, 2 * 4000 * 4096.0);
    near(p.device[0].vram_bytes, 2 * buffers + 11 * layer);
    share = (buffers + 9 * layer) / p.device[0].vram_bytes;
    near(p.device[0].gpu_ms, share * 1.25 + (1 - share) * 5);
    near(p.device[0].prefill_gpu_ms, 256 * p.device[0].gpu_ms); /* one batch was measured */
    cr_assert(p.device[0].gpu_buffer_bytes > 2 * 400.0 * 1024 * 1024);
    near(p.device[1].vram_bytes, 0);
}

/* One GPU: all of it counts, and the output projection goes there when it is asked for and there is room. */
Test(cost, output_on_a_gpu)
{
    workload w = latency;
    problem ram, gpu;

    c->device[0].n_gpus = 1;
    c->device[0].gpu[0] = (cluster_gpu){.index = 0, .vram_bytes = 6000000000};
    measured(prof[0], "q4_k", 0, 1, 1000);
    measured(prof[0], "q6_k", 0, 1, 800);
    ram = make(&w);
    near(ram.device[0].vram_bytes, 6e9);
    near(ram.device[0].out_ms, 50);
    near(ram.device[0].gpu_output_bytes, 0);
    w.output_on_gpu = true;
    gpu = make(&w);
    near(gpu.device[0].out_ms, 2.5);
    cr_assert(gpu.device[0].gpu_output_bytes > 861900000 + 2 * 128256 * 4);
    near(gpu.device[0].vram_bytes, 6e9 - gpu.device[0].gpu_output_bytes);
    near(gpu.device[0].head_bytes, ram.device[0].head_bytes - 861900000);
    near(gpu.device[1].out_ms, ram.device[1].out_ms); /* no head */
    c->device[0].gpu[0].vram_bytes = 1300000000;
    near(make(&w).device[0].out_ms, 50);
    near(make(&w).device[0].head_bytes, ram.device[0].head_bytes);
}

Test(cost, one_device_has_no_link)
{
    problem p;
    pr_err err = {0};

    cr_assert_eq(cost_problem(&p, c, prof, f, &latency, order + 1, 1, &err), PR_OK, "%s", err.msg);
    near(p.device[0].hop_ms, 0);
    cr_assert_str_eq(p.device[0].name, "laptop");
    cr_assert_eq(cost_warn_links(c, prof, order, 1), 0);
}

static void refuses(const workload *w, int code, const char *says)
{
    problem p;
    pr_err err = {0};

    cr_assert_eq(cost_problem(&p, c, prof, f, w, order, 2, &err), code);
    cr_assert(strstr(err.msg, says), "%s", err.msg);
}

Test(cost, refusals)
{
    workload w = latency;

    w.kv_type = "f64";
    refuses(&w, PR_EUSAGE, "'f64'");
    w = latency;
    w.slots = 0;
    refuses(&w, PR_EUSAGE, "slots 0");
    c->device[0].ram_bytes = 64000000000;
    refuses(&latency, PR_EMISMATCH, "device desk: its ram is 64000000000");
    c->device[0].ram_bytes = 9000000000;
    prof[1]->ram_available_bytes = 0;
    refuses(&latency, PR_EMISMATCH, "device laptop: no ram");
    c->device[0].n_gpus = 1;
    c->device[0].gpu[0].index = 3;
    refuses(&latency, PR_EMISMATCH, "GPU 3");
    prof[0]->n_compute = 0;
    refuses(&latency, PR_EMISMATCH, "device desk: its profile has no compute measured on the CPU");
}
