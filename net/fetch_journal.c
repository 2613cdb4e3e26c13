/* PATH.part.json: what of PATH.part is done, and of which version of the resource.
 *
 *   {"schema":"prima/part/1","url":...,"etag":...,"size":N,"commit":...,"done":[[first,end],...]}
 *
 * It never claims a byte that a crash could lose: the data is synced first, then the journal is replaced as a
 * whole. A disk may take long to sync and the network does not wait, so a thread does both. A journal that is
 * torn, of another version or not plausible is no journal: the download starts over. */
#include "net/fetch_impl.h"
#include "src/base/file.h"
#include "src/base/json.h"
#include "src/base/thread.h"
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char SCHEMA[] = "prima/part/1";
enum { JOURNAL_MOST_BYTES = 16 << 20 };

void journal_clear(journal *j)
{
    free(j->url);
    free(j->etag);
    free(j->commit);
    set_clear(&j->done);
    *j = (journal){0};
}

static int text_field(char **out, const json_t *v, const char *name, pr_err *err)
{
    const char *s = json_string_value(json_object_get(v, name));

    if (!s) return pr_fail(err, PR_EINTEGRITY, "\"%s\" is missing or no text", name);
    if (!(*out = strdup(s))) return pr_fail(err, PR_ERESOURCE, "out of memory");
    return PR_OK;
}

static int done_field(journal *j, const json_t *v, pr_err *err)
{
    const json_t *list = json_object_get(v, "done");
    uint64_t before = 0;

    if (!json_is_array(list)) return pr_fail(err, PR_EINTEGRITY, "\"done\" is missing or no list");
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *pair = json_array_get(list, i), *a = json_array_get(pair, 0),
                     *b = json_array_get(pair, 1);
        if (json_array_size(pair) != 2 || !json_is_integer(a) || !json_is_integer(b))
            return pr_fail(err, PR_EINTEGRITY, "\"done\" %zu is no pair of numbers", i);
        json_int_t first = json_integer_value(a), end = json_integer_value(b);
        if (first < 0 || end <= first || (uint64_t)end > j->size || (i && (uint64_t)first <= before))
            return pr_fail(err, PR_EINTEGRITY, "\"done\" %zu is not behind the one before or not in the file",
                           i);
        before = (uint64_t)end;
        if (!set_add(&j->done, (uint64_t)first, (uint64_t)end))
            return pr_fail(err, PR_ERESOURCE, "out of memory");
    }
    return PR_OK;
}

static int fields(journal *j, const json_t *v, pr_err *err)
{
    const json_t *schema = json_object_get(v, "schema"), *size = json_object_get(v, "size");
    int rc;

    if (!json_is_string(schema) || strcmp(json_string_value(schema), SCHEMA) != 0)
        return pr_fail(err, PR_EINTEGRITY, "\"schema\" is not \"%s\"", SCHEMA);
    if (!json_is_integer(size) || json_integer_value(size) < 0)
        return pr_fail(err, PR_EINTEGRITY, "\"size\" is missing or no number of bytes");
    j->size = (uint64_t)json_integer_value(size);
    if ((rc = text_field(&j->url, v, "url", err)) || (rc = text_field(&j->etag, v, "etag", err)) ||
        (rc = text_field(&j->commit, v, "commit", err)))
        return rc;
    return done_field(j, v, err);
}

int journal_parse(journal *out, const char *text, size_t n, pr_err *err)
{
    json_t *v = json_parse(text, n, err);
    int rc = PR_EINTEGRITY;

    *out = (journal){0};
    if (v) rc = fields(out, v, err);
    json_decref(v);
    if (rc) journal_clear(out);
    return rc;
}

int journal_read(journal *out, const char *path, pr_err *err)
{
    char *text = NULL;
    size_t n = 0;
    int rc;

    *out = (journal){0};
    if ((rc = file_slurp(&text, &n, path, JOURNAL_MOST_BYTES, err))) return rc;
    rc = journal_parse(out, text, n, err);
    free(text);
    return rc;
}

char *journal_text(const char *url_key, const char *etag, const char *commit, uint64_t size,
                   const range_set *done)
{
    json_t *list = json_array(), *v;
    char *line = NULL, *text = NULL;

    for (size_t i = 0; list && i < done->n; i++)
        if (json_array_append_new(
                list, json_pack("[II]", (json_int_t)done->r[i].first, (json_int_t)done->r[i].end))) {
            json_decref(list);
            list = NULL;
        }
    if (!list) return NULL;
    v = json_pack("{ss ss ss sI ss so}", "schema", SCHEMA, "url", url_key, "etag", etag, "size",
                  (json_int_t)size, "commit", commit, "done", list);
    if (v) line = json_line(v);
    json_decref(v);
    if (line && asprintf(&text, "%s\n", line) < 0) text = NULL;
    free(line);
    return text;
}

/* --- the thread that saves -------------------------------------------------------------------------- */
struct journal_writer {
    pthread_t thread;
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    int fd;
    const char *part_path, *path;
    char *text; /* to be saved, or being saved */
    bool quit, lost, full;
    int rc;
    pr_err err;
};

/* The data that the text speaks of was written before the text was handed over. */
static int save(const journal_writer *w, bool *lost, bool *full, pr_err *err)
{
    int rc;

    if (file_sync(w->fd)) {
        *lost = true;
        return pr_fail_errno(err, PR_ERESOURCE, "%s: fdatasync", w->part_path);
    }
    errno = 0;
    rc = file_write_atomic(w->path, w->text, strlen(w->text), err);
    *full = rc && errno == ENOSPC;
    return rc;
}

static void *writer_main(void *arg)
{
    journal_writer *w = arg;

    pthread_mutex_lock(&w->mutex);
    for (;;) {
        pr_err err;
        bool lost = false, full = false;
        int rc;
        while (!w->text && !w->quit) pthread_cond_wait(&w->changed, &w->mutex);
        if (!w->text) break;
        pthread_mutex_unlock(&w->mutex);
        rc = save(w, &lost, &full, &err);
        pthread_mutex_lock(&w->mutex);
        w->lost |= lost;
        w->full |= full;
        if (rc && !w->rc) {
            w->rc = rc;
            w->err = err;
        }
        free(w->text);
        w->text = NULL;
        pthread_cond_broadcast(&w->changed);
    }
    pthread_mutex_unlock(&w->mutex);
    return NULL;
}

int journal_writer_new(journal_writer **out, int fd, const char *part_path, const char *path, pr_err *err)
{
    journal_writer *w = calloc(1, sizeof *w);
    int failed;

    if (!w) return pr_fail(err, PR_ERESOURCE, "%s: out of memory", path);
    w->fd = fd;
    w->part_path = part_path;
    w->path = path;
    pthread_mutex_init(&w->mutex, NULL);
    pthread_cond_init(&w->changed, NULL);
    if ((failed = thread_start(&w->thread, writer_main, w))) {
        pthread_mutex_destroy(&w->mutex);
        pthread_cond_destroy(&w->changed);
        free(w);
        return pr_fail(err, PR_ERESOURCE, "%s: starting a thread: %s", path, strerror(failed));
    }
    *out = w;
    return PR_OK;
}

bool journal_writer_busy(journal_writer *w)
{
    bool busy;

    pthread_mutex_lock(&w->mutex);
    busy = w->text != NULL;
    pthread_mutex_unlock(&w->mutex);
    return busy;
}

void journal_writer_save(journal_writer *w, char *text)
{
    pthread_mutex_lock(&w->mutex);
    if (w->text) free(text); /* the caller asks first; the next one tells more anyway */
    else w->text = text;
    pthread_cond_broadcast(&w->changed);
    pthread_mutex_unlock(&w->mutex);
}

void journal_writer_wait(journal_writer *w)
{
    pthread_mutex_lock(&w->mutex);
    while (w->text) pthread_cond_wait(&w->changed, &w->mutex);
    pthread_mutex_unlock(&w->mutex);
}

int journal_writer_check(journal_writer *w, bool *lost, pr_err *err)
{
    int rc;

    pthread_mutex_lock(&w->mutex);
    rc = w->rc;
    *lost = w->lost;
    if (rc && err) *err = w->err;
    pthread_mutex_unlock(&w->mutex);
    return rc;
}

void journal_writer_free(journal_writer *w, bool *lost, bool *full)
{
    pthread_mutex_lock(&w->mutex);
    w->quit = true;
    pthread_cond_broadcast(&w->changed);
    pthread_mutex_unlock(&w->mutex);
    pthread_join(w->thread, NULL);
    *lost |= w->lost;
    *full = w->full;
    pthread_mutex_destroy(&w->mutex);
    pthread_cond_destroy(&w->changed);
    free(w->text);
    free(w);
}
