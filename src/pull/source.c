/* From the words of a source to the files of one model; see source.h. */
#include "src/pull/source.h"
#include "src/base/log.h"
#include "src/pull/verify.h"
#include <dirent.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

enum { MAX_LISTED = 60 };

static int no_memory(pr_err *err)
{
    return pr_fail(err, PR_ERESOURCE, "out of memory");
}

void source_free(source *s)
{
    if (!s) return;
    for (size_t i = 0; i < s->n_files; i++) {
        free(s->file[i].url);
        free(s->file[i].name);
    }
    free(s->file);
    free(s->repo);
    free(s->commit);
    free(s);
}

/* Room for the parts of the model that `name` is a part of, with their names. */
static int name_files(source *s, const char *name, pr_err *err)
{
    uint32_t part, count;
    size_t stem;

    name_split(name, &part, &count, &stem);
    if (!(s->file = calloc(count, sizeof *s->file))) return no_memory(err);
    s->n_files = count;
    for (uint32_t i = 0; i < count; i++) {
        if (!(s->file[i].name = name_of_part(name, i + 1))) return no_memory(err);
    }
    return PR_OK;
}

/* --- repositories -------------------------------------------------------------------------------------- */
static const char *base_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

/* What there is, for somebody who asked for what is not. */
static void log_models(const source_model *m, size_t n, const char *quant)
{
    size_t shown = 0;

    for (size_t i = 0; i < n && shown < MAX_LISTED; i++) {
        if (strcmp(m[i].kind, "model") || (quant && strcmp(quant, m[i].quant))) continue;
        log_warn("  %-12s %8.2f GB  %s", *m[i].quant ? m[i].quant : "-", (double)m[i].bytes / 1e9, m[i].path);
        shown++;
    }
}

static int find_quant(const char **path, const source_spec *spec, const source_model *m, size_t n,
                      pr_err *err)
{
    size_t found = 0, models = 0;

    for (size_t i = 0; i < n; i++) {
        if (strcmp(m[i].kind, "model")) continue;
        models++;
        if (strcmp(m[i].quant, spec->what)) continue;
        *path = m[i].path;
        found++;
    }
    if (found == 1) return PR_OK;
    if (!models)
        return pr_fail(err, PR_EUSAGE, "%s at %s has no models in GGUF files", spec->repo, spec->rev);
    log_models(m, n, found ? spec->what : NULL);
    if (found)
        return pr_fail(err, PR_EUSAGE, "%s has %zu models in %s: name one of them as %s/FILE", spec->repo,
                       found, spec->what, spec->repo);
    return pr_fail(err, PR_EUSAGE,
                   "%s has no model in %s; it has the %zu above (name one as %s:QUANTISATION or %s/FILE)",
                   spec->repo, spec->what, models, spec->repo, spec->repo);
}

/* By its path, or by its name when only one folder has it. */
static int find_file(const char **path, const source_spec *spec, const hub_tree *t, const source_model *m,
                     size_t n, pr_err *err)
{
    size_t found = 0;

    for (size_t i = 0; i < t->n; i++) {
        if (strcmp(t->entry[i].path, spec->what) == 0) {
            *path = t->entry[i].path;
            return PR_OK;
        }
        if (strcmp(base_of(t->entry[i].path), spec->what)) continue;
        *path = t->entry[i].path;
        found++;
    }
    if (found == 1) return PR_OK;
    log_models(m, n, NULL);
    if (found)
        return pr_fail(err, PR_EUSAGE, "%s has %zu files %s in its folders: name one with its folder",
                       spec->repo, found, spec->what);
    return pr_fail(err, PR_EUSAGE, "%s at %s has no file %s; its models are above", spec->repo, spec->rev,
                   spec->what);
}

static const hub_entry *entry_of(const hub_tree *t, const char *folder, size_t n, const char *name)
{
    for (size_t i = 0; i < t->n; i++) {
        const char *path = t->entry[i].path;
        if (strncmp(path, folder, n) == 0 && strcmp(path + n, name) == 0) return &t->entry[i];
    }
    return NULL;
}

/* All parts of the model that `path` is a part of. */
static int take_entries(source *s, const char *path, const hub *h, const hub_tree *t, pr_err *err)
{
    size_t folder = (size_t)(base_of(path) - path);
    int rc = name_files(s, path + folder, err);

    for (size_t i = 0; !rc && i < s->n_files; i++) {
        source_file *x = &s->file[i];
        const hub_entry *e = entry_of(t, path, folder, x->name);

        if (!e)
            return pr_fail(err, PR_EINTEGRITY, "%s: part %zu of %zu is missing in the repository (%s)", path,
                           i + 1, s->n_files, x->name);
        x->has_bytes = true;
        x->bytes = e->bytes;
        memcpy(x->sha256, e->sha256, sizeof x->sha256);
        if (!(x->url = hub_file_url(h, s->repo, s->commit, e->path))) rc = no_memory(err);
    }
    return rc;
}

static int resolve_repo(source *s, const source_spec *spec, const hub *h, fetch *f, pr_err *err)
{
    hub_tree t;
    source_model *m;
    const char *path = NULL;
    size_t n;
    int rc = hub_tree_get(&t, h, f, spec->repo, spec->rev, err);

    if (rc) return rc;
    if (!(m = source_models(&t, &n)) || !(s->repo = strdup(spec->repo)) || !(s->commit = strdup(t.commit)))
        rc = no_memory(err);
    if (!rc)
        rc = spec->kind == SOURCE_QUANT ? find_quant(&path, spec, m, n, err)
                                        : find_file(&path, spec, &t, m, n, err);
    if (!rc) rc = take_entries(s, path, h, &t, err);
    free(m);
    hub_tree_clear(&t);
    return rc;
}

/* --- addresses ----------------------------------------------------------------------------------------- */
/* Name and files of an address: the last component of its path, and where it stands. */
static int name_address(source *s, const char *url, size_t *first, size_t *end, pr_err *err)
{
    char *name;
    int rc;

    *end = strcspn(url, "?");
    for (*first = *end; url[*first - 1] != '/';) --*first;
    if (*first <= (size_t)(strstr(url, "://") + 3 - url) || *first == *end)
        return pr_fail(err, PR_EUSAGE, "%.200s: the address does not end in the name of a file", url);
    if (!(name = name_decode(url + *first, *end - *first)))
        return pr_fail(err, PR_EUSAGE, "%.200s: a malformed %%XX in the address", url);
    if (!(rc = name_check(name, err))) rc = name_files(s, name, err);
    free(name);
    return rc;
}

static int resolve_url(source *s, const char *url, pr_err *err)
{
    size_t first, end, room;
    int rc = name_address(s, url, &first, &end, err);

    for (size_t i = 0; !rc && i < s->n_files; i++) {
        char *name = name_encode(s->file[i].name, false);

        room = strlen(url) + (name ? strlen(name) : 0) + 1;
        if (!name || !(s->file[i].url = malloc(room))) rc = no_memory(err);
        else if (s->n_files == 1) snprintf(s->file[i].url, room, "%s", url);
        else snprintf(s->file[i].url, room, "%.*s%s%s", (int)first, url, name, url + end);
        free(name);
    }
    return rc;
}

/* --- paths --------------------------------------------------------------------------------------------- */
/* Links on the way to the folder are followed; the name stays, since a link's name is what the model is
 * called. */
static int local_file(source_file *x, const char *folder, pr_err *err)
{
    char path[PATH_MAX], *encoded;
    struct stat st;
    size_t room;

    if (snprintf(path, sizeof path, "%s/%s", folder, x->name) >= (int)sizeof path)
        return pr_fail(err, PR_ERESOURCE, "%.200s: path too long", x->name);
    if (stat(path, &st)) return pr_fail_errno(err, PR_ERESOURCE, "%s", path);
    if (!S_ISREG(st.st_mode)) return pr_fail(err, PR_ERESOURCE, "%s: not a file", path);
    x->has_bytes = true;
    x->bytes = (uint64_t)st.st_size;
    if (!(encoded = name_encode(path, true))) return no_memory(err);
    room = strlen(encoded) + sizeof "file://";
    if ((x->url = malloc(room))) snprintf(x->url, room, "file://%s", encoded);
    free(encoded);
    return x->url ? verify_sidecar_read(path, x->sha256, err) : no_memory(err);
}

static int resolve_path(source *s, const char *path, pr_err *err)
{
    const char *name = base_of(path);
    char folder[PATH_MAX], real[PATH_MAX];
    struct stat st;
    int rc;

    if (stat(path, &st))
        return pr_fail_errno(err, PR_ERESOURCE, "%.300s (a repository is written owner/repo)", path);
    if (S_ISDIR(st.st_mode)) return pr_fail(err, PR_EUSAGE, "%.300s: a folder, expected a file", path);
    if (name == path) snprintf(folder, sizeof folder, ".");
    else if (snprintf(folder, sizeof folder, "%.*s", (int)(name - path), path) >= (int)sizeof folder)
        return pr_fail(err, PR_ERESOURCE, "%.200s: path too long", path);
    if (!realpath(folder, real)) return pr_fail_errno(err, PR_ERESOURCE, "%s", folder);
    if ((rc = name_check(name, err)) || (rc = name_files(s, name, err))) return rc;
    for (size_t i = 0; !rc && i < s->n_files; i++) rc = local_file(&s->file[i], real, err);
    return rc;
}

/* --- without the network ------------------------------------------------------------------------------- */
/* "QwQ-32B" of "Qwen/QwQ-32B-GGUF": what the names of its files begin with. */
static size_t model_words(const char **words, const char *repo)
{
    size_t n;

    *words = base_of(repo);
    n = strlen(*words);
    return n > 5 && !strcasecmp(*words + n - 4, "gguf") && strchr("-_.", (*words)[n - 5]) ? n - 5 : n;
}

static bool fits(const char *name, const source_spec *spec)
{
    const char *words;
    char quant[NAME_QUANT_BYTES];
    size_t n = model_words(&words, spec->repo);

    name_quant(name, quant);
    return name_is_gguf(name) && strncasecmp(name, words, n) == 0 && !strcmp(quant, spec->what) &&
           !strcmp(name_kind(name), "model") && !name_check(name, NULL);
}

/* The first part's name of the one model in dir that fits; caller frees. */
static int find_here(char **out, const source_spec *spec, const char *dir, pr_err *err)
{
    DIR *d = opendir(dir);
    struct dirent *e;
    size_t found = 0;

    *out = NULL;
    while (d && (e = readdir(d))) {
        char *first;

        if (!fits(e->d_name, spec) || !(first = name_of_part(e->d_name, 1))) continue;
        if (*out && !strcmp(*out, first)) {
            free(first); /* another part of it */
            continue;
        }
        if (found++) log_warn("  %s", first);
        if (*out) free(first);
        else *out = first;
    }
    if (d) closedir(d);
    if (found == 1) return PR_OK;
    if (found)
        return pr_fail(err, PR_EUSAGE,
                       "offline: %zu models in %s could be %s:%s (%s, and those above): name the file", found,
                       dir, spec->repo, spec->what, *out);
    return pr_fail(err, PR_ENETWORK,
                   "offline: no model in %s has a name like %s:%s, and the hub is not asked", dir, spec->repo,
                   spec->what);
}

static int resolve_offline(source *s, const source_spec *spec, const char *dir, pr_err *err)
{
    size_t first, end;
    char *name = NULL;
    int rc;

    s->offline = true;
    if (spec->repo && !(s->repo = strdup(spec->repo))) return no_memory(err);
    if (spec->kind == SOURCE_URL) return name_address(s, spec->what, &first, &end, err);
    if (spec->kind == SOURCE_FILE) return name_files(s, base_of(spec->what), err);
    if (!(rc = find_here(&name, spec, dir, err))) rc = name_files(s, name, err);
    free(name);
    return rc;
}

/* --- all of them --------------------------------------------------------------------------------------- */
static int resolve(source *s, const source_spec *spec, const hub *h, fetch *f, const char *dir, pr_err *err)
{
    if (spec->kind == SOURCE_PATH) return resolve_path(s, spec->what, err);
    if (h->offline) return resolve_offline(s, spec, dir, err);
    if (spec->kind == SOURCE_URL) return resolve_url(s, spec->what, err);
    return resolve_repo(s, spec, h, f, err);
}

int source_resolve(source **out, const char *text, const hub *h, fetch *f, const char *dir, pr_err *err)
{
    source_spec spec;
    source *s;
    int rc = source_parse(&spec, text, h, err);

    if (rc) return rc;
    if (!(s = calloc(1, sizeof *s))) rc = no_memory(err);
    else rc = resolve(s, &spec, h, f, dir, err);
    if ((rc == PR_EAUTH || rc == PR_ENETWORK) && name_is_gguf(text) && !strstr(text, "://"))
        pr_wrap(err, "no such file here, so taken for one of a repository");
    if (rc) source_free(s);
    else *out = s;
    source_spec_clear(&spec);
    return rc;
}
