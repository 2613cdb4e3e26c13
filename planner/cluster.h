/* cluster.yaml -> checked cluster (conventions 5). libyaml; schema decides types; unknown or duplicate keys,
 * anchors and tags are refused; every error is "FILE:LINE:COL: ...". The same reader (yaml.h) serves shape
 * and plan files. */
#ifndef PRIMA_PLANNER_CLUSTER_H
#define PRIMA_PLANNER_CLUSTER_H
#include "src/base/err.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { CLUSTER_MAX_DEVICES = 256, CLUSTER_MAX_GPUS = 8, CLUSTER_MAX_LINKS = 8192 };

typedef struct {
    uint32_t index;
    uint64_t vram_bytes;
} cluster_gpu;

typedef struct {
    char name[33];
    char host[256], ssh[256], user[64], model[1024], model_dir[1024]; /* "" = not given; as written,
                          but `model` with model_dir before it unless it is absolute */
    char reader[48];    /* how it reads what is streamed (disk_read_words), from its profile; "" = nobody
                           measured */
    char profile[1024]; /* cluster_read: from the folder of the cluster file, unless absolute; "" = not given
                         */
    uint16_t port;
    uint64_t ram_bytes;     /* budget; 0 = not given: the profile's available RAM less reserve */
    uint64_t reserve_bytes; /* left to the user when ram is not given */
    uint32_t threads;       /* 0 = all */
    size_t n_gpus;
    cluster_gpu gpu[CLUSTER_MAX_GPUS];
    unsigned line; /* in the file, for messages */
} cluster_device;

typedef struct {
    uint32_t from, to;
    double mbit_per_s, rtt_ms;
} cluster_link; /* device indices; both directions */

typedef struct {
    char name[64];
    bool secure, insecure_spelled_out;
    char key_file[1024]; /* as written, "~" not expanded; "" = PRIMA_KEY_FILE or its default */
    double connect_s, heartbeat_s, peer_s;
    size_t n_devices, n_links;
    cluster_device device[CLUSTER_MAX_DEVICES];
    cluster_link link[CLUSTER_MAX_LINKS];
    char sha256[65]; /* of the file's bytes */
} cluster;

/* PR_EUSAGE "file:line:col: ..."; PR_ERESOURCE when it cannot be read. Heap-allocated; free with
 * cluster_free. */
int cluster_read(cluster **out, const char *path, pr_err *err);
int cluster_parse(cluster **out, const char *text, size_t n, const char *name_for_errors, pr_err *err);
void cluster_free(cluster *c);

#endif
