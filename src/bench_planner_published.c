/* datasets/clusters/NAME/published.yaml: times that others measured on that cluster, to put beside
 * predictions. */
#include "planner/yaml.h"
#include "src/base/file.h"
#include "src/bench_planner.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FILE_MAX_BYTES = 1 << 20 };

static void read_time(yaml_tree *t, const yaml_item *item, published_times *out)
{
    static const char *const keys[] = {"model", "shape",   "tool",  "tpot_ms", "ttft_ms",
                                       "oom",   "weights", "table", NULL};
    published_time *p = &out->time[out->n];
    const yaml_item *ms = yaml_get(item, "tpot_ms");
    char text[128];

    if (!yaml_keys(t, item, keys)) return;
    *p = (published_time){.oom = yaml_bool(t, yaml_get(item, "oom"), false)};
    yaml_text(t, yaml_need(t, item, "model"), text, sizeof text);
    yaml_text(t, yaml_need(t, item, "table"), text, sizeof text);
    yaml_text(t, yaml_need(t, item, "tool"), p->tool, sizeof p->tool);
    yaml_text(t, yaml_get(item, "shape"), p->shape, sizeof p->shape);
    yaml_text(t, yaml_get(item, "weights"), p->weights, sizeof p->weights);
    p->tpot_ms = yaml_number(t, ms, 1e-3, 1e9, NAN);
    p->ttft_ms = yaml_number(t, yaml_get(item, "ttft_ms"), 1e-3, 1e9, NAN);
    if (!ms == !p->oom) yaml_fail(t, item, "expected either tpot_ms or oom: true");
    if (*p->shape) out->n++;
}

static void read_all(yaml_tree *t, published_times *out)
{
    static const char *const keys[] = {"schema", "source", "measured", NULL};
    const yaml_item *root = yaml_root(t), *list;
    char source[128];

    yaml_schema(t, root, "published");
    if (!yaml_keys(t, root, keys)) return;
    yaml_text(t, yaml_need(t, root, "source"), source, sizeof source);
    list = yaml_need(t, root, "measured");
    if (!list || !yaml_is_list(t, list)) return;
    if (list->n > PUBLISHED_MAX) {
        yaml_fail(t, list, "measured: %zu entries, at most %d", list->n, PUBLISHED_MAX);
        return;
    }
    for (const yaml_item *i = list->first; i; i = i->next) read_time(t, i, out);
}

int published_read(published_times *times, const char *path, pr_err *err)
{
    yaml_tree *t = NULL;
    char *text = NULL;
    size_t n;
    int rc = file_slurp(&text, &n, path, FILE_MAX_BYTES, err);

    memset(times, 0, sizeof *times);
    if (!rc) rc = yaml_parse(&t, text, n, path, err);
    if (!rc) {
        read_all(t, times);
        rc = yaml_error(t, err);
    }
    yaml_free(t);
    free(text);
    return rc;
}

const published_time *published_find(const published_times *t, const char *shape, const char *tool)
{
    for (size_t i = 0; i < t->n; i++) {
        if (!strcmp(t->time[i].shape, shape) && !strcmp(t->time[i].tool, tool)) return &t->time[i];
    }
    return NULL;
}

int paper_cluster(machines *m, published_times *t, const planner_options *o, pr_err *err)
{
    char path[BENCH_PATH_BYTES];
    int rc;

    snprintf(path, sizeof path, "%s/clusters/paper-home/published.yaml", o->datasets);
    if ((rc = published_read(t, path, err))) return rc;
    snprintf(path, sizeof path, "%s/clusters/paper-home.yaml", o->datasets);
    return machines_read(m, path, err);
}
