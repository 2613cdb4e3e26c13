/* The hub's public API, from its documentation: GET /api/models/REPO/revision/REV answers an object with
 * `sha`, the commit; GET /api/models/REPO/tree/REV?recursive=true a list of {type, path, size, lfs: {oid,
 * size}}, page by page
 * (`Link: <...>; rel="next"`), where lfs.oid is the SHA-256 of the file itself.
 *
 * Only the path and query of a link to the next page are used, at our endpoint: mirrors pass the original's
 * links on, and a server must not send us elsewhere. What is in hub_env.c: the environment. */
#include "src/pull/hub.h"
#include "src/base/json.h"
#include "src/pull/source_name.h"
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PAGE_BYTES = 32 << 20, MAX_PAGES = 500, MAX_FILES = 20000, COMMIT_BYTES = 1 << 20, SAID_BYTES = 200 };

static char *print_new(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static char *print_new(const char *fmt, ...)
{
    char *s = NULL;
    va_list ap;

    va_start(ap, fmt);
    if (vasprintf(&s, fmt, ap) < 0) s = NULL;
    va_end(ap);
    return s;
}

static int no_memory(pr_err *err)
{
    return pr_fail(err, PR_ERESOURCE, "out of memory");
}

/* --- answers ------------------------------------------------------------------------------------------- */
static bool is_hex(const char *s, size_t n)
{
    return s && strlen(s) == n && strspn(s, "0123456789abcdef") == n;
}

static json_t *parse_answer(const char *json, size_t n, pr_err *err)
{
    pr_err e = {0};
    json_t *v = json_parse(json, n, &e);

    if (!v) pr_fail(err, PR_EINTEGRITY, "the hub's answer is not JSON: %s", e.msg);
    return v;
}

int hub_commit_parse(char commit[HUB_COMMIT_BYTES], const char *json, size_t n, pr_err *err)
{
    json_t *v = parse_answer(json, n, err);
    const char *sha = json_string_value(json_object_get(v, "sha"));
    int rc = PR_EINTEGRITY;

    if (!v) return rc;
    if (is_hex(sha, 40) || is_hex(sha, 64)) {
        snprintf(commit, HUB_COMMIT_BYTES, "%s", sha);
        rc = PR_OK;
    } else {
        pr_fail(err, rc, "the hub's answer names no commit (key sha, 40 hexadecimal digits)");
    }
    json_decref(v);
    return rc;
}

/* A number of bytes that can be summed up: 0 to 2^48. */
static bool read_size(const json_t *v, uint64_t *bytes)
{
    json_int_t n = json_integer_value(v);

    if (!json_is_integer(v) || n < 0 || n > ((json_int_t)1 << 48)) return false;
    *bytes = (uint64_t)n;
    return true;
}

static int read_entry(hub_entry *e, const char *path, const json_t *item, pr_err *err)
{
    const json_t *lfs = json_object_get(item, "lfs");
    const char *oid = json_string_value(json_object_get(lfs, "oid"));
    uint64_t lfs_bytes;
    pr_err why = {0};

    if (name_check_path(path, &why))
        return pr_fail(err, PR_EINTEGRITY, "the hub lists a file %.300s", why.msg);
    if (!read_size(json_object_get(item, "size"), &e->bytes))
        return pr_fail(err, PR_EINTEGRITY, "the hub names no size of %.200s (key size)", path);
    if (json_is_object(lfs)) {
        if (oid && strncmp(oid, "sha256:", 7) == 0)
            oid += 7; /* as in the files of Git LFS, and from some mirrors */
        if (!is_hex(oid, 64) || !read_size(json_object_get(lfs, "size"), &lfs_bytes) || lfs_bytes != e->bytes)
            return pr_fail(
                err, PR_EINTEGRITY,
                "what the hub says of %.200s does not fit: lfs.oid is no SHA-256, or lfs.size is not size",
                path);
        snprintf(e->sha256, sizeof e->sha256, "%s", oid);
    }
    if (!(e->path = strdup(path))) return no_memory(err);
    return PR_OK;
}

/* "._model.gguf" and the like: what other systems leave behind, no model. */
static bool is_hidden(const char *path)
{
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    return name[0] == '.' && name[1] != '.';
}

static int add_entry(hub_tree *t, const json_t *item, pr_err *err)
{
    const char *type = json_string_value(json_object_get(item, "type"));
    const char *path = json_string_value(json_object_get(item, "path"));
    hub_entry e = {0}, *more;
    int rc;

    if (!type || !path)
        return pr_fail(err, PR_EINTEGRITY, "an entry of the hub's list has no type or no path");
    if (strcmp(type, "file") != 0 || !name_is_gguf(path) || is_hidden(path)) return PR_OK;
    if (json_string_length(json_object_get(item, "path")) != strlen(path))
        return pr_fail(err, PR_EINTEGRITY, "the hub lists a file with a NUL in its name: refused");
    if (t->n == MAX_FILES)
        return pr_fail(err, PR_EINTEGRITY, "the hub lists more than %d GGUF files", MAX_FILES);
    if ((rc = read_entry(&e, path, item, err))) return rc;
    if (!(more = realloc(t->entry, (t->n + 1) * sizeof *more))) {
        free(e.path);
        return no_memory(err);
    }
    t->entry = more;
    t->entry[t->n++] = e;
    return PR_OK;
}

int hub_tree_parse(hub_tree *t, const char *json, size_t n, pr_err *err)
{
    json_t *v = parse_answer(json, n, err), *item;
    int rc = PR_OK;
    size_t i;

    if (!v) return PR_EINTEGRITY;
    if (!json_is_array(v)) rc = pr_fail(err, PR_EINTEGRITY, "the hub's answer is not a list of files");
    for (i = 0; !rc && i < json_array_size(v); i++) {
        item = json_array_get(v, i);
        rc = add_entry(t, item, err);
    }
    json_decref(v);
    return rc;
}

void hub_tree_clear(hub_tree *t)
{
    for (size_t i = 0; i < t->n; i++) free(t->entry[i].path);
    free(t->entry);
    *t = (hub_tree){0};
}

/* --- asking it ----------------------------------------------------------------------------------------- */
char *hub_file_url(const hub *h, const char *repo, const char *rev, const char *path)
{
    char *r = name_encode(rev, false), *p = name_encode(path, true), *url = NULL;

    if (r && p) url = print_new("%s/%s/resolve/%s/%s", h->endpoint, repo, r, p);
    free(r);
    free(p);
    return url;
}

int hub_refused(const hub *h, const char *repo, pr_err *err)
{
    char said[SAID_BYTES];

    snprintf(said, sizeof said, "%.*s", SAID_BYTES - 1, err ? err->msg : "");
    if (!h->token)
        return pr_fail(err, PR_EAUTH,
                       "%s: gated, private, or not there. Look at %s/%s, accept its licence if it asks for "
                       "that, and set HF_TOKEN to a "
                       "token that may read it. (%s)",
                       repo, h->endpoint, repo, said);
    return pr_fail(err, PR_EAUTH,
                   "%s: refused to the token from %s. Look at %s/%s with that account, accept its licence if "
                   "it asks for that, and see "
                   "whether the token is valid and may read it. (%s)",
                   repo, h->token_from, h->endpoint, repo, said);
}

static int explain(const hub *h, const char *repo, const char *rev, pr_err *err, int rc)
{
    if (rc == PR_EAUTH) return hub_refused(h, repo, err);
    pr_wrap(err, "%s at %s", repo, rev);
    return rc;
}

/* Its path and query at our endpoint; NULL and an error when it does not lead to the API. Caller frees. */
static char *next_url(const hub *h, const char *link, pr_err *err)
{
    const char *at = strstr(link, "/api/models/");
    char *url = at ? print_new("%s%s", h->endpoint, at) : NULL;

    if (!at) pr_fail(err, PR_EINTEGRITY, "the hub's link to the next page leads elsewhere: %.200s", link);
    else if (!url) no_memory(err);
    return url;
}

/* One page; *url becomes the next one, or NULL. */
static int get_page(hub_tree *t, const hub *h, fetch *f, char **url, pr_err *err)
{
    char *text = NULL, *link = NULL, *next = NULL;
    size_t n = 0;
    int rc = fetch_text(f, *url, PAGE_BYTES, &text, &n, &link, err);

    if (!rc) rc = hub_tree_parse(t, text, n, err);
    if (!rc && link && !(next = next_url(h, link, err))) rc = PR_EINTEGRITY;
    if (!rc && next && strcmp(next, *url) == 0)
        rc = pr_fail(err, PR_EINTEGRITY, "the hub's list of files goes in a circle");
    free(*url);
    *url = next;
    free(text);
    free(link);
    return rc;
}

static int get_pages(hub_tree *t, const hub *h, fetch *f, const char *repo, pr_err *err)
{
    char *url = print_new("%s/api/models/%s/tree/%s?recursive=true", h->endpoint, repo, t->commit);
    int rc = url ? PR_OK : no_memory(err), pages;

    for (pages = 0; !rc && url && pages < MAX_PAGES; pages++) rc = get_page(t, h, f, &url, err);
    if (!rc && url)
        rc = pr_fail(err, PR_EINTEGRITY, "the hub's list of files has more than %d pages", MAX_PAGES);
    free(url);
    return rc;
}

static int get_commit(hub_tree *t, const hub *h, fetch *f, const char *repo, const char *rev, pr_err *err)
{
    char *r = name_encode(rev, false), *url = NULL, *text = NULL;
    size_t n = 0;
    int rc;

    if (r) url = print_new("%s/api/models/%s/revision/%s", h->endpoint, repo, r);
    rc = url ? fetch_text(f, url, COMMIT_BYTES, &text, &n, NULL, err) : no_memory(err);
    if (!rc) rc = hub_commit_parse(t->commit, text, n, err);
    free(r);
    free(url);
    free(text);
    return rc;
}

int hub_tree_get(hub_tree *out, const hub *h, fetch *f, const char *repo, const char *rev, pr_err *err)
{
    int rc = PR_OK;

    *out = (hub_tree){0};
    if (is_hex(rev, 40)) snprintf(out->commit, sizeof out->commit, "%s", rev);
    else rc = get_commit(out, h, f, repo, rev, err);
    if (!rc) rc = get_pages(out, h, f, repo, err);
    if (!rc) return PR_OK;
    hub_tree_clear(out);
    return explain(h, repo, rev, err, rc);
}
