/* A pack of layers as a page for people or as JSON: whose it is, which layers are there, whether they are
 * believed. Reads its journal only. */
#include "src/inspect_pack.h"
#include "src/base/json.h"
#include "src/model/pack_file.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static const char magic[] = "prima/pack/", data_name[] = "layers.pack";

bool inspect_is_pack(const char *path)
{
    size_t n = strlen(path), tail = sizeof data_name - 1;
    char start[sizeof magic] = "", journal[4096];
    struct stat st;
    FILE *f;

    if (stat(path, &st)) return false;
    if (S_ISDIR(st.st_mode)) {
        snprintf(journal, sizeof journal, "%s/layers", path);
        return !stat(journal, &st);
    }
    if (n >= tail && !strcmp(path + n - tail, data_name)) return true;
    if (!(f = fopen(path, "r"))) return false;
    n = fread(start, 1, sizeof start - 1, f);
    fclose(f);
    return n && !strcmp(start, magic);
}

/* The next run of layers that are there, from *first on; false: none. */
static bool next_run(const pack_file_facts *x, uint32_t *first, uint32_t *end)
{
    while (*first < x->n_layers && !x->here[*first]) ++*first;
    for (*end = *first; *end < x->n_layers && x->here[*end];) ++*end;
    return *end > *first;
}

static void print_page(const char *path, const pack_file_facts *x)
{
    uint32_t first = 0, end;

    printf("pack            %s\n", path);
    printf("of the model    header %.16s..., %" PRIu32 " layers; layout %" PRIu32 "\n", x->header_sha256,
           x->n_layers, x->layout);
    printf("layers here     ");
    for (; next_run(x, &first, &end); first = end) {
        printf("%s%" PRIu32, first ? ", " : "", first);
        if (end - first > 1) printf("..%" PRIu32, end - 1);
    }
    printf("%s%" PRIu32 " of %" PRIu32 ", %" PRIu64 " bytes (%.2f GiB)\n", x->n_here ? ": " : "", x->n_here,
           x->n_layers, x->bytes_here, (double)x->bytes_here / 0x1p30);
    printf("state           %s\n", x->sealed
                                       ? "sealed: nobody has written to it since"
                                       : "not sealed: layers are read and compared when they are used next");
}

static json_t *facts_json(const char *path, const pack_file_facts *x)
{
    json_t *here = json_array();

    for (uint32_t i = 0; i < x->n_layers; i++)
        if (x->here[i]) json_array_append_new(here, json_integer(i));
    return json_pack("{s:s, s:{s:s, s:s}, s:s, s:i, s:i, s:o, s:I, s:b}", "schema", "prima/inspect/1", "file",
                     "format", "pack", "path", path, "header_sha256", x->header_sha256, "layout",
                     (int)x->layout, "layers", (int)x->n_layers, "layers_here", here, "bytes_here",
                     (json_int_t)x->bytes_here, "sealed", x->sealed);
}

static int print_json(const char *path, const pack_file_facts *x, pr_err *err)
{
    char *name = gguf_text((gguf_str){path, strlen(path)}, SIZE_MAX); /* UTF-8, whatever the path is */
    json_t *o = name ? facts_json(name, x) : NULL;
    char *line = o ? json_line(o) : NULL;

    if (line) printf("%s\n", line);
    free(line);
    json_decref(o);
    free(name);
    return line ? PR_OK : pr_fail(err, PR_ERESOURCE, "out of memory");
}

int inspect_pack(const char *path, bool json, pr_err *err)
{
    pack_file_facts x;
    int rc = pack_file_about(&x, path, err);

    if (rc) return rc;
    if (json) rc = print_json(path, &x, err);
    else print_page(path, &x);
    pack_file_facts_clear(&x);
    if (!rc && fflush(stdout)) rc = pr_fail_errno(err, PR_ERESOURCE, "writing to standard output");
    return rc;
}
