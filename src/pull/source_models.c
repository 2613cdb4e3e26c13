/* What a repository has: its GGUF files, the parts of a split model as one, and the table of it; see
 * source.h. */
#include "src/pull/source.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A file with what its name says. */
typedef struct {
    const hub_entry *e;
    uint32_t part, count;
    size_t stem; /* length of the path before "-00001-of-..." */
} named;

static named name_of(const hub_entry *e)
{
    const char *slash = strrchr(e->path, '/'), *name = slash ? slash + 1 : e->path;
    named x = {.e = e};

    name_split(name, &x.part, &x.count, &x.stem);
    x.stem += (size_t)(name - e->path);
    return x;
}

static int compare_models(const named *a, const named *b)
{
    size_t n = a->stem < b->stem ? a->stem : b->stem;
    int c = memcmp(a->e->path, b->e->path, n);

    if (c) return c;
    if (a->stem != b->stem) return a->stem < b->stem ? -1 : 1;
    return a->count < b->count ? -1 : a->count > b->count;
}

static int compare(const void *pa, const void *pb)
{
    const named *a = pa, *b = pb;
    int c = compare_models(a, b);

    return c ? c : a->part < b->part ? -1 : a->part > b->part;
}

static void begin_model(source_model *m, const named *x)
{
    *m = (source_model){.path = x->e->path, .kind = name_kind(x->e->path), .n_parts = x->count};
    m->sha256 = x->count == 1 ? x->e->sha256 : "";
    name_quant(x->e->path, m->quant);
}

source_model *source_models(const hub_tree *t, size_t *n)
{
    named *x = malloc((t->n + 1) * sizeof *x);
    source_model *m = malloc((t->n + 1) * sizeof *m);

    *n = 0;
    if (!x || !m) {
        free(x);
        free(m);
        return NULL;
    }
    for (size_t i = 0; i < t->n; i++) x[i] = name_of(&t->entry[i]);
    qsort(x, t->n, sizeof *x, compare);
    for (size_t i = 0; i < t->n; i++) {
        if (i && compare(&x[i - 1], &x[i]) == 0) continue; /* named twice */
        if (!i || compare_models(&x[i - 1], &x[i]) != 0) begin_model(&m[(*n)++], &x[i]);
        m[*n - 1].bytes += x[i].e->bytes;
        m[*n - 1].n_there++;
    }
    free(x);
    return m;
}

/* --- the table ----------------------------------------------------------------------------------------- */
static const char *quant_text(const source_model *m)
{
    return strcmp(m->kind, "model") ? m->kind : *m->quant ? m->quant : "-";
}

static void print_table(const source_model *m, size_t n)
{
    int width = 4;

    for (size_t i = 0; i < n; i++) {
        if ((int)strlen(m[i].path) > width) width = (int)strlen(m[i].path);
    }
    printf("%-*s  %-12s %15s  %-9s %s\n", width, "name", "quantisation", "bytes", "parts", "sha256");
    for (size_t i = 0; i < n; i++) {
        char parts[32];

        if (m[i].n_there == m[i].n_parts) snprintf(parts, sizeof parts, "%" PRIu32, m[i].n_parts);
        else snprintf(parts, sizeof parts, "%" PRIu32 " of %" PRIu32, m[i].n_there, m[i].n_parts);
        printf("%-*s  %-12s %15" PRIu64 "  %-9s %s\n", width, m[i].path, quant_text(&m[i]), m[i].bytes, parts,
               *m[i].sha256 ? m[i].sha256 : "-");
    }
}

int source_print_list(const char *text, const hub *h, fetch *f, pr_err *err)
{
    source_spec spec;
    hub_tree tree = {0};
    source_model *m = NULL;
    size_t n;
    int rc = source_parse(&spec, text, h, err);

    if (rc) return rc;
    if (spec.kind == SOURCE_URL || spec.kind == SOURCE_PATH)
        rc = pr_fail(err, PR_EUSAGE, "--list shows a repository: expected owner/repo, not %.200s", text);
    if (!rc) rc = hub_tree_get(&tree, h, f, spec.repo, spec.rev, err);
    if (!rc && !(m = source_models(&tree, &n))) rc = pr_fail(err, PR_ERESOURCE, "out of memory");
    if (!rc && !n) rc = pr_fail(err, PR_EUSAGE, "%s at %s has no GGUF files", spec.repo, spec.rev);
    if (!rc) print_table(m, n);
    free(m);
    hub_tree_clear(&tree);
    source_spec_clear(&spec);
    return rc;
}
