/* Child processes. posix_spawn, because a head holds gigabytes and has threads: fork would copy its page
 * tables, and between fork and exec hardly anything is allowed.
 *
 * A process that has ended is looked at without being reaped (WNOWAIT) until its group has been killed: so
 * long nobody else can get its number. The reader also ends when it is told to, because a program that has
 * left may have left another one behind that holds its standard error open (ssh's connection sharing does).
 */
#include "src/run/child.h"
#include "net/sock.h"
#include "src/base/clock.h"
#include "src/base/log.h"
#include "src/base/thread.h"
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

enum { LOOK_EVERY_MS = 5, DRAIN_READS = 256, READ_BYTES = 4096 };
static const double TERM_S = 1, KILL_S = 5;

typedef struct {
    int fd; /* -1: ended */
    bool is_stderr, cut;
    size_t n;
    char text[CHILD_LINE_BYTES];
} stream;

struct child {
    pid_t pid;
    int in; /* -1: closed */
    stream s[2];
    wake enough; /* ends the reader */
    pthread_t reader;
    child_line_fn line;
    void *arg;
    bool reaped;
    child_state end;
};

/* --- lines --------------------------------------------------------------------------------------------- */
static void end_line(child *c, stream *s)
{
    static const char dots[] = "...";

    if (s->n && s->text[s->n - 1] == '\r') s->n--;
    if (s->cut) memcpy(s->text + sizeof s->text - sizeof dots, dots, sizeof dots);
    else s->text[s->n] = 0;
    if (s->n) c->line(c->arg, s->is_stderr, s->text);
    s->n = 0;
    s->cut = false;
}

static void feed(child *c, stream *s, const char *data, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (data[i] == '\n') end_line(c, s);
        else if (s->n < sizeof s->text - 1) s->text[s->n++] = data[i] ? data[i] : '?';
        else s->cut = true;
    }
}

/* One read; false when there is nothing more for now. */
static bool take(child *c, stream *s)
{
    char data[READ_BYTES];
    ssize_t n = s->fd < 0 ? -1 : read(s->fd, data, sizeof data);

    if (n > 0) feed(c, s, data, (size_t)n);
    if (n > 0 || s->fd < 0 || (n < 0 && (errno == EAGAIN || errno == EINTR))) return n > 0;
    end_line(c, s);
    close(s->fd);
    s->fd = -1;
    return false;
}

static void *read_lines(void *arg)
{
    child *c = arg;
    bool last = false;

    while (!last && (c->s[0].fd >= 0 || c->s[1].fd >= 0)) {
        struct pollfd p[3] = {{.fd = c->s[0].fd, .events = POLLIN},
                              {.fd = c->s[1].fd, .events = POLLIN},
                              {.fd = c->enough.fd[0], .events = POLLIN}};
        if (poll(p, 3, -1) < 0) continue;
        last = p[2].revents != 0;
        for (int i = 0; i < 2; i++) {
            if (!last && p[i].revents) take(c, &c->s[i]);
            for (int k = 0; last && k < DRAIN_READS && take(c, &c->s[i]); k++) continue;
            if (last) end_line(c, &c->s[i]);
        }
    }
    return NULL;
}

/* --- starting ------------------------------------------------------------------------------------------ */
/* Both ends are closed in programs that are started, also by another thread at this moment. */
static int open_pipe(int fd[2], pr_err *err)
{
#ifdef __linux__
    if (!pipe2(fd, O_CLOEXEC)) return PR_OK;
#else
    if (!pipe(fd)) {
        fcntl(fd[0], F_SETFD, FD_CLOEXEC);
        fcntl(fd[1], F_SETFD, FD_CLOEXEC);
        return PR_OK;
    }
#endif
    fd[0] = fd[1] = -1;
    return pr_fail_errno(err, PR_ERESOURCE, "a pipe");
}

static void close_pipes(int fd[3][2])
{
    for (int i = 0; i < 6; i++)
        if (fd[i / 2][i % 2] >= 0) close(fd[i / 2][i % 2]);
}

static int open_pipes(int fd[3][2], pr_err *err)
{
    for (int i = 0, rc; i < 3; i++)
        if ((rc = open_pipe(fd[i], err))) return rc;
    return PR_OK;
}

/* We ignore SIGPIPE and may block others; the program gets them as they are at a login. */
static int spawn(pid_t *pid, const char *const argv[], int fd[3][2])
{
    short flags = POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK;
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attr;
    sigset_t set;
    int error;

#ifdef POSIX_SPAWN_CLOEXEC_DEFAULT
    flags |= POSIX_SPAWN_CLOEXEC_DEFAULT;
#endif
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, fd[0][0], STDIN_FILENO);
    posix_spawn_file_actions_adddup2(&actions, fd[1][1], STDOUT_FILENO);
    posix_spawn_file_actions_adddup2(&actions, fd[2][1], STDERR_FILENO);
    posix_spawnattr_init(&attr);
    posix_spawnattr_setflags(&attr, flags);
    posix_spawnattr_setpgroup(&attr, 0);
    sigemptyset(&set);
    posix_spawnattr_setsigmask(&attr, &set);
    sigaddset(&set, SIGPIPE);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    posix_spawnattr_setsigdefault(&attr, &set);
    error = posix_spawnp(pid, argv[0], &actions, &attr, (char *const *)argv, environ);
    posix_spawnattr_destroy(&attr);
    posix_spawn_file_actions_destroy(&actions);
    return error;
}

/* Our ends of the pipes; takes them out of fd. */
static void keep_ends(child *c, int fd[3][2])
{
    c->in = fd[0][1];
    for (int i = 0; i < 2; i++) {
        c->s[i] = (stream){.fd = fd[i + 1][0], .is_stderr = i == 1};
        fcntl(c->s[i].fd, F_SETFL, O_NONBLOCK);
        fd[i + 1][0] = -1;
    }
    fd[0][1] = -1;
}

int child_start(child **out, const char *const argv[], child_line_fn line, void *arg, pr_err *err)
{
    int fd[3][2] = {{-1, -1}, {-1, -1}, {-1, -1}}, error, rc;
    child *c = calloc(1, sizeof *c);

    *out = NULL;
    if (!c) return pr_fail(err, PR_ERESOURCE, "out of memory");
    *c = (child){.in = -1, .s = {{.fd = -1}, {.fd = -1}}, .enough = {{-1, -1}}, .line = line, .arg = arg};
    if (!(rc = open_pipes(fd, err)) && !(rc = wake_init(&c->enough, err)) &&
        (error = spawn(&c->pid, argv, fd))) {
        errno = error;
        rc = pr_fail_errno(err, error == ENOENT ? PR_EUSAGE : PR_ERESOURCE, "cannot start %s", argv[0]);
        c->pid = 0;
    }
    if (!rc) {
        keep_ends(c, fd);
        if (thread_start(&c->reader, read_lines, c)) {
            kill(-c->pid, SIGKILL);
            waitpid(c->pid, NULL, 0);
            c->pid = 0;
            rc = pr_fail(err, PR_ERESOURCE, "cannot start a thread");
        }
    }
    close_pipes(fd);
    if (rc) child_free(c);
    else *out = c;
    return rc;
}

int child_input(const child *c)
{
    return c->in;
}

/* --- ending -------------------------------------------------------------------------------------------- */
child_state child_look(const child *c)
{
    siginfo_t i;

    if (c->reaped) return c->end;
    memset(&i, 0, sizeof i);
    if (waitid(P_PID, (id_t)c->pid, &i, WEXITED | WNOHANG | WNOWAIT) && errno != EINTR)
        return (child_state){.status = -1};
    if (!i.si_pid) return (child_state){.running = true, .status = -1};
    if (i.si_code == CLD_EXITED) return (child_state){.status = i.si_status};
    return (child_state){.status = -1, .signal = i.si_status};
}

static bool leaves_within(const child *c, double s)
{
    const struct timespec pause = {.tv_nsec = LOOK_EVERY_MS * 1000000L};

    for (uint64_t deadline = sock_deadline(s); child_look(c).running;) {
        if (clock_ns() >= deadline) return false;
        nanosleep(&pause, NULL);
    }
    return true;
}

child_state child_stop(child *c, double grace_s)
{
    if (c->reaped) return c->end;
    close(c->in);
    c->in = -1;
    if (!leaves_within(c, grace_s)) {
        kill(-c->pid, SIGTERM);
        leaves_within(c, grace_s < TERM_S ? grace_s : TERM_S);
    }
    kill(-c->pid, SIGKILL); /* also what it has left behind */
    if (!leaves_within(c, KILL_S)) log_warn("process %ld does not end", (long)c->pid);
    c->end = child_look(c);
    c->end.running = false;
    c->reaped = true;
    waitpid(c->pid, NULL, WNOHANG);
    wake_raise(&c->enough);
    pthread_join(c->reader, NULL);
    return c->end;
}

void child_free(child *c)
{
    if (!c) return;
    if (c->pid) child_stop(c, 0);
    if (c->in >= 0) close(c->in);
    for (int i = 0; i < 2; i++)
        if (c->s[i].fd >= 0) close(c->s[i].fd);
    wake_clear(&c->enough);
    free(c);
}
