/* What an interrupted run left: whole lines, and perhaps one that was being written when the machine stopped.
 * Such a line has no end; after a power failure its place may also be filled with zeros. Only the last line
 * is ever excused. */
#include "src/run/resume.h"
#include "src/base/file.h"
#include "src/run/lines.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define LINE_MAX_BYTES ((size_t)1 << 32) /* with 20 alternatives a token takes some 2 KiB */

static request_code code_of(const json_t *error)
{
    const char *name = json_string_value(json_object_get(error, "code"));

    for (int c = REQ_OK + 1; c <= REQ_INTERNAL; c++)
        if (name && !strcmp(name, request_code_name((request_code)c))) return (request_code)c;
    return REQ_INTERNAL;
}

/* Both shapes; false when it is neither. The strings belong to v. */
static bool read_line(resume_line *l, const json_t *v)
{
    const json_t *error = json_object_get(v, "error"), *prima = json_object_get(v, "prima");
    bool openai = json_object_get(v, "custom_id") != NULL;

    l->id = json_string_value(json_object_get(v, openai ? "custom_id" : "id"));
    l->input_sha256 = json_string_value(json_object_get(openai ? prima : v, "input_sha256"));
    l->error = json_is_null(error) ? REQ_OK : code_of(error);
    return error && l->id && l->input_sha256;
}

int resume_read(int fd, const char *path, bool force, resume_fn fn, void *arg, uint64_t *length, pr_err *err)
{
    lines in;
    const char *text;
    size_t n, strange = 0; /* number of the line before, when it was not one of ours */
    int rc;

    *length = 0;
    lines_start(&in, fd, path, LINE_MAX_BYTES);
    while (!(rc = lines_next(&in, &text, &n, err)) && text) {
        resume_line l = {.line = in.number};
        json_t *v;
        if (strange && !force) {
            rc = pr_fail(err, PR_EMISMATCH,
                         "%s: line %zu is not a completion line of prima; --force-resume skips such", path,
                         strange);
            break;
        }
        v = in.ended ? json_parse(text, n, NULL) : NULL;
        strange = v && read_line(&l, v) ? 0 : in.number;
        if (!strange) {
            rc = fn(arg, &l, err);
            *length = in.offset + n + 1;
        }
        json_decref(v);
        if (rc) break;
    }
    lines_end(&in);
    return rc;
}

int resume_cut(int fd, const char *path, uint64_t length, pr_err *err)
{
    struct stat st;
    char *torn_path = NULL, *torn = NULL;
    size_t n = 0;
    int rc = PR_OK;

    if (fstat(fd, &st)) return pr_fail_errno(err, PR_ERESOURCE, "%s", path);
    if ((uint64_t)st.st_size <= length) return PR_OK;
    n = (size_t)((uint64_t)st.st_size - length);
    torn = malloc(n);
    torn_path = malloc(strlen(path) + sizeof ".torn");
    if (!torn || !torn_path) {
        rc = pr_fail(err, PR_ERESOURCE, "%s: out of memory for a torn line of %zu bytes", path, n);
        goto done;
    }
    sprintf(torn_path, "%s.torn", path);
    if ((rc = lines_pread(fd, torn, n, length, path, err))) goto done;
    if ((rc = file_write_atomic(torn_path, torn, n, err))) goto done;
    if (ftruncate(fd, (off_t)length) || file_sync_all(fd))
        rc = pr_fail_errno(err, PR_ERESOURCE, "%s: cutting off a torn last line", path);
done:
    free(torn);
    free(torn_path);
    return rc;
}
