/* Starting workers: which way, waiting for "HOST:PORT" on their standard output, and what their end means.
 *
 * Other lines on standard output are somebody's greeting at login, not an error. Of their log lines date and
 * level are taken off, and given again by our log. */
#include "src/run/launch.h"
#include "src/base/clock.h"
#include "src/base/log.h"
#include "src/run/child.h"
#include "src/run/launch_order.h"
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_GREETING_LINES = 20, MAX_ARGS = 20, COMMAND_BYTES = 320, LAST_BYTES = 320, DATE_BYTES = 20 };
enum { SSH_FAILED = 255, NOT_FOUND = 127, LOOK_EVERY_MS = 10 };
static const double FIRST_TRY_S = 2;

struct launched {
    char name[64], address[SOCK_NAME_BYTES], command[COMMAND_BYTES];
    uint16_t port;
    bool by_ssh;
    child *child; /* NULL: not ours */
    pthread_mutex_t mutex;
    bool listening;        /* address is what the worker said */
    char last[LAST_BYTES]; /* line on its standard error */
    int n_greetings;
};

/* --- what it says -------------------------------------------------------------------------------------- */
/* "2026-11-20T12:46:19Z warn  text" -> "text" and the level; other lines as they are. */
static const char *split_log_line(const char *line, log_level *level)
{
    char word[8] = "";
    size_t n;

    *level = LOG_WARN; /* ssh, or a crash */
    if (strlen(line) <= DATE_BYTES + 1 || line[10] != 'T' || line[DATE_BYTES - 1] != 'Z' ||
        line[DATE_BYTES] != ' ')
        return line;
    line += DATE_BYTES + 1;
    n = strcspn(line, " ");
    if (n < sizeof word) memcpy(word, line, n);
    if (log_level_parse(word, level)) line += n;
    return line + strspn(line, " ");
}

static bool is_address(const launched *l, const char *line)
{
    sock_addr a;

    return !strpbrk(line, " \t") && !sock_addr_parse(&a, line, false, NULL) &&
           (!l->port || a.port == l->port);
}

static void on_line(void *arg, bool is_stderr, const char *line)
{
    launched *l = arg;
    log_level level;
    bool address;

    if (is_stderr) {
        line = split_log_line(line, &level);
        pthread_mutex_lock(&l->mutex);
        snprintf(l->last, sizeof l->last, "%s", line);
        pthread_mutex_unlock(&l->mutex);
        log_msg(level, "[%s] %s", l->name, line);
        return;
    }
    pthread_mutex_lock(&l->mutex);
    address = !l->listening && is_address(l, line);
    if (address) {
        snprintf(l->address, sizeof l->address, "%s", line);
        l->listening = true;
    }
    pthread_mutex_unlock(&l->mutex);
    if (!address && l->n_greetings++ < MAX_GREETING_LINES) log_info("[%s] %s", l->name, line);
}

static bool is_listening(launched *l)
{
    pthread_mutex_lock(&l->mutex);
    bool listening = l->listening;
    pthread_mutex_unlock(&l->mutex);
    return listening;
}

/* --- how it ends --------------------------------------------------------------------------------------- */
/* Exit statuses of prima that say something about the worker's machine. */
static pr_code code_of(int status)
{
    switch (-status) {
    case PR_EINTERNAL:
    case PR_EUSAGE:
    case PR_EMISMATCH:
    case PR_EAUTH:
    case PR_EINTEGRITY:
    case PR_ERESOURCE: return (pr_code)-status;
    default: return PR_EPEER;
    }
}

/* After child_stop: nobody writes `last` any more. */
static int ended(const launched *l, child_state s, pr_err *err)
{
    const char *last = *l->last ? l->last : "no message";

    if (s.signal)
        return pr_fail(err, PR_EPEER, "%s: its worker was ended by signal %d (%s)", l->name, s.signal, last);
    if (l->by_ssh && s.status == SSH_FAILED)
        return pr_fail(err, PR_EPEER, "%s: cannot be reached by `%s`: %s", l->name, l->command, last);
    if (l->by_ssh && s.status == NOT_FOUND)
        return pr_fail(
            err, PR_EUSAGE,
            "%s: no prima found there by `%s` (%s); put it where a shell without login looks, such "
            "as /usr/local/bin",
            l->name, l->command, last);
    return pr_fail(err, code_of(s.status), "%s: its worker ended with exit status %d: %s", l->name, s.status,
                   last);
}

static void launched_free(launched *l)
{
    child_free(l->child);
    pthread_mutex_destroy(&l->mutex);
    free(l);
}

/* --- where it is --------------------------------------------------------------------------------------- */
/* An address that can be listened on is one of ours. */
static bool is_this_machine(const char *host, bool *is_loopback)
{
    static const sock_options so = {.lost_after_ms = 0};
    sock_addr at = {.port = 0};
    sock_listener l;
    bool ours;

    snprintf(at.host, sizeof at.host, "%s", host);
    ours = !sock_listen(&l, &at, &so, NULL);
    *is_loopback = ours && l.is_loopback;
    sock_listener_close(&l);
    return ours;
}

/* PR_OK: somebody listens; PR_EPEER: nobody does before the deadline. */
static int try_connect(const launch_options *o, const sock_addr *at, bool retry, uint64_t deadline_ns,
                       pr_err *err)
{
    const sock_options so = {.wake = o->stop};
    sock s;
    int rc = sock_connect(&s, at, &so, retry, deadline_ns, err);

    if (!rc) sock_close(&s);
    return rc;
}

static int wait_for(launched *l, const launch_options *o, const sock_addr *at, uint64_t deadline_ns,
                    pr_err *err)
{
    const char *insecure = o->sec->key ? "" : " --insecure";
    pr_err why = {0};
    int rc;

    log_info("%s: waiting for its worker; on that machine: prima worker --listen %s%s", o->name, l->address,
             insecure);
    rc = try_connect(o, at, true, deadline_ns, &why);
    if (rc != PR_EPEER) return rc ? pr_fail(err, why.code, "%s: %s", o->name, why.msg) : PR_OK;
    return pr_fail(err, rc,
                   "%s: no worker; start `prima worker --listen %s%s` there, or give the device's ssh: in "
                   "cluster.yaml (last try: %s)",
                   o->name, l->address, insecure, why.msg);
}

/* --- starting one -------------------------------------------------------------------------------------- */
static bool given(const char *s)
{
    return s && *s;
}

/* One made of the head's options; its key is to be cleared. */
static int make_order(launch_order *out, const launch_options *o, const sock_addr *at, pr_err *err)
{
    *out = (launch_order){.listen = *at, .insecure = o->sec->insecure, .threads = o->threads};
    if (o->isa && snprintf(out->isa, sizeof out->isa, "%s", o->isa) >= (int)sizeof out->isa)
        return pr_fail(err, PR_EUSAGE, "%s: no instruction set is called %s", o->name, o->isa);
    if (o->model && snprintf(out->model, sizeof out->model, "%s", o->model) >= (int)sizeof out->model)
        return pr_fail(err, PR_EUSAGE, "%s: the model's path is too long", o->name);
    out->has_key = o->sec->key != NULL;
    if (out->has_key) out->key = *o->sec->key;
    return PR_OK;
}

static void make_command(launched *l, const char *const argv[])
{
    size_t n = 0;

    for (; *argv && n < sizeof l->command; argv++) {
        int put = snprintf(l->command + n, sizeof l->command - n, "%s%s", n ? " " : "", *argv);
        if (put < 0) return;
        n += (size_t)put;
    }
}

static const char *this_program(const launch_options *o)
{
#ifdef __linux__
    return given(o->self) ? o->self : "/proc/self/exe"; /* the same file, also after an upgrade */
#else
    return given(o->self) ? o->self : "prima";
#endif
}

static int start(launched *l, const launch_options *o, const sock_addr *at, pr_err *err)
{
    const char *program = getenv("PRIMA_SSH"), *local[] = {this_program(o), "worker", "--stdio", NULL};
    char target[512];
    const char *remote[MAX_ARGS] = {given(program) ? program : "ssh",
                                    "-T",
                                    "-o",
                                    "BatchMode=yes",
                                    "-o",
                                    "ConnectTimeout=10",
                                    "-o",
                                    "ServerAliveInterval=15",
                                    "-o",
                                    "ServerAliveCountMax=3",
                                    target,
                                    "prima",
                                    "worker",
                                    "--stdio"};
    const char *const *argv = l->by_ssh ? remote : local;
    launch_order order;
    int rc;

    if (l->by_ssh) {
        bool user = given(o->user) && !strchr(o->ssh, '@');
        snprintf(target, sizeof target, "%s%s%s", user ? o->user : "", user ? "@" : "", o->ssh);
        if (*target == '-')
            return pr_fail(err, PR_EUSAGE, "%s: ssh: %s: a host does not begin with a dash", o->name, target);
    }
    make_command(l, argv);
    if ((rc = make_order(&order, o, at, err))) return rc;
    log_debug("%s: %s", o->name, l->command);
    if (!(rc = child_start(&l->child, argv, on_line, l, err))) {
        /* Nobody reads it: the worker has ended, and how will be told. */
        rc = launch_order_write(child_input(l->child), &order, err);
        if (rc == PR_EPEER) rc = PR_OK;
    } else pr_wrap(err, "%s", o->name);
    key_clear(&order.key);
    return rc;
}

/* A name can mean another address over there (Debian's /etc/hosts says 127.0.1.1). */
static int check_reachable(const launched *l, bool loopback_wanted, const char *host, pr_err *err)
{
    if (loopback_wanted || (strncmp(l->address, "127.", 4) && strncmp(l->address, "[::1]", 5))) return PR_OK;
    return pr_fail(
        err, PR_EUSAGE,
        "%s: there %s is %s, which only that machine itself can reach; write the device's address as "
        "its host: in cluster.yaml",
        l->name, host, l->address);
}

static int await(launched *l, const launch_options *o, uint64_t start_ns, uint64_t deadline_ns, pr_err *err)
{
    const sock nothing = {.fd = -1, .wake = o->stop};

    while (!is_listening(l)) {
        if (!child_look(l->child).running) return ended(l, child_stop(l->child, 0), err);
        if (clock_ns() >= deadline_ns) {
            child_stop(l->child, 0);
            return pr_fail(err, PR_EPEER, "%s: no worker after %.0f s; `%s` hangs: %s", l->name,
                           clock_ms_since(start_ns) / 1e3, l->command, *l->last ? l->last : "no message");
        }
        if (sock_wait(&nothing, 0, clock_ns() + LOOK_EVERY_MS * UINT64_C(1000000), NULL) == PR_EINTERRUPTED)
            return pr_fail(err, PR_EINTERRUPTED, "%s: interrupted", l->name);
    }
    return PR_OK;
}

/* The ways one after another. */
static int launch(launched *l, const launch_options *o, uint64_t deadline_ns, pr_err *err)
{
    sock_addr at = {.port = o->port};
    uint64_t start_ns = clock_ns(), first = sock_deadline(FIRST_TRY_S);
    bool is_loopback, is_ours;
    pr_err why = {0};
    int rc = PR_EPEER;

    if (snprintf(at.host, sizeof at.host, "%s", o->host) >= (int)sizeof at.host)
        return pr_fail(err, PR_EUSAGE, "%s: the host is too long", o->name);
    sock_addr_print(l->address, &at);
    if (at.port) rc = try_connect(o, &at, false, first < deadline_ns ? first : deadline_ns, &why);
    if (rc && rc != PR_EPEER) return pr_fail(err, rc, "%s: %s", o->name, why.msg);
    if (!rc) log_info("%s: a worker listens on %s", o->name, l->address);
    if (!rc) return PR_OK;
    is_ours = is_this_machine(o->host, &is_loopback);
    l->by_ssh = given(o->ssh);
    if (!l->by_ssh && !is_ours) return wait_for(l, o, &at, deadline_ns, err);
    if ((rc = start(l, o, &at, err)) || (rc = await(l, o, start_ns, deadline_ns, err))) return rc;
    return check_reachable(l, is_loopback, o->host, err);
}

int launch_worker(launched **out, const launch_options *o, uint64_t deadline_ns, pr_err *err)
{
    launched *l = calloc(1, sizeof *l);
    int rc;

    *out = NULL;
    if (!l) return pr_fail(err, PR_ERESOURCE, "out of memory");
    snprintf(l->name, sizeof l->name, "%s", o->name);
    l->port = o->port;
    pthread_mutex_init(&l->mutex, NULL);
    rc = launch(l, o, deadline_ns, err);
    if (rc) launched_free(l);
    else *out = l;
    return rc;
}

/* --- later --------------------------------------------------------------------------------------------- */
bool launch_is_ours(const launched *l)
{
    return l->child != NULL;
}

const char *launch_address(const launched *l)
{
    return l->address;
}

bool launch_running(const launched *l)
{
    return !l->child || child_look(l->child).running;
}

int launch_check(launched *l, pr_err *err)
{
    return launch_running(l) ? PR_OK : ended(l, child_stop(l->child, 0), err);
}

int launch_stop(launched *l, double grace_s)
{
    int rc = PR_OK;

    if (l && l->child) {
        child_state s = child_stop(l->child, grace_s);
        rc = s.signal ? PR_EPEER : s.status ? code_of(s.status) : PR_OK;
    }
    if (l) launched_free(l);
    return rc;
}
