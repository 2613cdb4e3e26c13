/* What the tests of fetch.h share: a server with a body of some megabytes, a handle, a folder. */
#ifndef PRIMA_TESTS_FETCH_RIG_H
#define PRIMA_TESTS_FETCH_RIG_H
#include "net/fetch.h"
#include "src/base/log.h"
#include "tests/net/fetch_server.h"
#include <criterion/criterion.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#ifdef __linux__
#include <sys/mount.h>
#endif
#include <sys/stat.h>
#include <unistd.h>

enum { RIG_BYTES = 6000000 + 123 };
static uint8_t rig_data[RIG_BYTES];
static http_server site;
static fetch_options options;
static fetch *f;
static fetch_facts facts;
static pr_err err;
static char folder[64], path[100];

static inline void rig_setup(void)
{
    static const char *const proxies[] = {"http_proxy", "https_proxy", "all_proxy", "ALL_PROXY",
                                          "HTTPS_PROXY"};
    uint64_t x = 88172645463325252;

    for (size_t i = 0; i < sizeof proxies / sizeof *proxies; i++) unsetenv(proxies[i]);
    signal(SIGPIPE, SIG_IGN);
    log_setup(&(log_options){.level = LOG_ERROR});
    for (size_t i = 0; i < RIG_BYTES; i++) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        rig_data[i] = (uint8_t)(x >> 32) | 1; /* never 0: a hole is no data */
    }
    site = (http_server){.data = rig_data, .n = RIG_BYTES, .etag = "\"v1\""};
    cr_assert(http_start(&site));
    strcpy(folder, "/tmp/prima-fetch-XXXXXX");
    cr_assert(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/f", folder);
    options = (fetch_options){.jobs = 1};
}

static inline void rig_clear(void)
{
    char command[100];

    fetch_free(f);
    fetch_facts_clear(&facts);
#ifdef __linux__
    umount2(folder, MNT_DETACH); /* what a test has mounted there */
#endif
    snprintf(command, sizeof command, "rm -rf %s", folder);
    if (system(command)) cr_log_warn("%s is left", folder);
}

static inline void rig_open(void)
{
    cr_assert_eq(fetch_new(&f, &options, &err), PR_OK, "%s", err.msg);
}

static inline void rig_close(void)
{
    fetch_free(f);
    f = NULL;
    fetch_facts_clear(&facts);
}

static inline void rig_head(const char *name)
{
    cr_assert_eq(fetch_head(f, http_url(&site, name), &facts, &err), PR_OK, "%s", err.msg);
}

static inline uint8_t *rig_part(void)
{
    static uint8_t text[RIG_BYTES];
    char name[110];
    struct stat st;
    int fd;

    snprintf(name, sizeof name, "%s.part", path);
    cr_assert_eq((fd = open(name, O_RDONLY)) < 0, 0, "%s", name);
    cr_assert_eq(fstat(fd, &st), 0);
    cr_assert_eq((uint64_t)st.st_size, site.n);
    cr_assert_eq((uint64_t)read(fd, text, site.n), site.n);
    close(fd);
    return text;
}

static inline void rig_expect_bytes(uint64_t first, uint64_t end)
{
    cr_assert(memcmp(rig_part() + first, site.data + first, end - first) == 0, "bytes %d to %d", (int)first,
              (int)end);
}

static inline void rig_expect_hole(uint64_t first, uint64_t end)
{
    const uint8_t *text = rig_part();

    for (uint64_t at = first; at < end; at++) cr_assert_eq(text[at], 0, "byte %d was not asked for", (int)at);
}

static inline void rig_expect_no_part(void)
{
    char name[120];

    snprintf(name, sizeof name, "%s.part", path);
    cr_expect(access(name, F_OK), "%s is there", name);
    strcat(name, ".json");
    cr_expect(access(name, F_OK), "%s is there", name);
}

static inline void rig_fetch_whole(void)
{
    const fetch_range whole = {0, site.n};

    cr_assert_eq(fetch_ranges(f, &facts, path, &whole, 1, NULL, &err), PR_OK, "%s", err.msg);
    rig_expect_bytes(0, site.n);
}

#endif
