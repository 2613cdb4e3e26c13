/* Fetching under ThreadSanitizer: bytes go into PATH.part while another thread syncs them and saves the
 * journal. A local file is the source, and a slow progress call makes it last long enough for some journals;
 * then the same again, stopped in the middle. Prints TAP. */
#include "net/fetch.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { BYTES = 12 << 20 };

static int stop;
static uint64_t stop_at;

static void slow(void *arg, uint64_t done, uint64_t total)
{
    (void)arg;
    (void)total;
    nanosleep(&(struct timespec){.tv_nsec = 160000000}, NULL);
    if (done >= stop_at) stop = 1;
}

/* Fetches as far as stop_at; whether it ended as expected, with that much done. */
static int fetches(const char *source, const char *path, uint64_t until, uint64_t had)
{
    const fetch_options o = {.jobs = 1, .stop = &stop, .progress = slow};
    const fetch_range whole = {0, BYTES};
    fetch *f = NULL;
    fetch_facts x = {0};
    uint64_t resumed = 0;
    pr_err err = {0};
    int rc = PR_EINTERNAL;

    stop = 0;
    stop_at = until;
    if (!fetch_new(&f, &o, &err) && !fetch_head(f, source, &x, &err))
        rc = fetch_ranges(f, &x, path, &whole, 1, &resumed, &err);
    if (rc) printf("# %s\n", err.msg);
    fetch_facts_clear(&x);
    fetch_free(f);
    return rc == (until < BYTES ? PR_EINTERRUPTED : PR_OK) && resumed >= had;
}

int main(void)
{
    char folder[] = "/tmp/prima-tsan-XXXXXX", source[40], path[40];
    char *data = malloc(BYTES);
    FILE *out;
    int ok;

    if (!data || !mkdtemp(folder)) return 1;
    snprintf(source, sizeof source, "%s/source", folder);
    snprintf(path, sizeof path, "%s/f", folder);
    memset(data, 7, BYTES);
    if (!(out = fopen(source, "w")) || fwrite(data, 1, BYTES, out) != BYTES || fclose(out)) return 1;
    free(data);
    ok = fetches(source, path, BYTES / 2, 0) && fetches(source, path, BYTES + 1, BYTES / 2);
    printf("%s 1 - bytes, journals and a stop\n1..1\n", ok ? "ok" : "not ok");
    fetch_discard(path);
    unlink(source);
    rmdir(folder);
    return !ok;
}
