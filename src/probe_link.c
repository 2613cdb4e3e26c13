/* `prima profile --link`: its options, the connection, and where the figures go. How a link is measured:
 * net/probe.c. */
#include "src/probe_link.h"
#include "planner/profile.h"
#include "src/base/clock.h"
#include "src/base/log.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const double CONNECT_S = 5, GREETING_S = 10;
static const probe_effort EFFORT = {.echoes_s = 0.6, .bursts_s = 1};

/* --- options ----------------------------------------------------------------------------------------------
 */
static bool is_device_name(const char *s)
{
    size_t n = strlen(s);
    return n >= 1 && n < LINK_PEER_BYTES && strspn(s, "abcdefghijklmnopqrstuvwxyz0123456789-") == n;
}

static int peer_name(char out[LINK_PEER_BYTES], const link_options *o, const sock_addr *a, pr_err *err)
{
    const char *name = o->peer ? o->peer : a->host;

    if (!is_device_name(name)) {
        if (o->peer) return pr_fail(err, PR_EUSAGE, "--peer %s: expected 1 to 32 of a-z, 0-9 and -", o->peer);
        return pr_fail(err, PR_EUSAGE, "--link %s: add --peer NAME, what cluster.yaml calls that device",
                       o->address);
    }
    memcpy(out, name, strlen(name) + 1);
    return PR_OK;
}

static int read_options(sock_addr *a, char peer[LINK_PEER_BYTES], const link_options *o, pr_err *err)
{
    int rc = sock_addr_parse(a, o->address, false, err);

    if (!rc) return peer_name(peer, o, a, err);
    pr_wrap(err, "--link");
    return rc;
}

int link_options_check(const link_options *o, pr_err *err)
{
    sock_addr a;
    char peer[LINK_PEER_BYTES];

    if (!o->address && (o->peer || o->key_file || o->insecure))
        return pr_fail(err, PR_EUSAGE, "--peer, --key-file and --insecure go with --link");
    return o->address ? read_options(&a, peer, o, err) : PR_OK;
}

/* --- measuring --------------------------------------------------------------------------------------- */
static int connect_to(channel **out, const sock_addr *to, const security *sec, pr_err *err)
{
    const sock_options so = {0};
    sock s;
    int rc = sock_connect(&s, to, &so, true, sock_deadline(CONNECT_S), err);

    if (!rc) rc = channel_open(out, &s, CHANNEL_CLIENT, sec, sock_deadline(GREETING_S), err);
    return rc;
}

int probe_link(probe_figures *out, const link_options *o, pr_err *err)
{
    channel *c = NULL;
    cluster_key key;
    security sec;
    sock_addr to;
    char peer[LINK_PEER_BYTES];
    int rc;

    if ((rc = read_options(&to, peer, o, err))) return rc;
    if (!(rc = security_read(&sec, &key, o->key_file, o->insecure, err)) &&
        !(rc = connect_to(&c, &to, &sec, err))) {
        log_progress("link to %s: measuring", o->address);
        rc = probe_ask(out, c, &EFFORT, err);
        log_progress("%s", "");
        if (!rc)
            log_info("link to %s (%s, %s): %.3f ms round trip (spread %.0f %%), %.1f Mbit/s there (%.0f %%), "
                     "%.1f Mbit/s back (%.0f %%)",
                     peer, o->address, channel_cipher(c), out->rtt_ms, out->rtt_spread_pct,
                     out->out_bytes_per_s * 8e-6, out->out_spread_pct, out->in_bytes_per_s * 8e-6,
                     out->in_spread_pct);
    }
    channel_close(c);
    key_clear(&key);
    return rc;
}

/* --- into a profile
 * ----------------------------------------------------------------------------------------- */
static int put_entry(profile *p, const profile_net *entry, pr_err *err)
{
    size_t i = 0;

    while (i < p->n_net && strcmp(p->net[i].peer, entry->peer)) i++;
    if (i == PROFILE_MAX_NET)
        return pr_fail(err, PR_EUSAGE, "the profile holds links to %d devices already", PROFILE_MAX_NET);
    p->net[i] = *entry;
    if (i == p->n_net) p->n_net++;
    return PR_OK;
}

int probe_link_into(const char *path, const link_options *o, pr_err *err)
{
    probe_figures got;
    profile_net entry = {0};
    profile *p = NULL;
    sock_addr a;
    int rc;

    if ((rc = read_options(&a, entry.peer, o, err)) || (rc = probe_link(&got, o, err))) return rc;
    entry.bytes_per_s = round(fmin(got.out_bytes_per_s, got.in_bytes_per_s));
    entry.rtt_ms = round(got.rtt_ms * 1e3) / 1e3;
    if (!(rc = profile_read(&p, path, err)) && !(rc = put_entry(p, &entry, err)) &&
        !(rc = profile_write(p, path, err)))
        log_info("%s: the link to %s is in it", path, entry.peer);
    profile_free(p);
    return rc;
}
