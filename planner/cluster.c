/* cluster.yaml -> struct cluster: one function per section of the file, every value range-checked where it is
 * read, then what only shows when all is known (names that are not there, two devices at one address, an open
 * network without a key). The reader of yaml.h keeps the first error. */
#include "planner/cluster.h"
#include "planner/yaml.h"
#include "src/base/file.h"
#include "src/base/hash.h"
#include <stdlib.h>
#include <string.h>

#define MIB ((uint64_t)1 << 20)
#define TIB ((uint64_t)1 << 40)
enum { CLUSTER_MAX_BYTES = 1 << 20, MAX_GPU_INDEX = 255, MAX_THREADS = 4096 };

#define LETTERS  "abcdefghijklmnopqrstuvwxyz"
#define CAPITALS "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
#define DIGITS   "0123456789"

typedef struct {
    yaml_tree *t;
    cluster *c;
    /* what a device takes when it says nothing */
    uint16_t port;
    uint64_t reserve_bytes;
    char user[64], model_dir[1024];
} reader;

/* --- texts that end up in a command line or an address -------------------------------------------------- */
/* Bytes of the UTF-8 character that begins with this one. */
static int character_bytes(char first)
{
    unsigned char c = (unsigned char)first;

    return c < 0x80 ? 1 : c < 0xE0 ? 2 : c < 0xF0 ? 3 : 4;
}

/* Text of these characters only, not beginning with '-': ssh would take it for an option. */
static void read_word(reader *r, const yaml_item *item, char *dst, size_t cap, const char *allowed)
{
    const char *odd;

    if (!yaml_text(r->t, item, dst, cap)) return;
    odd = dst + strspn(dst, allowed);
    if (dst[0] == '-') yaml_fail(r->t, item, "%s: '%.64s' begins with '-'", item->key, dst);
    else if (*odd)
        yaml_fail(r->t, item, "%s: the character '%.*s' is not allowed in '%.256s'", item->key,
                  character_bytes(*odd), odd, dst);
}

static void read_host(reader *r, const yaml_item *item, char *dst, size_t cap)
{
    read_word(r, item, dst, cap, LETTERS CAPITALS DIGITS ".:-_%");
}

static void read_user(reader *r, const yaml_item *item, char *dst, size_t cap)
{
    read_word(r, item, dst, cap, LETTERS CAPITALS DIGITS ".-_");
}

static bool is_loopback(const char *host)
{
    return !strcmp(host, "localhost") || !strncmp(host, "127.", 4) || !strcmp(host, "::1");
}

/* --- sections ------------------------------------------------------------------------------------------- */
static void read_security(reader *r, const yaml_item *s)
{
    static const char *const keys[] = {"mode", "key_file", "insecure", NULL}, *const modes[] = {"psk", "none",
                                                                                                NULL};
    const yaml_item *insecure = yaml_get(s, "insecure");

    r->c->secure = true;
    if (!yaml_keys(r->t, s, keys)) return;
    r->c->secure = yaml_choice(r->t, yaml_get(s, "mode"), modes, 0) == 0;
    r->c->insecure_spelled_out = yaml_bool(r->t, insecure, false);
    yaml_text(r->t, yaml_get(s, "key_file"), r->c->key_file, sizeof r->c->key_file);
    if (r->c->secure && r->c->insecure_spelled_out)
        yaml_fail(r->t, insecure, "insecure: true goes with mode: none; with mode: psk leave it out");
}

static void read_defaults(reader *r, const yaml_item *d)
{
    static const char *const keys[] = {"port", "user", "reserve", "model_dir", NULL};

    if (!yaml_keys(r->t, d, keys)) return;
    r->port = (uint16_t)yaml_uint(r->t, yaml_get(d, "port"), 1, 65535, r->port);
    r->reserve_bytes = yaml_size(r->t, yaml_get(d, "reserve"), 0, TIB, r->reserve_bytes);
    read_user(r, yaml_get(d, "user"), r->user, sizeof r->user);
    yaml_text(r->t, yaml_get(d, "model_dir"), r->model_dir, sizeof r->model_dir);
}

static void read_timeouts(reader *r, const yaml_item *s)
{
    static const char *const keys[] = {"connect", "heartbeat", "peer", NULL};
    cluster *c = r->c;

    c->connect_s = yaml_seconds(r->t, yaml_get(s, "connect"), 1, 3600, 120);
    c->heartbeat_s = yaml_seconds(r->t, yaml_get(s, "heartbeat"), 0.1, 60, 2);
    c->peer_s = yaml_seconds(r->t, yaml_get(s, "peer"), 0.5, 3600, 15);
    if (!yaml_keys(r->t, s, keys)) return;
    if (c->peer_s < 2 * c->heartbeat_s)
        yaml_fail(r->t, yaml_get(s, "peer") ? yaml_get(s, "peer") : s,
                  "peer: %gs of silence is less than two heartbeats of %gs: a live device would be given up",
                  c->peer_s, c->heartbeat_s);
}

static void read_gpus(reader *r, const yaml_item *list, cluster_device *d)
{
    static const char *const keys[] = {"index", "vram", NULL};

    if (!yaml_is_list(r->t, list)) return;
    for (const yaml_item *g = list->first; g; g = g->next) {
        if (d->n_gpus == CLUSTER_MAX_GPUS) {
            yaml_fail(r->t, g, "gpus: more than %d on one device", CLUSTER_MAX_GPUS);
            return;
        }
        cluster_gpu *gpu = &d->gpu[d->n_gpus];
        if (!yaml_keys(r->t, g, keys)) return;
        gpu->index = (uint32_t)yaml_uint(r->t, yaml_need(r->t, g, "index"), 0, MAX_GPU_INDEX, 0);
        gpu->vram_bytes = yaml_size(r->t, yaml_need(r->t, g, "vram"), 64 * MIB, TIB, 0);
        for (size_t i = 0; i < d->n_gpus; i++) {
            if (d->gpu[i].index == gpu->index)
                yaml_fail(r->t, g, "gpus: index %u stands there twice", (unsigned)gpu->index);
        }
        d->n_gpus++;
    }
}

static void read_budget(reader *r, const yaml_item *item, cluster_device *d)
{
    const yaml_item *ram = yaml_get(item, "ram"), *reserve = yaml_get(item, "reserve");

    d->ram_bytes = yaml_size(r->t, ram, 16 * MIB, 64 * TIB, 0);
    d->reserve_bytes = yaml_size(r->t, reserve, 0, TIB, r->reserve_bytes);
    if (ram && reserve)
        yaml_fail(r->t, reserve,
                  "reserve: has no meaning beside ram, which is the budget itself: leave out one "
                  "of them");
}

static const cluster_device *find_device(const cluster *c, const char *name)
{
    for (size_t i = 0; i < c->n_devices; i++) {
        if (!strcmp(c->device[i].name, name)) return &c->device[i];
    }
    return NULL;
}

/* Name and address of a device must be its own. */
static void check_unique(reader *r, const yaml_item *item, const cluster_device *d)
{
    const cluster_device *twin = find_device(r->c, d->name);

    if (twin)
        yaml_fail(r->t, yaml_get(item, "name"), "name: '%s' is the device in line %u already", d->name,
                  twin->line);
    for (size_t i = 0; i < r->c->n_devices; i++) {
        twin = &r->c->device[i];
        if (twin->port == d->port && !strcmp(twin->host, d->host))
            yaml_fail(r->t, yaml_get(item, "host"),
                      "host: '%.64s' port %u is the address of '%s' already: give one "
                      "of them another port",
                      d->host, (unsigned)d->port, twin->name);
    }
}

/* A name without a folder is meant from the device's folder of models. */
static void read_model(reader *r, const yaml_item *item, cluster_device *d)
{
    size_t n = strlen(d->model_dir), len;

    if (!yaml_text(r->t, item, d->model, sizeof d->model) || !n || *d->model == '/') return;
    len = strlen(d->model);
    if (n + 1 + len >= sizeof d->model) {
        yaml_fail(r->t, item, "model: with model_dir before it longer than %zu bytes", sizeof d->model - 1);
        return;
    }
    memmove(d->model + n + 1, d->model, len + 1);
    memcpy(d->model, d->model_dir, n);
    d->model[n] = '/';
}

static void read_device(reader *r, const yaml_item *item)
{
    static const char *const keys[] = {"name",    "host",  "ssh",       "port",    "user", "ram", "reserve",
                                       "threads", "model", "model_dir", "profile", "gpus", NULL};
    cluster_device *d = &r->c->device[r->c->n_devices];

    if (!yaml_keys(r->t, item, keys)) return;
    d->line = item->line;
    read_word(r, yaml_need(r->t, item, "name"), d->name, sizeof d->name, LETTERS DIGITS "-");
    read_host(r, yaml_need(r->t, item, "host"), d->host, sizeof d->host);
    read_word(r, yaml_get(item, "ssh"), d->ssh, sizeof d->ssh, LETTERS CAPITALS DIGITS ".:-_%@");
    memcpy(d->user, r->user, sizeof d->user);
    read_user(r, yaml_get(item, "user"), d->user, sizeof d->user);
    d->port = (uint16_t)yaml_uint(r->t, yaml_get(item, "port"), 1, 65535, r->port);
    read_budget(r, item, d);
    d->threads = (uint32_t)yaml_uint(r->t, yaml_get(item, "threads"), 1, MAX_THREADS, 0);
    read_gpus(r, yaml_get(item, "gpus"), d);
    memcpy(d->model_dir, r->model_dir, sizeof d->model_dir);
    yaml_text(r->t, yaml_get(item, "model_dir"), d->model_dir, sizeof d->model_dir);
    read_model(r, yaml_get(item, "model"), d);
    yaml_text(r->t, yaml_get(item, "profile"), d->profile, sizeof d->profile);
    check_unique(r, item, d);
    r->c->n_devices++;
}

static void read_devices(reader *r, const yaml_item *list)
{
    if (!yaml_is_list(r->t, list)) return;
    if (!list->first) yaml_fail(r->t, list, "devices: the list is empty, a cluster has at least one");
    for (const yaml_item *d = list->first; d && !yaml_failed(r->t); d = d->next) {
        if (r->c->n_devices == CLUSTER_MAX_DEVICES) {
            yaml_fail(r->t, d, "devices: more than %d", CLUSTER_MAX_DEVICES);
            return;
        }
        read_device(r, d);
    }
}

/* An end of a link: the index of a device. */
static uint32_t read_end(reader *r, const yaml_item *item)
{
    char name[33] = "";
    const cluster_device *d;

    if (!yaml_text(r->t, item, name, sizeof name)) return 0;
    if ((d = find_device(r->c, name))) return (uint32_t)(d - r->c->device);
    yaml_fail(r->t, item, "%s: no device is called '%s'", item->key, name);
    return 0;
}

static bool same_pair(const cluster_link *a, const cluster_link *b)
{
    return (a->from == b->from && a->to == b->to) || (a->from == b->to && a->to == b->from);
}

static void read_link(reader *r, const yaml_item *item)
{
    static const char *const keys[] = {"from", "to", "mbit_per_s", "rtt_ms", NULL};
    cluster_link *l = &r->c->link[r->c->n_links];

    if (!yaml_keys(r->t, item, keys)) return;
    l->from = read_end(r, yaml_need(r->t, item, "from"));
    l->to = read_end(r, yaml_need(r->t, item, "to"));
    l->mbit_per_s = yaml_number(r->t, yaml_need(r->t, item, "mbit_per_s"), 0.01, 1e7, 1);
    l->rtt_ms = yaml_number(r->t, yaml_need(r->t, item, "rtt_ms"), 0, 60000, 0);
    if (l->from == l->to) yaml_fail(r->t, item, "links: from and to are the same device");
    for (size_t i = 0; i < r->c->n_links; i++) {
        if (same_pair(&r->c->link[i], l))
            yaml_fail(r->t, item, "links: '%s' and '%s' are linked already; a link counts in both directions",
                      r->c->device[l->from].name, r->c->device[l->to].name);
    }
    r->c->n_links++;
}

static void read_links(reader *r, const yaml_item *list)
{
    if (!yaml_is_list(r->t, list)) return;
    for (const yaml_item *l = list->first; l && !yaml_failed(r->t); l = l->next) {
        if (r->c->n_links == CLUSTER_MAX_LINKS) {
            yaml_fail(r->t, l, "links: more than %d", CLUSTER_MAX_LINKS);
            return;
        }
        read_link(r, l);
    }
}

/* Without a key whoever reaches a port takes part: only inside one machine, or when it is spelled out. */
static void check_open_network(reader *r, const yaml_item *security)
{
    if (r->c->secure || r->c->insecure_spelled_out) return;
    for (size_t i = 0; i < r->c->n_devices; i++) {
        if (is_loopback(r->c->device[i].host)) continue;
        yaml_fail(r->t, yaml_get(security, "mode"),
                  "mode: none leaves '%s' (%.64s) open to its network: use mode: psk, or write insecure: "
                  "true beside "
                  "it",
                  r->c->device[i].name, r->c->device[i].host);
        return;
    }
}

static void read_file(reader *r, const yaml_item *root)
{
    static const char *const keys[] = {"schema",   "cluster", "security", "defaults",
                                       "timeouts", "devices", "links",    NULL};

    yaml_schema(r->t, root, "cluster");
    if (!yaml_keys(r->t, root, keys)) return;
    yaml_text(r->t, yaml_need(r->t, root, "cluster"), r->c->name, sizeof r->c->name);
    read_security(r, yaml_get(root, "security"));
    read_defaults(r, yaml_get(root, "defaults"));
    read_timeouts(r, yaml_get(root, "timeouts"));
    read_devices(r, yaml_need(r->t, root, "devices"));
    read_links(r, yaml_get(root, "links"));
    check_open_network(r, yaml_get(root, "security"));
}

int cluster_parse(cluster **out, const char *text, size_t n, const char *name_for_errors, pr_err *err)
{
    reader r = {.port = 9700, .reserve_bytes = 1024 * MIB};
    int rc = yaml_parse(&r.t, text, n, name_for_errors, err);

    if (rc) return rc;
    r.c = calloc(1, sizeof *r.c);
    if (!r.c) {
        rc = pr_fail(err, PR_ERESOURCE, "%s: out of memory", name_for_errors);
    } else {
        read_file(&r, yaml_root(r.t));
        rc = yaml_error(r.t, err);
    }
    yaml_free(r.t);
    if (rc) {
        cluster_free(r.c);
        return rc;
    }
    hash_sha256_hex(text, n, r.c->sha256);
    *out = r.c;
    return PR_OK;
}

/* A profile's path is meant from the folder of the cluster file, wherever prima is called. */
static int resolve_profiles(cluster *c, const char *path, pr_err *err)
{
    const char *slash = strrchr(path, '/');
    size_t n = slash ? (size_t)(slash - path) + 1 : 0;

    for (size_t i = 0; i < c->n_devices && n; i++) {
        char *profile = c->device[i].profile;
        size_t len = strlen(profile);
        if (!len || *profile == '/' || *profile == '~') continue;
        if (n + len >= sizeof c->device[i].profile)
            return pr_fail(err, PR_EUSAGE, "%s:%u: profile: the path is longer than %zu bytes", path,
                           c->device[i].line, sizeof c->device[i].profile - 1);
        memmove(profile + n, profile, len + 1);
        memcpy(profile, path, n);
    }
    return PR_OK;
}

int cluster_read(cluster **out, const char *path, pr_err *err)
{
    char *text;
    size_t n;
    cluster *c = NULL;
    int rc = file_slurp(&text, &n, path, CLUSTER_MAX_BYTES, err);

    if (rc) return rc;
    rc = cluster_parse(&c, text, n, path, err);
    free(text);
    if (!rc) rc = resolve_profiles(c, path, err);
    if (rc) {
        cluster_free(c);
        return rc;
    }
    *out = c;
    return PR_OK;
}

void cluster_free(cluster *c)
{
    free(c);
}
