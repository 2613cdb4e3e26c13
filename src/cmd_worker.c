/* prima worker: one device of the ring. It serves heads one after another (--listen), or the one that has
 * started it (--stdio), or answers `prima profile --link` of other devices (--probe).
 *
 * A signal ends it, and so does the end of standard input with --stdio: that is how a worker is meant to end,
 * so the status is 0, also in the middle of a run (which the head then notices, and says). What it does at
 * that moment, reading gigabytes perhaps, has a second to come to an end. */
#include "net/door.h"
#include "net/probe.h"
#include "src/base/log.h"
#include "src/base/pool.h"
#include "src/base/thread.h"
#include "src/cmd.h"
#include "src/options.h"
#include "src/run/launch_order.h"
#include "src/run/worker.h"
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct {
    const char *listen, *key_file, *isa, *model, *pack_dir;
    uint64_t disk_limit;
    bool probe, stdio, insecure;
    size_t threads;
} cmd_options;

static const double GREETING_S = 5;          /* as of a worker (src/run/worker.c) */
static const double ORDER_S = 30;            /* what a head sends at once, over a slow ssh */
static const unsigned LOST_AFTER_MS = 15000; /* the default of timeouts.peer */
enum { LEAVE_MS = 1000 };
static wake stop;

/* The second one is meant seriously. */
static void on_signal(int sig)
{
    static volatile sig_atomic_t n;

    if (n++) _exit(128 + sig);
    wake_raise(&stop);
}

/* --- options ------------------------------------------------------------------------------------------- */
static int check(const cmd_options *o, pr_err *err)
{
    bool computes = o->threads || o->isa || o->model || o->pack_dir || o->disk_limit;

    if (o->stdio && (o->listen || o->key_file || o->insecure || computes))
        return pr_fail(err, PR_EUSAGE,
                       "--stdio takes everything from standard input: no other option goes with it");
    if (o->probe && computes)
        return pr_fail(err, PR_EUSAGE,
                       "--threads, --isa, --model, --pack-dir and --disk-limit do not go with --probe");
    if (o->probe && o->stdio) return pr_fail(err, PR_EUSAGE, "--probe and --stdio exclude each other");
    if (o->probe || o->stdio || o->listen) return PR_OK;
    return pr_fail(err, PR_EUSAGE, "expected --listen ADDR:PORT, such as --listen 192.168.1.3:9700");
}

static int parse(cmd_options *o, int argc, char **argv, pr_err *err)
{
    const opt table[] = {
        {"listen", 0, OPT_STRING, &o->listen, "ADDR:PORT", 0, 0,
         "where heads and neighbours come; port 0 takes a free one; the address is printed"},
        {"key-file", 0, OPT_STRING, &o->key_file, "FILE", 0, 0,
         "the cluster's key (PRIMA_KEY_FILE, else ~/.config/prima/cluster.key)"},
        {"insecure", 0, OPT_FLAG, &o->insecure, NULL, 0, 0, "no key and no encryption: anyone may connect"},
        {"threads", 't', OPT_COUNT, &o->threads, "N", 0, POOL_MAX_THREADS,
         "threads (the plan's, else one a core)"},
        {"isa", 0, OPT_STRING, &o->isa, "NAME", 0, 0, "ref, avx2, avx512 or neon (the best of this CPU)"},
        {"model", 'm', OPT_STRING, &o->model, "FILE", 0, 0,
         "this device's copy of the model (the plan's path, else the head sends what is needed)"},
        {"pack-dir", 0, OPT_STRING, &o->pack_dir, "DIR", 0, 0,
         "weights in the order in which they are read from disk (PRIMA_CACHE/packs)"},
        {"disk-limit", 0, OPT_SIZE, &o->disk_limit, "SIZE", 1 << 20, 0x1p62,
         "read at most so many bytes a second, at low priority (no limit)"},
        {"stdio", 0, OPT_FLAG, &o->stdio, NULL, 0, 0,
         "one run, ordered on standard input, until that ends (how `prima run` starts workers)"},
        {"probe", 0, OPT_FLAG, &o->probe, NULL, 0, 0, "answer link measurements (127.0.0.1:9700)"},
        {0}};
    const opt_spec spec = {
        "--listen ADDR:PORT [options] | --stdio | --probe [options]",
        "Computes this device's layers for `prima run` on another device, one run after another, until a\n"
        "signal ends it. With --probe: answers `prima profile --link` of other devices.",
        table, 0, 0};
    int first, rc = options_parse(&spec, argc, argv, &first, err);

    return rc ? rc : check(o, err);
}

static void say_who_may_come(const security *sec)
{
    log_info("%s%s", sec->key ? "for holders of key " : "INSECURE: for anyone", sec->key ? sec->key->id : "");
}

/* On standard output, for programs: the head that waits for it, scripts. */
static void announce(const char *address)
{
    printf("%s\n", address);
    fflush(stdout);
    log_info("listening on %s", address);
}

static void announce_to_people(const char *address)
{
    announce(address);
    if (!strncmp(address, "127.", 4) || !strncmp(address, "[::1]", 5))
        log_info("only this machine can reach that: --listen ADDR:PORT opens it to a network");
}

/* --- leaving ------------------------------------------------------------------------------------------- */
typedef struct {
    int input; /* its end raises `stop`; -1: it does not matter */
    wake done; /* raised: nothing is left to watch */
    pthread_t thread;
} watcher;

static bool is_done_within(const watcher *w, int ms)
{
    struct pollfd p = {.fd = w->done.fd[0], .events = POLLIN};
    return poll(&p, 1, ms) > 0;
}

/* Ends the process when the orderly way takes too long. Nothing of value is lost: what is kept on disk is
 * checked before it is used. */
static void *watch(void *arg)
{
    watcher *w = arg;
    char rest[64];

    for (;;) {
        struct pollfd p[3] = {{.fd = w->input, .events = POLLIN},
                              {.fd = stop.fd[0], .events = POLLIN},
                              {.fd = w->done.fd[0], .events = POLLIN}};
        if (poll(p, 3, -1) < 0) continue;
        if (p[2].revents) return NULL;
        if (p[1].revents) break;
        if (p[0].revents && read(w->input, rest, sizeof rest) <= 0) {
            wake_raise(&stop);
            break;
        }
    }
    if (!is_done_within(w, LEAVE_MS)) {
        log_info("left in the middle of its work");
        _exit(EXIT_SUCCESS);
    }
    return NULL;
}

static int serve_heads(const worker_options *wo, int input, pr_err *err)
{
    watcher w = {.input = input};
    int rc = wake_init(&w.done, err);

    if (!rc && thread_start(&w.thread, watch, &w)) rc = pr_fail(err, PR_ERESOURCE, "cannot start a thread");
    else if (!rc) {
        rc = worker_run(wo, &stop, err);
        wake_raise(&w.done);
        pthread_join(w.thread, NULL);
    }
    wake_clear(&w.done);
    return rc;
}

/* --- the three ways ------------------------------------------------------------------------------------ */
static int serve_listening(const cmd_options *o, const security *sec, pr_err *err)
{
    worker_options wo = {.sec = *sec,
                         .version = prima_version,
                         .isa = o->isa,
                         .model = o->model,
                         .n_threads = (int)o->threads,
                         .pack_dir = o->pack_dir,
                         .disk_limit = o->disk_limit,
                         .listening = announce_to_people};
    int rc = sock_addr_parse(&wo.listen, o->listen, true, err);

    if (!rc) rc = serve_heads(&wo, -1, err);
    else pr_wrap(err, "--listen");
    return rc;
}

static int serve_stdio(pr_err *err)
{
    launch_order order;
    int rc = launch_order_read(&order, STDIN_FILENO, &stop, sock_deadline(ORDER_S), err);

    if (!rc) {
        const worker_options wo = {
            .listen = order.listen,
            .sec = {.key = order.has_key ? &order.key : NULL, .insecure = order.insecure},
            .version = prima_version,
            .isa = *order.isa ? order.isa : NULL,
            .model = *order.model ? order.model : NULL,
            .n_threads = order.threads,
            .once = true,
            .listening = announce};
        rc = serve_heads(&wo, STDIN_FILENO, err);
    }
    key_clear(&order.key);
    return rc == PR_EINTERRUPTED ? PR_OK : rc;
}

/* One client at a time is measured with, whoever else is at the door. */
static void answer_client(const door_guest *g)
{
    pr_err why = {0};
    int rc = probe_answer(g->c, &g->f, &why);

    if (!rc) log_info("%s: measured the link (%s)", channel_peer(g->c), channel_cipher(g->c));
    else if (rc != PR_EINTERRUPTED) log_warn("%s", why.msg);
    channel_close(g->c);
}

static int serve_probes(const cmd_options *o, const security *sec, pr_err *err)
{
    const sock_options so = {.wake = &stop, .lost_after_ms = LOST_AFTER_MS};
    const door_options at_door = {
        .so = &so, .sec = sec, .greeting_s = GREETING_S, .limits = {0, FRAME_BIT(FRAME_ECHO)}};
    sock_addr at;
    door_guest g;
    door *d;
    int rc;

    if ((rc = sock_addr_parse(&at, o->listen ? o->listen : "127.0.0.1:9700", true, err)) ||
        (rc = door_open(&d, &at, &at_door, err))) {
        pr_wrap(err, "--listen");
        return rc;
    }
    announce_to_people(door_address(d));
    while (!(rc = door_next(d, &g, SOCK_NO_DEADLINE, err))) answer_client(&g);
    door_close(d);
    return rc == PR_EINTERRUPTED ? PR_OK : rc;
}

static int run(const cmd_options *o, pr_err *err)
{
    cluster_key key;
    security sec;
    int rc;

    if (o->stdio) return serve_stdio(err);
    if (!(rc = security_read(&sec, &key, o->key_file, o->insecure, err))) {
        say_who_may_come(&sec);
        rc = o->probe ? serve_probes(o, &sec, err) : serve_listening(o, &sec, err);
    }
    key_clear(&key);
    return rc;
}

int cmd_worker(int argc, char **argv, pr_err *err)
{
    const struct sigaction a = {.sa_handler = on_signal};
    cmd_options o = {0};
    int rc = parse(&o, argc, argv, err);

    if (rc) return rc == OPTIONS_HELP ? PR_OK : rc;
    if ((rc = wake_init(&stop, err))) return rc;
    sigaction(SIGINT, &a, NULL);
    sigaction(SIGTERM, &a, NULL);
    rc = run(&o, err);
    wake_clear(&stop);
    return rc;
}
