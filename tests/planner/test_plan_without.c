/* A plan without one of its devices, from the figures in the plan alone: byte-exact layers, everything that a
 * run needs, the same again from the file's text. */
#include "planner/plan.h"
#include "planner/search.h"
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { N_LAYERS = 12 };
static const uint64_t LAYER = 10u << 20;

/* Layers of two sizes. */
static model_facts *facts(void)
{
    model_facts *f = calloc(1, sizeof *f);

    strcpy(f->name, "made up");
    strcpy(f->arch, "llama");
    strcpy(f->quant, "Q8_0");
    memset(f->header_sha256, 'a', 64);
    f->n_layers = N_LAYERS;
    f->n_embd = 256;
    f->n_heads = 4;
    f->n_kv_heads = 4;
    f->head_size = 64;
    f->n_ff = 512;
    f->n_vocab = 1000;
    for (int i = 0; i < N_LAYERS; i++) f->layer_bytes[i] = LAYER + (i % 3 == 0 ? LAYER / 4 : 0);
    f->output_bytes = f->input_bytes = 256000;
    f->input_row_bytes = 272;
    f->n_work = 1;
    strcpy(f->work[0].type, "Q8_0");
    f->work[0].layer_elements = 1e7;
    f->work[0].output_elements = 256000;
    return f;
}

typedef struct {
    cluster c;
    profile *profiles[CLUSTER_MAX_DEVICES];
    model_facts *f;
    plan *p;
} example;

static example *make(uint64_t ram_bytes, double disk_bytes_per_s)
{
    example *e = calloc(1, sizeof *e);
    const workload w = {.ctx = 512, .slots = 2, .kv_type = "f16", .throughput = true};
    search_options o = {.version = "test", .created_at = "now"};
    pr_err err = {0};

    e->f = facts();
    memset(e->c.sha256, 'c', 64);
    e->c.secure = true;
    strcpy(e->c.key_file, "/k");
    e->c.connect_s = 7;
    e->c.heartbeat_s = 1;
    e->c.peer_s = 3;
    e->c.n_devices = 3;
    for (uint32_t i = 0; i < 3; i++) {
        cluster_device *d = &e->c.device[i];
        profile *p = e->profiles[i] = calloc(1, sizeof *p);
        snprintf(d->name, sizeof d->name, "d%u", i);
        snprintf(d->host, sizeof d->host, "10.0.0.%u", i);
        snprintf(d->ssh, sizeof d->ssh, "ssh%u", i);
        d->port = (uint16_t)(9700 + i);
        d->ram_bytes = ram_bytes;
        d->threads = i;
        strcpy(p->device, d->name);
        strcpy(p->os, "Linux");
        p->threads = 4;
        p->n_compute = 1;
        p->compute[0] = (profile_compute){.type = "Q8_0", .gpu = -1, .batch = 1, .gflops = 20 + 5.0 * i};
        p->n_disk = disk_bytes_per_s > 0;
        p->disk[0] = (profile_disk){.pattern = "seq", .read_bytes_per_s = disk_bytes_per_s};
    }
    for (size_t i = 0; i < CLUSTER_MAX_DEVICES; i++) o.fixed_layers[i] = -1;
    for (size_t i = 0; i < 3; i++) o.fixed_layers[i] = 4;
    cr_assert_eq(search_plan(&e->p, &e->c, e->profiles, e->f, &w, &o, &err), PR_OK, "%s", err.msg);
    cr_assert_eq(e->p->n_devices, 3);
    return e;
}

static void drop(example *e)
{
    for (size_t i = 0; i < CLUSTER_MAX_DEVICES; i++) profile_free(e->profiles[i]);
    plan_free(e->p);
    free(e->f);
    free(e);
}

Test(plan_without, a_worker)
{
    example *e = make(400u << 20, 0);
    plan *p, *again;
    pr_err err = {0};
    size_t n;

    cr_assert_eq(plan_without(&p, e->p, "d1", e->f, &err), PR_OK, "%s", err.msg);
    cr_assert_eq(p->n_devices, 2);
    cr_assert_str_eq(p->device[0].name, "d0");
    cr_assert_str_eq(p->device[1].name, "d2");
    cr_assert_str_eq(p->device[1].ssh, "ssh2");
    cr_assert_eq(p->device[1].port, 9702);
    cr_assert_eq(p->device[1].threads, 2);
    cr_assert_eq(plan_device_layers(&p->device[0], NULL) + plan_device_layers(&p->device[1], NULL), N_LAYERS);
    cr_assert_str_eq(p->net.key_file, "/k");
    cr_assert_eq(p->net.peer_s, 3);
    cr_assert_eq(p->slots, e->p->slots);
    cr_assert_str_eq(p->kv_type, "f16");
    cr_assert_str_eq(p->model.header_sha256, e->p->model.header_sha256);
    cr_assert_eq(plan_check(p, &err), PR_OK, "%s", err.msg);

    char *text = plan_text(p, &n);
    cr_assert_eq(plan_parse(&again, text, n, "again", &err), PR_OK, "%s", err.msg);
    free(text);
    plan_free(p);
    cr_assert_eq(plan_without(&p, again, "d2", e->f, &err), PR_OK, "one after another: %s", err.msg);
    cr_assert_eq(p->n_devices, 1);
    cr_assert_eq(plan_device_layers(&p->device[0], NULL), N_LAYERS);
    plan_free(again);
    plan_free(p);
    drop(e);
}

/* What does not fit the others any more is streamed where there is a disk, else refused with what is missing.
 */
Test(plan_without, memory_is_short)
{
    example *e = make(60u << 20, 1e9);
    plan *p;
    pr_err err = {0};
    uint32_t streamed = 0;

    cr_assert_eq(plan_without(&p, e->p, "d2", e->f, &err), PR_OK, "%s", err.msg);
    for (size_t i = 0; i < p->n_devices; i++) {
        const plan_bytes *b = &p->device[i].bytes;
        cr_assert_leq(b->weights_ram + b->kv_ram + b->buffers_ram, 60u << 20);
        for (size_t w = 0; w < p->device[i].n_windows; w++)
            streamed += p->device[i].window[w].streamed_pieces;
    }
    cr_assert_gt(streamed, 0);
    plan_free(p);
    drop(e);

    e = make(60u << 20, 0);
    cr_assert_eq(plan_without(&p, e->p, "d2", e->f, &err), PR_EINFEASIBLE);
    cr_assert_null(p);
    cr_assert(strstr(err.msg, "bytes"), "%s", err.msg);
    drop(e);
}

Test(plan_without, only_workers_can_be_lost)
{
    example *e = make(400u << 20, 0);
    plan *p;
    pr_err err = {0};

    cr_assert_eq(plan_without(&p, e->p, "d0", e->f, &err), PR_EINTERNAL);
    cr_assert_eq(plan_without(&p, e->p, "nobody", e->f, &err), PR_EINTERNAL);
    drop(e);
}
