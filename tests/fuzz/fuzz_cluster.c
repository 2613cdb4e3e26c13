/* Any bytes as a cluster or shape file: refused with a message that names the file, or every figure is within
 * its limits. */
#include "planner/cluster.h"
#include "planner/shape.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void must(bool ok)
{
    if (!ok) abort();
}

static void must_be_refused_by_name(int rc, const pr_err *e)
{
    must(rc == PR_EUSAGE && e->code == PR_EUSAGE && !strncmp(e->msg, "file:", 5));
}

static void check_cluster(const cluster *c)
{
    must(c->n_devices >= 1 && c->n_devices <= CLUSTER_MAX_DEVICES && c->n_links <= CLUSTER_MAX_LINKS);
    must(c->peer_s >= 2 * c->heartbeat_s && c->connect_s >= 1);
    for (size_t i = 0; i < c->n_devices; i++) {
        const cluster_device *d = &c->device[i];
        must(*d->name && *d->host && *d->name != '-' && *d->host != '-' && *d->ssh != '-' && *d->user != '-');
        must(strlen(d->name) <= 32 && d->port && d->n_gpus <= CLUSTER_MAX_GPUS);
        for (size_t j = 0; j < i; j++) must(strcmp(d->name, c->device[j].name));
    }
    for (size_t i = 0; i < c->n_links; i++) {
        const cluster_link *l = &c->link[i];
        must(l->from < c->n_devices && l->to < c->n_devices && l->from != l->to);
        must(isfinite(l->mbit_per_s) && l->mbit_per_s > 0 && isfinite(l->rtt_ms) && l->rtt_ms >= 0);
    }
}

static void check_shape(const model_facts *f)
{
    must(f->n_layers >= 1 && f->n_layers <= FACTS_MAX_LAYERS && f->n_work >= 1 &&
         f->n_work <= FACTS_MAX_TYPES);
    must(f->file_bytes >= facts_layer_bytes(f, 0, f->n_layers) + f->input_bytes);
    for (uint32_t il = 0; il < f->n_layers; il++) must(f->layer_bytes[il] > 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static model_facts f;
    cluster *c = NULL;
    pr_err e = {0};
    int rc = cluster_parse(&c, (const char *)data, n, "file", &e);

    if (rc) must_be_refused_by_name(rc, &e);
    else check_cluster(c);
    cluster_free(c);
    rc = shape_parse(&f, (const char *)data, n, "file", NULL, &e);
    if (rc) must_be_refused_by_name(rc, &e);
    else check_shape(&f);
    return 0;
}
