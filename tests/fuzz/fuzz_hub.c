/* What a hub answers, and what a user types, as any bytes: nothing that comes out may lead out of the folder.
 */
#include "src/pull/hub.h"
#include "src/pull/source.h"
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void must(bool ok)
{
    if (!ok) abort();
}

static void check_name(const char *name)
{
    must(*name && *name != '.' && !strpbrk(name, "/\\\n\r\x1B") && strlen(name) < 250);
}

static void check_list(const char *json, size_t n)
{
    hub_tree t = {0};
    char commit[HUB_COMMIT_BYTES];
    size_t n_models;
    source_model *m;

    if (!hub_tree_parse(&t, json, n, NULL)) {
        must((m = source_models(&t, &n_models)) != NULL);
        must(n_models <= t.n);
        free(m);
    }
    for (size_t i = 0; i < t.n; i++) {
        const char *slash = strrchr(t.entry[i].path, '/');
        check_name(slash ? slash + 1 : t.entry[i].path);
        must(t.entry[i].path[0] != '/' && !strstr(t.entry[i].path, "/../"));
    }
    hub_tree_clear(&t);
    if (!hub_commit_parse(commit, json, n, NULL)) must(strlen(commit) == 40 || strlen(commit) == 64);
}

/* Without the network: names alone. */
static void check_words(const char *text)
{
    const hub h = {.endpoint = "https://h.example", .origin = "https://h.example", .offline = true};
    source_spec spec;
    source *s = NULL;

    if (source_parse(&spec, text, &h, NULL)) return;
    if (spec.kind != SOURCE_PATH && !source_resolve(&s, text, &h, NULL, "/nonexistent", NULL)) {
        for (size_t i = 0; i < s->n_files; i++) check_name(s->file[i].name);
        source_free(s);
    }
    source_spec_clear(&spec);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    char *text = malloc(n + 1);

    must(text != NULL);
    memcpy(text, data, n);
    text[n] = 0;
    check_list(text, n);
    check_words(text);
    free(text);
    return 0;
}
