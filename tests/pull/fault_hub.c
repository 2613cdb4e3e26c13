/* The part of a model hub's public API that `prima pull` uses, imitated (tests/pull/README.md says from
 * what).
 *
 * A repository is a folder OWNER/REPO with the file .files: one line OID PATH FILE for each file of the
 * repository, OID being 64 digits (the sha256 of a large file, which the CDN serves) or 40 (a small one,
 * which the hub serves itself), FILE what is sent, from that folder. PATH is given out as it stands, so that
 * it can be hostile. The file .commit has the commit that "main" and "v1" are, .token the token without which
 * nothing is said. */
#include "tests/pull/fault.h"
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

enum { MAX_FILES = 256, OID_BYTES = 65, FILE_BYTES = FAULT_TEXT + 16 };

typedef struct {
    char oid[OID_BYTES], path[512], file[512];
    bool is_large;
    uint64_t bytes;
} entry;

typedef struct {
    char id[256], folder[FAULT_TEXT / 2], commit[64], token[256];
    entry entry[MAX_FILES];
    size_t n;
} repo;

static struct {
    const char *root, *cdn;
    unsigned page, expires_ms;
} hub;

void hub_open(const char *root, const char *cdn, unsigned page, unsigned expires_ms)
{
    hub.root = root;
    hub.cdn = cdn;
    hub.page = page;
    hub.expires_ms = expires_ms;
}

static void read_word(char *out, size_t size, const char *folder, const char *name)
{
    char path[2 * FAULT_TEXT], format[16];
    FILE *f;

    out[0] = '\0';
    snprintf(path, sizeof path, "%s/%s", folder, name);
    snprintf(format, sizeof format, "%%%zus", size - 1);
    if ((f = fopen(path, "r"))) {
        if (fscanf(f, format, out) != 1) out[0] = '\0';
        fclose(f);
    }
}

/* False when there is no such repository. */
static bool repo_read(repo *r, const char *owner, const char *name)
{
    char path[2 * FAULT_TEXT];
    FILE *f;

    memset(r, 0, sizeof *r);
    snprintf(r->id, sizeof r->id, "%.120s/%.120s", owner, name);
    snprintf(r->folder, sizeof r->folder, "%.250s/%.255s", hub.root, r->id);
    snprintf(path, sizeof path, "%s/.files", r->folder);
    if (!(f = fopen(path, "r"))) return false;
    while (r->n < MAX_FILES) {
        entry *e = &r->entry[r->n];
        struct stat s;

        if (fscanf(f, "%64s %511s %511s", e->oid, e->path, e->file) != 3) break;
        e->is_large = strlen(e->oid) == 64;
        snprintf(path, sizeof path, "%s/%s", r->folder, e->file);
        e->bytes = stat(path, &s) == 0 ? (uint64_t)s.st_size : 0;
        r->n++;
    }
    fclose(f);
    read_word(r->commit, sizeof r->commit, r->folder, ".commit");
    read_word(r->token, sizeof r->token, r->folder, ".token");
    return true;
}

static void say_error(answer *a, int status, const char *code, const char *text)
{
    answer_text(a, status, "{\"error\":\"%s\"}", text);
    if (code) answer_header(a, "X-Error-Code: %s", code);
    answer_header(a, "X-Error-Message: %s", text);
}

/* Repository and revision as the path names them, or the error is in *a. */
static bool repo_find(repo *r, const request *q, const char *owner, const char *name, const char *rev,
                      answer *a)
{
    char expected[300];
    const bool is_there = repo_read(r, owner, name);

    snprintf(expected, sizeof expected, "Bearer %s", r->token);
    if (!is_there || (r->token[0] && strcmp(q->authorization, expected) != 0)) {
        /* Who may not see a repository is not told whether it is there. */
        const bool is_known = is_there && q->authorization[0];
        if (is_known)
            say_error(a, 403, "GatedRepo",
                      "Access to this model is restricted and you are not in the authorized list.");
        else if (!q->authorization[0]) say_error(a, 401, "RepoNotFound", "Invalid username or password.");
        else say_error(a, 404, "RepoNotFound", "Repository not found");
        return false;
    }
    if (strcmp(rev, "main") != 0 && strcmp(rev, "v1") != 0 && strcmp(rev, r->commit) != 0) {
        say_error(a, 404, "RevisionNotFound", "Invalid rev id");
        return false;
    }
    return true;
}

/* --- /api/models ---------------------------------------------------------------------------------- */

typedef struct {
    char *at, *end;
} writer;

static void put(writer *w, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void put(writer *w, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(w->at, (size_t)(w->end - w->at), fmt, args);
    va_end(args);
    if (n > 0 && n < w->end - w->at) w->at += n;
}

static void put_entry(writer *w, const entry *e, bool is_first)
{
    put(w, "%s{\"type\":\"file\",\"oid\":\"%.40s\",\"size\":%llu,", is_first ? "" : ",", e->oid,
        (unsigned long long)e->bytes);
    if (e->is_large) {
        put(w, "\"lfs\":{\"oid\":\"%s\",\"size\":%llu,\"pointerSize\":134},\"xetHash\":\"%s\",", e->oid,
            (unsigned long long)e->bytes, e->oid);
    }
    put(w, "\"path\":\"%s\"}", e->path);
}

static unsigned long query_number(const request *q, const char *key, unsigned long otherwise)
{
    const char *at = strstr(q->query, key);
    return at ? strtoul(at + strlen(key), NULL, 10) : otherwise;
}

/* Without recursive=true a folder is an entry of its own, and what is in it is not told. */
static bool put_folder(writer *w, const repo *r, size_t i, bool is_first)
{
    const char *slash = strchr(r->entry[i].path, '/');
    const size_t n = slash ? (size_t)(slash - r->entry[i].path) : 0;

    for (size_t k = 0; k < i; k++) {
        if (strncmp(r->entry[k].path, r->entry[i].path, n + 1) == 0) return false;
    }
    put(w, "%s{\"type\":\"directory\",\"oid\":\"%.40s\",\"size\":0,\"path\":\"%.*s\"}", is_first ? "" : ",",
        r->entry[i].oid, (int)n, r->entry[i].path);
    return true;
}

static void say_tree(const request *q, const repo *r, const char *rev, answer *a)
{
    const bool is_recursive = strstr(q->query, "recursive=true") || strstr(q->query, "recursive=1");
    const unsigned long limit = query_number(q, "limit=", hub.page), first = query_number(q, "cursor=", 0);
    const size_t size = 1024 * (size_t)(MAX_FILES + 1);
    const unsigned long page = limit && limit < hub.page ? limit : hub.page;
    writer w;
    size_t i, n = 0;

    answer_text(a, 200, "%*s", (int)size, "");
    w = (writer){a->text, a->text + size};
    put(&w, "[");
    for (i = first; i < r->n && n < page; i++) {
        const bool is_folded = !is_recursive && strchr(r->entry[i].path, '/');
        if (is_folded) {
            n += put_folder(&w, r, i, n == 0);
        } else {
            put_entry(&w, &r->entry[i], n++ == 0);
        }
    }
    put(&w, "]");
    a->bytes = (uint64_t)(w.at - a->text);
    if (i < r->n) {
        answer_header(a, "Link: <http://%s/api/models/%s/tree/%s?%scursor=%zu>; rel=\"next\"", q->host, r->id,
                      rev, is_recursive ? "recursive=true&" : "", i);
    }
    answer_header(a, "Content-Type: application/json; charset=utf-8");
}

static void say_revision(const repo *r, answer *a)
{
    const size_t size = 1024 * (size_t)(MAX_FILES + 1);
    writer w;

    answer_text(a, 200, "%*s", (int)size, "");
    w = (writer){a->text, a->text + size};
    put(&w,
        "{\"_id\":\"0\",\"id\":\"%s\",\"modelId\":\"%s\",\"private\":%s,\"gated\":false,\"disabled\":false,"
        "\"sha\":\"%s\",\"siblings\":[",
        r->id, r->id, r->token[0] ? "true" : "false", r->commit);
    for (size_t i = 0; i < r->n; i++) put(&w, "%s{\"rfilename\":\"%s\"}", i ? "," : "", r->entry[i].path);
    put(&w, "]}");
    a->bytes = (uint64_t)(w.at - a->text);
    answer_header(a, "Content-Type: application/json; charset=utf-8");
}

static void say_api(const request *q, answer *a)
{
    char owner[128], name[128], what[32] = "", rev[128] = "main";
    const int n = sscanf(q->path, "/api/models/%127[^/]/%127[^/]/%31[^/]/%127[^/]", owner, name, what, rev);
    repo *r = malloc(sizeof *r);

    if (n < 2 || !r) {
        say_error(a, 404, NULL, "Not found");
    } else if (repo_find(r, q, owner, name, rev, a)) {
        if (strcmp(what, "tree") == 0) say_tree(q, r, rev, a);
        else if (n == 2 || strcmp(what, "revision") == 0) say_revision(r, a);
        else say_error(a, 404, NULL, "Not found");
    }
    free(r);
}

/* --- /resolve/ and the CDN -------------------------------------------------------------------------- */

/* What the CDN was told to serve: addresses are only given out, never guessed. */
static struct {
    pthread_mutex_t lock;
    char oid[MAX_FILES][OID_BYTES], file[MAX_FILES][FILE_BYTES];
    size_t n;
} stored = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void store(const char *oid, const char *file)
{
    size_t i = 0;
    pthread_mutex_lock(&stored.lock);
    while (i < stored.n && strcmp(stored.oid[i], oid) != 0) i++;
    if (i < MAX_FILES) {
        snprintf(stored.oid[i], OID_BYTES, "%s", oid);
        snprintf(stored.file[i], sizeof stored.file[i], "%s", file);
        if (i == stored.n) stored.n++;
    }
    pthread_mutex_unlock(&stored.lock);
}

static bool stored_find(const char *oid, char *file)
{
    bool is_there = false;
    pthread_mutex_lock(&stored.lock);
    for (size_t i = 0; i < stored.n && !is_there; i++) {
        if ((is_there = strcmp(stored.oid[i], oid) == 0)) snprintf(file, FILE_BYTES, "%s", stored.file[i]);
    }
    pthread_mutex_unlock(&stored.lock);
    return is_there;
}

static unsigned long long wall_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (unsigned long long)t.tv_sec * 1000 + (unsigned long long)t.tv_nsec / 1000000;
}

/* FNV-1a: nobody here wants to forge one. */
static unsigned long long sign(const char *oid, unsigned long long expires)
{
    char text[OID_BYTES + 32];
    unsigned long long h = 14695981039346656037u;
    snprintf(text, sizeof text, "%s %llu", oid, expires);
    for (const char *c = text; *c; c++) h = (h ^ (unsigned char)*c) * 1099511628211u;
    return h;
}

/* A large file: where it lies. A small one: by a relative redirect to where it is cached, and from there
 * itself. */
static void say_file(const repo *r, const entry *e, bool is_cached, answer *a)
{
    char file[FILE_BYTES];

    snprintf(file, sizeof file, "%s/%s", r->folder, e->file);
    if (e->is_large) {
        const unsigned long long expires = wall_ms() + hub.expires_ms;
        store(e->oid, file);
        answer_text(a, 302, "Found. Redirecting");
        answer_header(a, "Location: http://%s/xet-bridge/%s?Expires=%llu&Signature=%016llx", hub.cdn, e->oid,
                      expires, sign(e->oid, expires));
        answer_header(a, "X-Linked-Size: %llu", (unsigned long long)e->bytes);
        answer_header(a, "X-Linked-ETag: \"%s\"", e->oid);
    } else if (!is_cached) {
        answer_text(a, 307, "Temporary Redirect");
        answer_header(a, "Location: /api/resolve-cache/models/%s/%s/%s", r->id, r->commit, e->path);
    } else {
        answer_file(a, file);
    }
    snprintf(a->etag, sizeof a->etag, "\"%s\"", e->oid);
    answer_header(a, "X-Repo-Commit: %s", r->commit);
}

static void say_resolve(const request *q, answer *a)
{
    char owner[128], name[128], rev[128], path[512];
    const bool is_cached = strncmp(q->path, "/api/", 5) == 0;
    const int n = sscanf(q->path,
                         is_cached ? "/api/resolve-cache/models/%127[^/]/%127[^/]/%127[^/]/%511[^\n]"
                                   : "/%127[^/]/%127[^/]/resolve/%127[^/]/%511[^\n]",
                         owner, name, rev, path);
    repo *r = malloc(sizeof *r);
    const entry *e = NULL;

    if (n < 4 || !r) {
        say_error(a, 404, "EntryNotFound", "Entry not found");
    } else if (repo_find(r, q, owner, name, rev, a)) {
        for (size_t i = 0; i < r->n; i++) {
            if (strcmp(r->entry[i].path, path) == 0) e = &r->entry[i];
        }
        if (e) say_file(r, e, is_cached, a);
        else say_error(a, 404, "EntryNotFound", "Entry not found");
    }
    free(r);
}

/* Like a store with signed addresses: right and not expired, and no other credential beside the signature.
 * Its own ETag is no hash of anything. */
static void say_stored(const request *q, answer *a)
{
    char oid[OID_BYTES] = "", file[FILE_BYTES];
    unsigned long long expires = 0, signature = 0;

    if (sscanf(q->path, "/xet-bridge/%64s", oid) != 1 || !stored_find(oid, file) ||
        sscanf(q->query, "Expires=%llu&Signature=%llx", &expires, &signature) != 2 ||
        signature != sign(oid, expires)) {
        answer_text(a, 403, "<Error><Code>AccessDenied</Code></Error>");
    } else if (q->authorization[0]) {
        answer_text(
            a, 400,
            "<Error><Code>InvalidArgument</Code><Message>Only one auth mechanism allowed</Message></Error>");
    } else if (wall_ms() >= expires) {
        answer_text(a, 403, "<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>");
    } else {
        answer_file(a, file);
        snprintf(a->etag, sizeof a->etag, "\"%.32s\"", "0123456789abcdef0123456789abcdef");
    }
}

bool hub_answer(const request *q, answer *a)
{
    if (!hub.root) return false;
    if (strcmp(q->listener, "cdn") == 0) {
        if (strncmp(q->path, "/xet-bridge/", 12) != 0) return false;
        say_stored(q, a);
    } else if (strncmp(q->path, "/api/models/", 12) == 0) {
        say_api(q, a);
    } else if (strstr(q->path, "/resolve/") || strncmp(q->path, "/api/resolve-cache/", 19) == 0) {
        say_resolve(q, a);
    } else if (strstr(q->path, "/blob/")) {
        answer_text(a, 200, "<!doctype html><title>A page about a file, not the file</title>");
        answer_header(a, "Content-Type: text/html; charset=utf-8");
    } else {
        return false;
    }
    return true;
}
