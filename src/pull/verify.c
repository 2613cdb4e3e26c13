/* Whether files are what they should be; see verify.h. */
#include "src/pull/verify.h"
#include "src/base/file.h"
#include "src/base/log.h"
#include "src/model/gguf.h"
#include "src/pull/source_name.h"
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { READ_BYTES = 1 << 20, SIDECAR_BYTES = 1 << 16 };

static const char *base_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

/* --- SHA-256 ------------------------------------------------------------------------------------------- */
/* Of all that fd has; the kernel reads ahead while we compute, so this goes at the speed of the slower of the
 * two. */
static int hash_fd(int fd, hash_pieces *h, uint8_t *buf, const char *path, meter *m, const volatile int *stop,
                   pr_err *err)
{
    uint64_t done = 0;

#ifdef POSIX_FADV_SEQUENTIAL
    posix_fadvise(fd, 0, 0, POSIX_FADV_SEQUENTIAL);
#endif
    for (;;) {
        ssize_t got = read(fd, buf, READ_BYTES);

        if (stop && *stop) return pr_fail(err, PR_EINTERRUPTED, "interrupted while checking %s", path);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return pr_fail_errno(err, PR_ERESOURCE, "%s: reading", path);
        if (got == 0) return PR_OK;
        hash_add(h, buf, (size_t)got);
        done += (uint64_t)got;
        if (m) meter_note(m, done);
    }
}

int verify_hash(const char *path, char hex[HASH_HEX_BYTES], meter *m, const volatile int *stop, pr_err *err)
{
    uint8_t *buf = malloc(READ_BYTES);
    int fd, rc;

    if (!buf) return pr_fail(err, PR_ERESOURCE, "%s: out of memory", path);
    if ((fd = open(path, O_RDONLY | O_CLOEXEC)) < 0) {
        rc = pr_fail_errno(err, PR_ERESOURCE, "%s", path);
    } else {
        hash_pieces *h = hash_begin();
        rc = hash_fd(fd, h, buf, path, m, stop, err);
        hash_end(h, hex);
        close(fd);
    }
    free(buf);
    return rc;
}

/* --- NAME.sha256 --------------------------------------------------------------------------------------- */
static int sidecar_path(char out[PATH_MAX], const char *path, pr_err *err)
{
    if (snprintf(out, PATH_MAX, "%s.sha256", path) < PATH_MAX) return PR_OK;
    return pr_fail(err, PR_ERESOURCE, "%.200s: path too long", path);
}

/* "HEX  NAME" or "HEX *NAME" about this name (with any folder), or HEX alone. */
static bool read_line(const char *line, size_t n, const char *name, char hex[HASH_HEX_BYTES])
{
    size_t digits = strspn(line, "0123456789abcdefABCDEF"), at;

    if (digits != HASH_HEX_BYTES - 1 || n < digits) return false;
    if (n > digits) {
        if (n < digits + 3 || line[digits] != ' ' || !strchr(" *", line[digits + 1])) return false;
        for (at = n; at > digits + 2 && line[at - 1] != '/';) at--;
        if (n - at != strlen(name) || memcmp(line + at, name, n - at) != 0) return false;
    }
    for (size_t i = 0; i < digits; i++)
        hex[i] = (char)(line[i] >= 'A' && line[i] <= 'F' ? line[i] + 'a' - 'A' : line[i]);
    hex[digits] = 0;
    return true;
}

int verify_sidecar_read(const char *path, char hex[HASH_HEX_BYTES], pr_err *err)
{
    char name[PATH_MAX], *text = NULL;
    size_t n;
    int rc = sidecar_path(name, path, err);

    *hex = 0;
    if (rc || (access(name, F_OK) && errno == ENOENT)) return rc;
    if ((rc = file_slurp(&text, &n, name, SIDECAR_BYTES, err))) return rc;
    for (const char *p = text; *p && !*hex;) {
        size_t len = strcspn(p, "\r\n");
        read_line(p, len, base_of(path), hex);
        p += len + strspn(p + len, "\r\n");
    }
    free(text);
    if (*hex) return PR_OK;
    return pr_fail(err, PR_EINTEGRITY,
                   "%s has no line \"SHA-256  %s\": remove it, or write it with sha256sum", name,
                   base_of(path));
}

int verify_sidecar_write(const char *path, const char *hex, pr_err *err)
{
    char name[PATH_MAX], line[PATH_MAX + HASH_HEX_BYTES + 8];
    int n, rc = sidecar_path(name, path, err);

    if (rc) return rc;
    n = snprintf(line, sizeof line, "%s  %s\n", hex, base_of(path));
    return file_write_atomic(name, line, (size_t)n, err);
}

/* --- GGUF structure ------------------------------------------------------------------------------------ */
static int open_and_close(const char *path, pr_err *err)
{
    gguf *g = NULL;
    int rc = gguf_open(&g, path, err);

    gguf_close(g);
    return rc;
}

/* A link to now at "dir/NAME". */
static int link_part(const char *dir, const char *now, const char *path, pr_err *err)
{
    char real[PATH_MAX], link[PATH_MAX];

    if (!realpath(now, real)) return pr_fail_errno(err, PR_ERESOURCE, "%s", now);
    if (snprintf(link, sizeof link, "%s/%s", dir, base_of(path)) >= (int)sizeof link)
        return pr_fail(err, PR_ERESOURCE, "%.200s: path too long", path);
    return symlink(real, link) ? pr_fail_errno(err, PR_ERESOURCE, "%s: a link for checking", link) : PR_OK;
}

static void remove_links(const char *dir, const char *const *path, size_t n)
{
    char link[PATH_MAX];

    for (size_t i = 0; i < n; i++) {
        if (snprintf(link, sizeof link, "%s/%s", dir, base_of(path[i])) < (int)sizeof link) unlink(link);
    }
    rmdir(dir);
}

/* Parts find each other by their names, which these do not have yet: links in a folder of their own do. */
static int open_by_links(const char *const *now, const char *const *path, size_t n, pr_err *err)
{
    const char *tmp = getenv("TMPDIR");
    char dir[PATH_MAX], first[PATH_MAX];
    pr_err e = {0};
    int rc = PR_OK;

    if (snprintf(dir, sizeof dir, "%s/prima-pull-XXXXXX", tmp && *tmp ? tmp : "/tmp") >= (int)sizeof dir ||
        !mkdtemp(dir))
        return pr_fail_errno(err, PR_ERESOURCE, "%s: a folder for checking", dir);
    for (size_t i = 0; i < n && !rc; i++) rc = link_part(dir, now[i], path[i], &e);
    if (!rc && snprintf(first, sizeof first, "%s/%s", dir, base_of(path[0])) < (int)sizeof first)
        rc = open_and_close(first, &e);
    remove_links(dir, path, n);
    if (!rc) return PR_OK;
    return pr_fail(err, (pr_code)rc, "%s",
                   strncmp(e.msg, dir, strlen(dir)) ? e.msg : e.msg + strlen(dir) + 1);
}

/* A message about one file, under the name that it will have. */
static int open_alone(const char *now, const char *path, pr_err *err)
{
    pr_err e = {0};
    int rc = open_and_close(now, &e);

    if (!rc) return PR_OK;
    if (strncmp(e.msg, now, strlen(now)) != 0) return pr_fail(err, (pr_code)rc, "%s", e.msg);
    return pr_fail(err, (pr_code)rc, "%s%s", path, e.msg + strlen(now));
}

int verify_gguf(const char *const *now, const char *const *path, size_t n, pr_err *err)
{
    bool in_place = true;

    for (size_t i = 0; i < n; i++) in_place = in_place && strcmp(now[i], path[i]) == 0;
    return in_place || n == 1 ? open_alone(now[0], path[0], err) : open_by_links(now, path, n, err);
}

/* --- a whole model ------------------------------------------------------------------------------------- */
/* Sizes of all files; a part that is missing makes a model wrong, a file that is not there at all is no
 * model. */
static int measure(char *const *path, size_t n, const char *named, uint64_t *bytes, uint64_t *total,
                   pr_err *err)
{
    struct stat st;
    char part[PATH_MAX];

    *total = 0;
    for (size_t i = 0; i < n; i++) {
        if (stat(path[i], &st)) {
            bool begun =
                snprintf(part, sizeof part, "%s.part", path[i]) < (int)sizeof part && !access(part, F_OK);
            return pr_fail_errno(
                err, strcmp(path[i], named) && errno == ENOENT ? PR_EINTEGRITY : PR_ERESOURCE, "%s%s",
                path[i], begun ? " is not finished: call the prima pull again that began it" : "");
        }
        *total += bytes[i] = (uint64_t)st.st_size;
    }
    return PR_OK;
}

/* One file: hashed, printed, compared. *known: there was something to compare with. */
static int check_file(const char *path, const verify_options *o, bool *known, pr_err *err)
{
    char said[HASH_HEX_BYTES], hex[HASH_HEX_BYTES];
    int rc = verify_sidecar_read(path, said, err);

    if (rc || (rc = verify_hash(path, hex, o->meter, o->stop, err))) return rc;
    if (o->meter) meter_end(o->meter);
    if (o->print) printf("%s  %s\n", hex, path);
    *known = *said || o->sha256;
    if (*said && strcmp(said, hex) != 0)
        return pr_fail(err, PR_EINTEGRITY,
                       "%s: its SHA-256 is %s, %s.sha256 says %s: move it away and pull it again", path, hex,
                       base_of(path), said);
    if (o->sha256 && strcmp(o->sha256, hex) != 0)
        return pr_fail(err, PR_EINTEGRITY, "%s: its SHA-256 is %s, expected %s", path, hex, o->sha256);
    if (*known) log_info("%s: right (%s)", path, *said ? "as its .sha256 says" : "--sha256");
    else log_warn("%s: no %s.sha256 to compare with; it is %s", path, base_of(path), hex);
    return PR_OK;
}

static int check_files(char *const *path, size_t n, const uint64_t *bytes, uint64_t total,
                       const verify_options *o, pr_err *err)
{
    uint64_t before = 0;
    pr_err e = {0};
    int rc = PR_OK, one;

    if (o->meter) meter_begin(o->meter, total);
    for (size_t i = 0; i < n; i++) {
        bool known;

        if (o->meter) meter_file(o->meter, "checking", base_of(path[i]), before);
        before += bytes[i];
        one = check_file(path[i], o, &known, rc ? &e : err);
        if (one == PR_EINTERRUPTED) return pr_fail(err, PR_EINTERRUPTED, "interrupted while checking");
        if (one && rc) log_error("%s", e.msg); /* the first one is the caller's to say */
        if (one && !rc) rc = one;
    }
    if (o->meter) meter_end(o->meter);
    return rc;
}

/* Paths of all parts. NULL: out of memory. */
static char **part_paths(const char *path, size_t *n)
{
    const char *name = base_of(path);
    uint32_t part, count;
    size_t stem;
    char **out;

    name_split(name, &part, &count, &stem);
    *n = count;
    if (!(out = calloc(count, sizeof *out))) return NULL;
    for (uint32_t i = 0; i < count; i++) {
        char *other = name_of_part(name, i + 1);
        size_t room = (size_t)(name - path) + strlen(name) + 1;

        if (other && (out[i] = malloc(room)))
            snprintf(out[i], room, "%.*s%s", (int)(name - path), path, other);
        free(other);
        if (!out[i]) {
            while (i--) free(out[i]);
            free(out);
            return NULL;
        }
    }
    return out;
}

int verify_model(const char *path, const verify_options *o, pr_err *err)
{
    size_t n;
    char **part = part_paths(path, &n);
    uint64_t total, *bytes = part ? calloc(n, sizeof *bytes) : NULL;
    int rc;

    if (!bytes) rc = pr_fail(err, PR_ERESOURCE, "out of memory");
    else if (o->sha256 && n > 1)
        rc = pr_fail(err, PR_EUSAGE, "--sha256 is for a model of one file, and this one has %zu", n);
    else rc = measure(part, n, path, bytes, &total, err);
    if (!rc && (rc = open_and_close(path, err)) == PR_EINTEGRITY) pr_wrap(err, "malformed or truncated");
    if (!rc) rc = check_files(part, n, bytes, total, o, err);
    for (size_t i = 0; part && i < n; i++) free(part[i]);
    free(part);
    free(bytes);
    return rc;
}
