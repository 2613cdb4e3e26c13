/* The completions file while a run writes it.
 *
 * Every line goes out with one write(2) to a file opened with O_APPEND and locked, so nobody else's bytes
 * come in between; when a write fails half way (disk full, a size limit), what it left is cut off again. Thus
 * the file always consists of whole lines, whatever stops the run, but for the machine itself going down:
 * that is what resume_cut is for.
 *
 * An error line that is tried again (retry_errors) stays where it is, and a later line with the same id takes
 * its place: readers keep the last. A line that fails again in the same way is not written again. */
#include "src/run/output.h"
#include "src/base/clock.h"
#include "src/base/file.h"
#include "src/base/log.h"
#include "src/run/manifest.h"
#include "src/run/record.h"
#include "src/run/resume.h"
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

typedef enum { TO_DO, DONE_OK, DONE_FAILED } request_state;

struct output {
    int fd;
    bool is_file;    /* a regular file: locked, resumable, can be cut */
    bool created;    /* by us, just now */
    uint64_t length; /* bytes of whole lines */
    char *path, *model_name, run_id[RUN_ID_BYTES];
    bool fsync_each, dirty;
    uint64_t synced_ns;
    const prompts *p;
    record_facts facts;
    size_t n, n_ok, n_failed;
    uint8_t *state;      /* [n] request_state */
    uint8_t *past_error; /* [n] request_code of the error line that is tried again, or REQ_OK */
    char **waiting;      /* [n] with `ordered`: lines whose predecessors are missing; else NULL */
    size_t next;         /* the first index that may still come, with `ordered` */
};

/* --- opening --------------------------------------------------------------------------------- */

static char *with_suffix(const char *path, const char *suffix)
{
    size_t n = strlen(path);
    char *s = malloc(n + strlen(suffix) + 1);

    if (s) {
        memcpy(s, path, n);
        strcpy(s + n, suffix);
    }
    return s;
}

/* Would writing to this file write to the input? */
static bool is_input(const struct stat *a, const char *input_path)
{
    struct stat b;
    int failed = strcmp(input_path, "-") ? stat(input_path, &b) : fstat(STDIN_FILENO, &b);

    return !failed && S_ISREG(a->st_mode) && a->st_dev == b.st_dev && a->st_ino == b.st_ino;
}

static int refuse_input(const struct stat *st, const char *path, const output_options *o, pr_err *err)
{
    if (!is_input(st, o->input_path)) return PR_OK;
    return pr_fail(err, PR_EUSAGE, "%s is the input (%s) itself; name another output with -o", path,
                   o->input_path);
}

static int lock(output *out, pr_err *err)
{
    if (!flock(out->fd, LOCK_EX | LOCK_NB)) return PR_OK;
    if (errno == EWOULDBLOCK)
        return pr_fail(err, PR_EUSAGE,
                       "%s: another prima run is writing to it; wait for that or name another output",
                       out->path);
    log_warn("%s: this file system has no locks (%s); see that no other run writes to it", out->path,
             strerror(errno));
    return PR_OK;
}

static int open_file(output *out, const output_options *o, const char *manifest_path, pr_err *err)
{
    struct stat st;
    bool existed = stat(o->path, &st) == 0;
    int rc = PR_OK;

    if (existed) rc = refuse_input(&st, o->path, o, err);
    /* An empty one is a run that ended before its first line: nothing would be lost. */
    if (!rc && existed && S_ISREG(st.st_mode) && st.st_size > 0 && !o->resume)
        rc = pr_fail(err, PR_EUSAGE, "%s exists; --resume continues it, or name another output with -o",
                     o->path);
    out->is_file = !existed || S_ISREG(st.st_mode);
    if (!rc && !stat(manifest_path, &st)) rc = refuse_input(&st, manifest_path, o, err);
    if (rc) return rc;
    out->fd = open(o->path, (out->is_file ? O_RDWR | O_CREAT : O_WRONLY) | O_APPEND | O_CLOEXEC, 0666);
    if (out->fd < 0) return pr_fail_errno(err, PR_ERESOURCE, "%s", o->path);
    if (!out->is_file) return PR_OK;
    if ((rc = lock(out, err))) return rc;
    if (fstat(out->fd, &st)) return pr_fail_errno(err, PR_ERESOURCE, "%s", o->path);
    if (st.st_size > 0 && !o->resume)
        return pr_fail(err, PR_EUSAGE, "%s: another prima run has just written to it; name another output",
                       o->path);
    out->length = (uint64_t)st.st_size;
    out->created = !existed;
    return PR_OK;
}

static void set_state(output *out, size_t index, request_state state)
{
    out->n_ok -= out->state[index] == DONE_OK;
    out->n_failed -= out->state[index] == DONE_FAILED;
    out->state[index] = (uint8_t)state;
    out->n_ok += state == DONE_OK;
    out->n_failed += state == DONE_FAILED;
}

/* A line that is there already. */
typedef struct {
    output *out;
    const output_options *o;
} taking_over;

static int take_over(void *arg, const resume_line *l, pr_err *err)
{
    const taking_over *t = arg;
    char expected[65];
    size_t index;
    bool same;

    if (!prompts_find(t->out->p, l->id, &index)) {
        if (t->o->force_resume) return PR_OK;
        return pr_fail(err, PR_EMISMATCH,
                       "%s: line %zu answers \"%.64s\", which %s does not have; --force-resume ignores it",
                       t->o->path, l->line, l->id, t->o->input_path);
    }
    prompts_line_sha256(t->out->p, index, expected);
    same = strcmp(expected, l->input_sha256) == 0;
    if (!same && !t->o->force_resume)
        return pr_fail(err, PR_EMISMATCH,
                       "%s: line %zu answers another text of \"%.64s\" than %s has now; --force-resume keeps "
                       "that answer",
                       t->o->path, l->line, l->id, t->o->input_path);
    set_state(t->out, index, l->error ? DONE_FAILED : DONE_OK);
    t->out->past_error[index] = same ? (uint8_t)l->error : REQ_OK;
    return PR_OK;
}

/* Go on with what is there. Nothing is changed before all of it has been found to belong to this run. */
static int resume(output *out, const output_options *o, const char *manifest_path, pr_err *err)
{
    taking_over t = {out, o};
    int rc = resume_read(out->fd, o->path, o->force_resume, take_over, &t, &out->length, err);

    if (!rc) rc = manifest_resume(manifest_path, out->run_id, o, out->p, err);
    if (!rc) rc = resume_cut(out->fd, o->path, out->length, err);
    if (rc) return rc;
    for (size_t i = 0; i < out->n && o->retry_errors; i++)
        if (out->state[i] == DONE_FAILED) set_state(out, i, TO_DO);
    return PR_OK;
}

static int open_path(output *out, const output_options *o, pr_err *err)
{
    char *manifest_path = with_suffix(o->path, ".manifest.json");
    bool fresh;
    int rc;

    if (!manifest_path) return pr_fail(err, PR_ERESOURCE, "%s: out of memory", o->path);
    rc = open_file(out, o, manifest_path, err);
    /* An empty file without a manifest is a run that was stopped before it began; without --resume whatever
     * manifest is beside an empty file is another run's. */
    fresh = out->created || (out->length == 0 && (!o->resume || access(manifest_path, F_OK)));
    if (!rc && out->is_file && !fresh) {
        rc = resume(out, o, manifest_path, err);
    } else if (!rc) {
        rc = manifest_run_id(out->run_id, o, out->p, err);
        if (!rc && out->is_file) rc = manifest_start(manifest_path, out->run_id, o, out->p, err);
    }
    free(manifest_path);
    return rc;
}

static int open_stdout(output *out, const output_options *o, pr_err *err)
{
    struct stat st;
    int rc = PR_OK;

    out->fd = STDOUT_FILENO;
    if (o->resume) return pr_fail(err, PR_EUSAGE, "--resume needs an output file; name it with -o");
    if (!fstat(out->fd, &st)) rc = refuse_input(&st, "standard output", o, err);
    return rc ? rc : manifest_run_id(out->run_id, o, out->p, err);
}

static bool allocate(output *out, const output_options *o)
{
    out->path = strdup(o->path);
    out->model_name = strdup(o->model_name);
    out->state = calloc(out->n + 1, sizeof *out->state);
    out->past_error = calloc(out->n + 1, sizeof *out->past_error);
    if (o->ordered) out->waiting = calloc(out->n + 1, sizeof *out->waiting);
    return out->path && out->model_name && out->state && out->past_error && (!o->ordered || out->waiting);
}

static void output_free(output *out)
{
    for (size_t i = 0; out->waiting && i < out->n; i++) free(out->waiting[i]);
    free(out->waiting);
    free(out->past_error);
    free(out->state);
    free(out->model_name);
    free(out->path);
    free(out);
}

int output_open(output **result, const output_options *o, const prompts *p, pr_err *err)
{
    output *out = calloc(1, sizeof *out);
    int rc;

    if (!out) return pr_fail(err, PR_ERESOURCE, "%s: out of memory", o->path);
    out->fd = -1;
    out->p = p;
    out->n = prompts_count(p);
    out->fsync_each = o->fsync_each;
    out->synced_ns = clock_ns();
    /* A file size limit is then an error of write(2) and not the end of the process. */
    signal(SIGXFSZ, SIG_IGN);
    if (!allocate(out, o)) rc = pr_fail(err, PR_ERESOURCE, "%s: out of memory", o->path);
    else rc = strcmp(o->path, "-") ? open_path(out, o, err) : open_stdout(out, o, err);
    if (rc) {
        if (out->created) unlink(o->path);
        if (out->fd >= 0 && out->fd != STDOUT_FILENO) close(out->fd);
        output_free(out);
        return rc;
    }
    out->facts = (record_facts){out->run_id, out->model_name, o->created_s, o->vocab};
    *result = out;
    return PR_OK;
}

/* --- writing --------------------------------------------------------------------------------- */

static int sync_now(output *out, pr_err *err)
{
    int failed = file_sync(out->fd);

    out->synced_ns = clock_ns();
    /* A pipe or a terminal has nothing to sync and says EINVAL. */
    if (failed && (out->is_file || (errno != EINVAL && errno != ENOTSUP && errno != EROFS)))
        return pr_fail_errno(err, PR_ERESOURCE, "%s: writing to the disk", out->path);
    out->dirty = false;
    return PR_OK;
}

static int write_line(output *out, const char *line, pr_err *err)
{
    size_t n = strlen(line);
    pr_err why = {0};
    int rc = file_write_all(out->fd, line, n, out->path, &why);

    if (rc && out->is_file && ftruncate(out->fd, (off_t)out->length))
        return pr_fail_errno(err, rc, "%s; cutting off what was written of the line failed too", why.msg);
    if (rc && out->is_file)
        return pr_fail(err, rc, "%s (all lines so far are whole; make room and go on with --resume)",
                       why.msg);
    if (rc) return pr_fail(err, rc, "%s", why.msg);
    out->length += n;
    out->dirty = true;
    return PR_OK;
}

/* Write the lines that wait for nobody any more, or all. */
static int write_waiting(output *out, bool all, pr_err *err)
{
    for (; out->next < out->n; out->next++) {
        char **line = &out->waiting[out->next];
        int rc = *line ? write_line(out, *line, err) : PR_OK;
        if (rc) return rc;
        if (!*line && !all && out->state[out->next] == TO_DO) return PR_OK;
        free(*line);
        *line = NULL;
    }
    return PR_OK;
}

/* Takes over line; NULL: there is nothing to write. */
static int finish(output *out, size_t index, request_state state, char *line, pr_err *err)
{
    int rc;

    if (out->waiting && index >= out->next) {
        out->waiting[index] = line;
        set_state(out, index, state);
        rc = write_waiting(out, false, err);
    } else {
        rc = line ? write_line(out, line, err) : PR_OK;
        free(line);
        if (!rc) set_state(out, index, state);
    }
    return !rc && out->fsync_each && out->dirty ? sync_now(out, err) : rc;
}

static int no_memory(const output *out, const request *r, pr_err *err)
{
    return pr_fail(err, PR_ERESOURCE, "%s: out of memory for the answer to line %zu", out->path, r->line);
}

int output_completion(output *out, const request *r, const completion *c, const request_times *t, pr_err *err)
{
    char *line = record_completion(&out->facts, r, c, t);

    return line ? finish(out, r->index, DONE_OK, line, err) : no_memory(out, r, err);
}

int output_error(output *out, const request *r, pr_err *err)
{
    request_code past = (request_code)out->past_error[r->index];
    bool as_before = past != REQ_OK && past == r->error.code;
    char *line = as_before ? NULL : record_error(&out->facts, r);

    return line || as_before ? finish(out, r->index, DONE_FAILED, line, err) : no_memory(out, r, err);
}

int output_tick(output *out, pr_err *err)
{
    if (!out->dirty || clock_ns() - out->synced_ns < 1000000000u) return PR_OK;
    return sync_now(out, err);
}

int output_close(output *out, pr_err *err)
{
    int rc = PR_OK;

    if (!out) return PR_OK;
    if (out->waiting) rc = write_waiting(out, true, err);
    if (out->dirty) {
        int failed = sync_now(out, rc ? NULL : err);
        if (!rc) rc = failed;
    }
    if (out->fd != STDOUT_FILENO && close(out->fd) && !rc)
        rc = pr_fail_errno(err, PR_ERESOURCE, "%s: closing", out->path);
    output_free(out);
    return rc;
}

/* --- asking ---------------------------------------------------------------------------------- */

const char *output_run_id(const output *out)
{
    return out->run_id;
}
bool output_done(const output *out, size_t index)
{
    return out->state[index] != TO_DO;
}
size_t output_count_ok(const output *out)
{
    return out->n_ok;
}
size_t output_count_failed(const output *out)
{
    return out->n_failed;
}
