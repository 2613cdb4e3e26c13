/* cluster.yaml: the example and the paper's cluster are read; every refusal names line and column. */
#include "planner/cluster.h"
#include "planner/profile.h"
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define GIB ((uint64_t)1 << 30)

static cluster *parsed(const char *text)
{
    cluster *c = NULL;
    pr_err e = {0};

    cr_assert_eq(cluster_parse(&c, text, strlen(text), "c", &e), PR_OK, "%s", e.msg);
    return c;
}

static cluster *read_file(const char *path)
{
    cluster *c = NULL;
    pr_err e = {0};

    cr_assert_eq(cluster_read(&c, path, &e), PR_OK, "%s", e.msg);
    return c;
}

Test(cluster, example_has_every_key)
{
    cluster *c = read_file("cluster.yaml.example");
    const cluster_device *d = &c->device[0], *laptop = &c->device[1];

    cr_assert_str_eq(c->name, "home");
    cr_assert(c->secure);
    cr_assert_str_eq(c->key_file, "~/.config/prima/cluster.key");
    cr_assert_eq(c->connect_s, 120);
    cr_assert_eq(c->heartbeat_s, 2);
    cr_assert_eq(c->peer_s, 15);
    cr_assert_eq(c->n_devices, 2);
    cr_assert_str_eq(d->name, "desk");
    cr_assert_str_eq(d->host, "192.168.1.2");
    cr_assert_str_eq(d->ssh, "desk.local");
    cr_assert_eq(d->port, 9701);
    cr_assert_eq(d->ram_bytes, 9 * GIB);
    cr_assert_eq(d->threads, 8);
    cr_assert_eq(d->n_gpus, 1);
    cr_assert_eq(d->gpu[0].vram_bytes, 10 * GIB);
    cr_assert_str_eq(d->model, "/srv/models/qwq-32b-q4_k_m.gguf");
    cr_assert_str_eq(d->profile, "profiles/desk.json");
    cr_assert_eq(laptop->port, 9700);
    cr_assert_str_eq(laptop->user, "me");
    cr_assert_str_eq(laptop->model_dir, "/srv/models");
    cr_assert_eq(laptop->ram_bytes, 0);
    cr_assert_eq(laptop->reserve_bytes, 2 * GIB);
    cr_assert_eq(laptop->threads, 0);
    cr_assert_eq(c->n_links, 1);
    cr_assert_eq(c->link[0].from, 0);
    cr_assert_eq(c->link[0].to, 1);
    cr_assert_eq(c->link[0].mbit_per_s, 940);
    cr_assert_eq(c->link[0].rtt_ms, 0.4);
    cr_assert_eq(strlen(c->sha256), 64);
    cluster_free(c);
}

/* A model without a folder is in the device's folder of models. */
Test(cluster, model_dir_is_where_models_are)
{
    cluster *c = parsed("schema: prima/cluster/1\ncluster: x\ndefaults: {model_dir: /srv/models}\ndevices:\n"
                        "- {name: a, host: h1, model: a.gguf}\n- {name: b, host: h2, model: /x/b.gguf}\n"
                        "- {name: c, host: h3, model: sub/c.gguf, model_dir: \"/d\xC3\xA4ta\"}\n"
                        "- {name: d, host: h4}\n");

    cr_expect_str_eq(c->device[0].model, "/srv/models/a.gguf");
    cr_expect_str_eq(c->device[1].model, "/x/b.gguf");
    cr_expect_str_eq(c->device[2].model, "/d\xC3\xA4ta/sub/c.gguf");
    cr_expect_str_eq(c->device[3].model, "");
    cluster_free(c);
    c = parsed("schema: prima/cluster/1\ncluster: x\ndevices: [{name: a, host: h1, model: a.gguf}]\n");
    cr_expect_str_eq(c->device[0].model, "a.gguf");
    cluster_free(c);
}

Test(cluster, defaults_when_little_is_said)
{
    cluster *c = parsed("schema: prima/cluster/1\ncluster: x\ndevices: [{name: a, host: 10.0.0.1}]\n");
    const cluster_device *d = &c->device[0];

    cr_assert(c->secure);
    cr_assert_not(c->insecure_spelled_out);
    cr_assert_str_empty(c->key_file);
    cr_assert_eq(c->connect_s, 120);
    cr_assert_eq(c->heartbeat_s, 2);
    cr_assert_eq(c->peer_s, 15);
    cr_assert_eq(d->port, 9700);
    cr_assert_eq(d->reserve_bytes, GIB);
    cr_assert_eq(d->ram_bytes + d->threads + d->n_gpus + c->n_links, 0);
    cr_assert_str_empty(d->user);
    cr_assert_str_empty(d->profile);
    cr_assert_eq(d->line, 3);
    cluster_free(c);
}

/* The paper's devices with their published RAM, and profiles that are there and say what was assumed. */
Test(cluster, paper_home)
{
    static const struct {
        const char *name;
        double ram_gib, disk;
    } published[] = {{"d3-desktop", 9.7, 3.17e9},
                     {"d1-mac", 2.4, 0.72e9},
                     {"d2-laptop", 4.1, 2.98e9},
                     {"d4-phone", 1.9, 1.37e9}};
    cluster *c = read_file("datasets/clusters/paper-home.yaml");

    cr_assert_eq(c->n_devices, 4);
    cr_assert_eq(c->n_links, 6);
    for (size_t i = 0; i < c->n_devices; i++) {
        profile *p = NULL;
        pr_err e = {0};
        cr_assert_str_eq(c->device[i].name, published[i].name);
        cr_assert_eq(c->device[i].ram_bytes, (uint64_t)(published[i].ram_gib * (double)GIB));
        cr_assert_eq(profile_read(&p, c->device[i].profile, &e), PR_OK, "%s", e.msg);
        cr_assert_str_eq(p->device, c->device[i].name);
        cr_assert_eq(profile_disk_bytes_per_s(p), published[i].disk);
        cr_assert(strstr(p->note, "assumed: "));
        cr_assert_eq(p->n_gpus, c->device[i].n_gpus);
        for (size_t g = 0; g < p->n_gpus; g++)
            cr_assert_leq(c->device[i].gpu[g].vram_bytes, p->gpu[g].vram_free_bytes);
        profile_free(p);
    }
    cluster_free(c);
}

Test(cluster, profile_paths_are_meant_from_the_file)
{
    char dir[] = "/tmp/prima-cluster-XXXXXX", path[64], command[80];
    cluster *c;
    FILE *f;

    cr_assert_not_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/c.yaml", dir);
    f = fopen(path, "w");
    cr_assert_not_null(f);
    fputs("schema: prima/cluster/1\ncluster: x\ndevices:\n- {name: a, host: h1, profile: p/a.json}\n"
          "- {name: b, host: h2, profile: /p/b.json}\n- {name: c, host: h3}\n",
          f);
    fclose(f);
    c = read_file(path);
    snprintf(path, sizeof path, "%s/p/a.json", dir);
    cr_assert_str_eq(c->device[0].profile, path);
    cr_assert_str_eq(c->device[1].profile, "/p/b.json");
    cr_assert_str_empty(c->device[2].profile);
    cluster_free(c);
    snprintf(command, sizeof command, "rm -r %s", dir);
    cr_assert_eq(system(command), 0);
}

Test(cluster, file_that_is_not_there)
{
    cluster *c = NULL;
    pr_err e = {0};
    cr_assert_eq(cluster_read(&c, "/nonexistent/cluster.yaml", &e), PR_ERESOURCE);
    cr_assert(strstr(e.msg, "/nonexistent/cluster.yaml"));
}

/* --- refusals ------------------------------------------------------------------------------------------- */
#define HEAD "schema: prima/cluster/1\ncluster: x\n"
#define ONE  "devices:\n- {name: a, host: 10.0.0.1}\n"
#define TWO  ONE "- {name: b, host: 10.0.0.2}\n"

static const struct {
    const char *text, *message;
} refused[] = {
    {"cluster: x\n" ONE, "c:1:1: the key 'schema' is missing"},
    {"schema: prima/cluster/2\ncluster: x\n" ONE, "c:1:9: schema: 'prima/cluster/2' is another version"},
    {"- 1\n", "c:1:1: the file: expected a map"},
    {HEAD "device:\n", "c:3:1: unknown key 'device': did you mean 'devices'?"},
    {HEAD, "c:1:1: the file: the key 'devices' is missing"},
    {"schema: prima/cluster/1\n" ONE, "c:1:1: the file: the key 'cluster' is missing"},
    {HEAD "devices: []\n", "c:3:10: devices: the list is empty"},
    {HEAD "devices: {}\n", "c:3:10: devices: expected a list, found a map"},
    {HEAD "devices:\n- a\n", "c:4:3: devices: expected a map (key: value), found a single value"},
    {HEAD "devices:\n- {host: h}\n", "c:4:3: devices: the key 'name' is missing"},
    {HEAD "devices:\n- {name: a}\n", "c:4:3: devices: the key 'host' is missing"},
    {HEAD "devices:\n- {name: A, host: h}\n", "c:4:10: name: the character 'A' is not allowed"},
    {HEAD "devices:\n- {name: a\xC3\xA4, host: h}\n",
     "c:4:10: name: the character '\xC3\xA4' is not allowed"},
    {HEAD "devices:\n- {name: -a, host: h}\n", "c:4:10: name: '-a' begins with '-'"},
    {HEAD "devices:\n- {name: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa, host: h}\n",
     "c:4:10: name: a text of 1..32 bytes"},
    {HEAD "devices:\n- {name: a, host: -oProxyCommand=x}\n",
     "c:4:19: host: '-oProxyCommand=x' begins with '-'"},
    {HEAD "devices:\n- {name: a, host: 'h;ls'}\n", "c:4:19: host: the character ';' is not allowed"},
    {HEAD "devices:\n- {name: a, host: h, ssh: '-x'}\n", "c:4:27: ssh: '-x' begins with '-'"},
    {HEAD "devices:\n- {name: a, host: h, user: 'a b'}\n", "c:4:28: user: the character ' ' is not allowed"},
    {HEAD ONE "- {name: a, host: 10.0.0.2}\n", "c:5:10: name: 'a' is the device in line 4 already"},
    {HEAD ONE "- {name: b, host: 10.0.0.1}\n",
     "c:5:19: host: '10.0.0.1' port 9700 is the address of 'a' already"},
    {HEAD "devices:\n- {name: a, host: h, ram: 8G}\n", "c:4:27: ram: '8G' is no size: write 8GiB"},
    {HEAD "devices:\n- {name: a, host: h, ram: 1KiB}\n", "c:4:27: ram: 1KiB is outside 16777216.."},
    {HEAD "devices:\n- {name: a, host: h, ram: 65TiB}\n", "c:4:27: ram: 65TiB is outside"},
    {HEAD "devices:\n- {name: a, host: h, ram: 8GiB, reserve: 1GiB}\n",
     "c:4:42: reserve: has no meaning beside ram"},
    {HEAD "devices:\n- {name: a, host: h, threads: 0}\n", "c:4:31: threads: 0 is outside 1..4096"},
    {HEAD "devices:\n- {name: a, host: h, port: 65536}\n", "c:4:28: port: 65536 is outside 1..65535"},
    {HEAD "devices:\n- {name: a, host: h, gpus: {index: 0}}\n", "c:4:28: gpus: expected a list, found a map"},
    {HEAD "devices:\n- {name: a, host: h, gpus: [{index: 0}]}\n", "c:4:29: gpus: the key 'vram' is missing"},
    {HEAD "devices:\n- {name: a, host: h, gpus: [{vram: 1GiB}]}\n",
     "c:4:29: gpus: the key 'index' is missing"},
    {HEAD "devices:\n- {name: a, host: h, gpus: [{index: 1, vram: 1GiB}, {index: 1, vram: 1GiB}]}\n",
     "c:4:53: gpus: index 1 stands there twice"},
    {HEAD "devices:\n- {name: a, host: h, gpus: [0: 1]}\n", "c:4:29: unknown key '0'"},
    {HEAD "devices:\n- {name: a, host: h, modle: x}\n", "c:4:22: unknown key 'modle': did you mean 'model'?"},
    {HEAD "defaults: {prot: 1}\n" ONE, "c:3:12: unknown key 'prot': did you mean 'port'?"},
    {HEAD "defaults: {reserve: 1g}\n" ONE, "c:3:21: reserve: '1g' is no size"},
    {HEAD "timeouts: {peer: 15}\n" ONE, "c:3:18: peer: '15' has no unit"},
    {HEAD "timeouts: {peer: 3s}\n" ONE, "c:3:18: peer: 3s of silence is less than two heartbeats of 2s"},
    {HEAD "timeouts: {heartbeat: 10s}\n" ONE,
     "c:3:11: peer: 15s of silence is less than two heartbeats of 10s"},
    {HEAD "security: psk\n" ONE, "c:3:11: security: expected a map"},
    {HEAD "security: {mode: tls}\n" ONE, "c:3:18: mode: expected one of psk, none, found 'tls'"},
    {HEAD "security: {mode: none}\n" ONE, "c:3:18: mode: none leaves 'a' (10.0.0.1) open to its network"},
    {HEAD "security: {mode: psk, insecure: true}\n" ONE, "c:3:33: insecure: true goes with mode: none"},
    {HEAD TWO "links: [{from: a, to: c, mbit_per_s: 1, rtt_ms: 1}]\n", "c:6:23: to: no device is called 'c'"},
    {HEAD TWO "links: [{from: a, to: a, mbit_per_s: 1, rtt_ms: 1}]\n",
     "c:6:9: links: from and to are the same"},
    {HEAD TWO "links: [{from: a, to: b, rtt_ms: 1}]\n", "c:6:9: links: the key 'mbit_per_s' is missing"},
    {HEAD TWO "links: [{from: a, to: b, mbit_per_s: 0, rtt_ms: 1}]\n", "c:6:38: mbit_per_s: 0 is outside"},
    {HEAD TWO "links: [{from: a, to: b, mbit_per_s: 1, rtt_ms: -1}]\n",
     "c:6:49: rtt_ms: -1 is outside 0..60000"},
    {HEAD TWO
     "links:\n- {from: a, to: b, mbit_per_s: 1, rtt_ms: 1}\n- {from: b, to: a, mbit_per_s: 1, rtt_ms: 1}\n",
     "c:8:3: links: 'b' and 'a' are linked already"},
};

Test(cluster, refuses_with_line_and_column)
{
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        cluster *c = NULL;
        pr_err e = {0};
        cr_expect_eq(cluster_parse(&c, refused[i].text, strlen(refused[i].text), "c", &e), PR_EUSAGE,
                     "accepted: %s", refused[i].text);
        cr_expect(!strncmp(e.msg, refused[i].message, strlen(refused[i].message)),
                  "got \"%s\", expected \"%s\"", e.msg, refused[i].message);
        cr_expect_null(c);
    }
}

Test(cluster, open_network)
{
    static const char *const fine[] = {
        HEAD "security: {mode: none, insecure: true}\n" ONE,
        HEAD "security: {mode: none}\ndevices: [{name: a, host: 127.0.0.1}, {name: b, host: '::1'}, "
             "{name: c, host: localhost}, {name: d, host: 127.0.0.1, port: 9}]\n"};

    for (size_t i = 0; i < 2; i++) {
        cluster *c = parsed(fine[i]);
        cr_assert_not(c->secure);
        cr_assert_eq(c->insecure_spelled_out, i == 0);
        cluster_free(c);
    }
}

/* n devices "dI"; one more than 64 is refused. */
static int parse_devices(int n, cluster **c, pr_err *e)
{
    char *text = NULL;
    size_t size;
    FILE *f = open_memstream(&text, &size);
    int rc;

    fputs(HEAD "devices:\n", f);
    for (int i = 0; i < n; i++) fprintf(f, "- {name: d%d, host: h%d}\n", i, i);
    fclose(f);
    rc = cluster_parse(c, text, size, "c", e);
    free(text);
    return rc;
}

Test(cluster, at_most_256_devices)
{
    cluster *c = NULL;
    pr_err e = {0};

    cr_assert_eq(parse_devices(CLUSTER_MAX_DEVICES, &c, &e), PR_OK, "%s", e.msg);
    cr_assert_eq(c->n_devices, CLUSTER_MAX_DEVICES);
    cluster_free(c);
    cr_assert_eq(parse_devices(CLUSTER_MAX_DEVICES + 1, &c, &e), PR_EUSAGE);
    cr_assert_str_eq(e.msg, "c:260:3: devices: more than 256");
}
