/* prima worker --probe: answers `prima profile --link` of the other devices, one after another, until a
 * signal ends it. Whoever does not hold the key, or says something else, is sent away with one line in the
 * log. */
#include "net/secure.h"
#include "src/base/log.h"
#include "src/cmd.h"
#include "src/options.h"
#include "src/probe_link.h"
#include <signal.h>
#include <stdio.h>

typedef struct {
    const char *listen, *key_file;
    bool probe, insecure;
} worker_options;

static const double GREETING_S = 5;          /* one client at a time: a silent one holds up the others */
static const unsigned LOST_AFTER_MS = 15000; /* the default of timeouts.peer */
static wake stop;

static void on_signal(int sig)
{
    (void)sig;
    wake_raise(&stop);
}

static int parse(worker_options *o, int argc, char **argv, pr_err *err)
{
    const opt table[] = {
        {"probe", 0, OPT_FLAG, &o->probe, NULL, 0, 0, "answer link measurements"},
        {"listen", 0, OPT_STRING, &o->listen, "ADDR:PORT", 0, 0,
         "where; port 0 takes a free one; the address is printed (127.0.0.1:9700)"},
        {"key-file", 0, OPT_STRING, &o->key_file, "FILE", 0, 0,
         "the cluster's key (PRIMA_KEY_FILE, else ~/.config/prima/cluster.key)"},
        {"insecure", 0, OPT_FLAG, &o->insecure, NULL, 0, 0, "no key and no encryption: anyone may connect"},
        {0}};
    const opt_spec spec = {"--probe [options]",
                           "Answers `prima profile --link` of other devices until it is ended by a signal.",
                           table, 0, 0};
    int first, rc = options_parse(&spec, argc, argv, &first, err);

    if (rc) return rc;
    return o->probe ? PR_OK : pr_fail(err, PR_EUSAGE, "expected --probe");
}

static void answer_client(sock *s, const security *sec)
{
    channel *c;
    pr_err why = {0};
    int rc = channel_open(&c, s, CHANNEL_SERVER, sec, sock_deadline(GREETING_S), &why);

    if (!rc) rc = probe_link_answer(c, &why);
    if (!rc) log_info("%s: measured the link (%s)", channel_peer(c), channel_cipher(c));
    else if (rc != PR_EINTERRUPTED) log_warn("%s", why.msg);
    channel_close(c);
}

static int serve(const worker_options *o, const security *sec, pr_err *err)
{
    const sock_options so = {.wake = &stop, .lost_after_ms = LOST_AFTER_MS};
    sock_addr at;
    sock_listener l = {.fd = -1};
    sock s;
    int rc;

    if ((rc = sock_addr_parse(&at, o->listen, true, err)) || (rc = sock_listen(&l, &at, &so, err))) {
        pr_wrap(err, "--listen");
        return rc;
    }
    printf("%s\n", l.address);
    fflush(stdout);
    log_info("listening on %s, %s%s", l.address, sec->key ? "for holders of key " : "INSECURE: for anyone",
             sec->key ? sec->key->id : "");
    if (l.is_loopback) log_info("only this machine can reach that: --listen ADDR:PORT opens it to a network");
    while (!(rc = sock_accept(&s, &l, SOCK_NO_DEADLINE, err))) answer_client(&s, sec);
    sock_listener_close(&l);
    return rc == PR_EINTERRUPTED ? PR_OK : rc; /* how a worker ends */
}

static int run(const worker_options *o, pr_err *err)
{
    const struct sigaction a = {.sa_handler = on_signal};
    cluster_key key;
    security sec;
    int rc = security_read(&sec, &key, o->key_file, o->insecure, err);

    if (!rc && !(rc = wake_init(&stop, err))) {
        sigaction(SIGINT, &a, NULL);
        sigaction(SIGTERM, &a, NULL);
        rc = serve(o, &sec, err);
        wake_clear(&stop);
    }
    key_clear(&key);
    return rc;
}

int cmd_worker(int argc, char **argv, pr_err *err)
{
    worker_options o = {.listen = "127.0.0.1:9700"};
    int rc = parse(&o, argc, argv, err);

    if (rc) return rc == OPTIONS_HELP ? PR_OK : rc;
    return run(&o, err);
}
