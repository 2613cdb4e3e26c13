/* Running fio; see fio.h. Its output goes to files: a pipe would need a reader, and fio mixes messages into
 * what it prints. fio works with threads (--thread), so that one signal ends all of it. Its buffers come on
 * huge pages, as the runtime's do, where the C library can be told so: in 4 KiB pages a virtual disk was
 * measured three times slower (disk_rate.c). */
#include "src/base/clock.h"
#include "src/base/file.h"
#include "src/fio.h"
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define VERSION_CHARACTERS "abcdefghijklmnopqrstuvwxyz0123456789.-"

extern char **environ;

#ifdef __linux__
#define FIO_ENGINE "libaio"
#else
#define FIO_ENGINE "posixaio"
#endif

enum { MAX_ARGS = 20, ARG_BYTES = 128, PATH_BYTES = 8192, VERSION_S = 5 };

typedef struct {
    char text[MAX_ARGS][ARG_BYTES];
    char filename[PATH_BYTES];
    char *argv[MAX_ARGS + 2];
} command;

/* fio takes ':' for a separator of several files, but not "\:"; other backslashes are themselves. */
static int filename_option(char *out, const char *path, pr_err *err)
{
    size_t n = (size_t)snprintf(out, PATH_BYTES, "--filename=");

    for (; *path; path++) {
        if (n + 3 > PATH_BYTES) return pr_fail(err, PR_ERESOURCE, "the path of the file is too long for fio");
        if (*path == ':') out[n++] = '\\';
        out[n++] = *path;
    }
    out[n] = 0;
    return PR_OK;
}

static char *program_name(void)
{
    char *program = getenv("PRIMA_FIO");
    static char usual[] = "fio";

    return program && *program ? program : usual;
}

static int make_command(command *c, const fio_job *job, const char *output, pr_err *err)
{
    int n = 0;

    snprintf(c->text[n++], ARG_BYTES, "--name=prima");
    snprintf(c->text[n++], ARG_BYTES, "--readonly");
    snprintf(c->text[n++], ARG_BYTES, "--thread");
    snprintf(c->text[n++], ARG_BYTES, "--output-format=json");
    snprintf(c->text[n++], ARG_BYTES, "--output=%s", output);
    snprintf(c->text[n++], ARG_BYTES, "--ioengine=%s", FIO_ENGINE);
    snprintf(c->text[n++], ARG_BYTES, "--rw=%s", job->random ? "randread" : "read");
    snprintf(c->text[n++], ARG_BYTES, "--bs=%llu", (unsigned long long)job->bs_bytes);
    snprintf(c->text[n++], ARG_BYTES, "--iodepth=%u", job->iodepth);
    snprintf(c->text[n++], ARG_BYTES, "--direct=%d", job->direct);
    snprintf(c->text[n++], ARG_BYTES, "--invalidate=1");
    snprintf(c->text[n++], ARG_BYTES, "--time_based");
    snprintf(c->text[n++], ARG_BYTES, "--runtime=%.0fms", job->runtime_s * 1e3);
    snprintf(c->text[n++], ARG_BYTES, "--ramp_time=%.0fms", job->ramp_s * 1e3);
    c->argv[0] = program_name();
    for (int i = 0; i < n; i++) c->argv[i + 1] = c->text[i];
    c->argv[n + 1] = c->filename;
    c->argv[n + 2] = NULL;
    return filename_option(c->filename, job->path, err);
}

/* Our environment with a setting for the C library (glibc) more, unless the user has one. Only the array is
 * new. */
static char **fio_environment(pr_err *err)
{
    static char huge_pages[] = "GLIBC_TUNABLES=glibc.malloc.hugetlb=1";
    size_t n = 0, more = getenv("GLIBC_TUNABLES") ? 0 : 1;
    char **env;

    while (environ[n]) n++;
    env = malloc((n + 2) * sizeof *env);
    if (!env) {
        pr_fail(err, PR_ERESOURCE, "out of memory");
        return NULL;
    }
    memcpy(env, environ, n * sizeof *env);
    env[n] = more ? huge_pages : NULL;
    env[n + more] = NULL;
    return env;
}

static int start(pid_t *pid, char *const argv[], int messages, pr_err *err)
{
    posix_spawn_file_actions_t actions;
    char **env = fio_environment(err);
    int rc;

    if (!env) return PR_ERESOURCE;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&actions, messages, 1);
    posix_spawn_file_actions_adddup2(&actions, messages, 2);
    rc = posix_spawnp(pid, argv[0], &actions, NULL, argv, env);
    free(env);
    posix_spawn_file_actions_destroy(&actions);
    errno = rc;
    return rc ? pr_fail_errno(err, PR_ERESOURCE, "%s cannot be started", argv[0]) : PR_OK;
}

static int wait_for(pid_t pid, const char *program, double timeout_s, int *status, pr_err *err)
{
    uint64_t start_ns = clock_ns();
    const struct timespec nap = {0, 10000000};

    for (;;) {
        pid_t done = waitpid(pid, status, WNOHANG);
        if (done == pid) return PR_OK;
        if (done < 0 && errno != EINTR) return pr_fail_errno(err, PR_ERESOURCE, "waiting for %s", program);
        if (clock_ms_since(start_ns) > timeout_s * 1e3) break;
        nanosleep(&nap, NULL);
    }
    kill(pid, SIGKILL);
    waitpid(pid, status, 0);
    return pr_fail(err, PR_ERESOURCE, "%s did not end within %.1f s", program, timeout_s);
}

/* The first line of what fio said, "nothing" when it kept silent. */
static void first_message(char *out, size_t n, int fd)
{
    ssize_t got = pread(fd, out, n - 1, 0);

    out[got > 0 ? got : 0] = 0;
    out[strcspn(out, "\n")] = 0;
    if (!*out) snprintf(out, n, "nothing");
}

static int judge(profile_disk *out, char version[FIO_VERSION_BYTES], const fio_job *job, const char *output,
                 pr_err *err)
{
    profile_disk found[PROFILE_MAX_DISK];
    size_t n_text, n = 0;
    char *text = NULL;
    int rc = file_slurp(&text, &n_text, output, FIO_MAX_BYTES, err);

    if (rc) return pr_wrap(err, "output of fio");
    rc = fio_parse(found, &n, version, text, n_text, err);
    free(text);
    if (rc) return rc;
    if (n != 1) return pr_fail(err, PR_EINTEGRITY, "%zu results of one job", n);
    *out = found[0];
    /* What was asked for, whatever the options say in its output. */
    snprintf(out->pattern, sizeof out->pattern, "%s", job->random ? "rand" : "seq");
    out->bs_bytes = job->bs_bytes;
    out->iodepth = job->iodepth;
    out->direct = job->direct;
    snprintf(out->engine, sizeof out->engine, "%s", FIO_ENGINE);
    return PR_OK;
}

static int run(profile_disk *out, char version[FIO_VERSION_BYTES], const fio_job *job, const char *output,
               int output_fd, int messages, pr_err *err)
{
    command c;
    pid_t pid;
    char said[128];
    int status, rc = make_command(&c, job, output, err);

    if (rc || (rc = start(&pid, c.argv, messages, err)) ||
        (rc = wait_for(pid, c.argv[0], job->timeout_s, &status, err)))
        return rc;
    if (WIFEXITED(status) && WEXITSTATUS(status) == 127) /* how posix_spawn may say that there is none */
        return pr_fail(err, PR_ERESOURCE, "%s cannot be started", c.argv[0]);
    first_message(said, sizeof said, messages);
    if (!WIFEXITED(status) || WEXITSTATUS(status))
        return pr_fail(err, PR_EINTEGRITY, "%s ended with %s %d: %s", c.argv[0],
                       WIFEXITED(status) ? "status" : "signal",
                       WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status), said);
    lseek(output_fd, 0, SEEK_SET); /* where opening /dev/fd/N gives the same position */
    return judge(out, version, job, output, err);
}

/* A new empty file under the temporary folder; -1 and *err. */
static int temporary(char path[ARG_BYTES / 2], pr_err *err)
{
    const char *dir = getenv("TMPDIR");
    int fd, n = snprintf(path, ARG_BYTES / 2, "%s/prima-fio-XXXXXX", dir && *dir ? dir : "/tmp");

    if (n >= ARG_BYTES / 2) snprintf(path, ARG_BYTES / 2, "/tmp/prima-fio-XXXXXX");
    fd = mkstemp(path);
    if (fd < 0) pr_fail_errno(err, PR_ERESOURCE, "%s cannot be created", path);
    return fd;
}

/* Both files lose their names before fio starts, so that nothing is left behind however this ends. */
int fio_run(profile_disk *out, char version[FIO_VERSION_BYTES], const fio_job *job, pr_err *err)
{
    char output[ARG_BYTES / 2], messages[ARG_BYTES / 2];
    int output_fd = temporary(output, err), messages_fd, rc = PR_ERESOURCE;

    if (output_fd < 0) return rc;
    unlink(output);
    snprintf(output, sizeof output, "/dev/fd/%d", output_fd);
    messages_fd = temporary(messages, err);
    if (messages_fd >= 0) {
        unlink(messages);
        rc = run(out, version, job, output, output_fd, messages_fd, err);
        close(messages_fd);
    }
    close(output_fd);
    return rc;
}

bool fio_installed(char version[FIO_VERSION_BYTES])
{
    static char option[] = "--version";
    char *argv[] = {program_name(), option, NULL}, messages[ARG_BYTES / 2], said[FIO_VERSION_BYTES];
    int status = 1, fd = temporary(messages, NULL);
    pid_t pid;

    if (fd < 0) return false;
    unlink(messages);
    if (start(&pid, argv, fd, NULL) || wait_for(pid, argv[0], VERSION_S, &status, NULL)) status = 1;
    first_message(said, sizeof said, fd);
    close(fd);
    if (!WIFEXITED(status) || WEXITSTATUS(status) || strncmp(said, "fio-", 4)) return false;
    snprintf(version, FIO_VERSION_BYTES, "%.*s", (int)strspn(said, VERSION_CHARACTERS), said);
    return true;
}
