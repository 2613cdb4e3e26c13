/* datasets/peers/ring.yaml: what rings of other programs take, to put beside ours. */
#include "planner/yaml.h"
#include "src/base/file.h"
#include "src/bench_ring.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { FILE_MAX_BYTES = 1 << 20 };

static void read_peer(yaml_tree *t, const yaml_item *item, ring_peers *out)
{
    static const char *const keys[] = {"tool",          "test",           "devices", "rounds",
                                       "link_delay_ms", "one_process_ms", "ring_ms", NULL};
    ring_peer *p = &out->peer[out->n++];

    if (!yaml_keys(t, item, keys)) return;
    yaml_text(t, yaml_need(t, item, "tool"), p->tool, sizeof p->tool);
    yaml_text(t, yaml_need(t, item, "test"), p->test, sizeof p->test);
    p->devices = (uint32_t)yaml_uint(t, yaml_need(t, item, "devices"), 2, 64, 2);
    p->rounds = (uint32_t)yaml_uint(t, yaml_need(t, item, "rounds"), 1, 1000, 1);
    p->delay_ms = yaml_number(t, yaml_need(t, item, "link_delay_ms"), 0, 1e4, 0);
    p->one_ms = yaml_number(t, yaml_need(t, item, "one_process_ms"), 1e-3, 1e9, NAN);
    p->ring_ms = yaml_number(t, yaml_need(t, item, "ring_ms"), 1e-3, 1e9, NAN);
}

static void read_all(yaml_tree *t, ring_peers *out)
{
    static const char *const keys[] = {"schema", "source", "measured", NULL};
    const yaml_item *root = yaml_root(t), *list;
    char source[1024];

    yaml_schema(t, root, "ring-peers");
    if (!yaml_keys(t, root, keys)) return;
    yaml_text(t, yaml_need(t, root, "source"), source, sizeof source);
    list = yaml_need(t, root, "measured");
    if (!list || !yaml_is_list(t, list)) return;
    if (list->n > RING_PEERS_MAX) {
        yaml_fail(t, list, "measured: %zu entries, at most %d", list->n, RING_PEERS_MAX);
        return;
    }
    for (const yaml_item *i = list->first; i; i = i->next) read_peer(t, i, out);
}

int ring_peers_read(ring_peers *out, const char *path, pr_err *err)
{
    yaml_tree *t = NULL;
    char *text = NULL;
    size_t n;
    int rc = file_slurp(&text, &n, path, FILE_MAX_BYTES, err);

    memset(out, 0, sizeof *out);
    if (!rc) rc = yaml_parse(&t, text, n, path, err);
    if (!rc) {
        read_all(t, out);
        rc = yaml_error(t, err);
    }
    yaml_free(t);
    free(text);
    return rc;
}

double ring_peers_ratio(const ring_peers *p, const char *tool, const char *test, uint32_t devices,
                        uint32_t rounds, double delay_ms)
{
    for (size_t i = 0; i < p->n; i++) {
        const ring_peer *x = &p->peer[i];
        if (!strcmp(x->tool, tool) && !strcmp(x->test, test) && x->devices == devices &&
            x->rounds == rounds && x->delay_ms == delay_ms)
            return x->one_ms / x->ring_ms;
    }
    return NAN;
}
