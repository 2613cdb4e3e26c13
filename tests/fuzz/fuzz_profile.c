/* Any bytes as a profile: refused, or it can be asked, written, and read back the same. */
#include "planner/profile.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void must(bool ok)
{
    if (!ok) abort();
}

static void ask(const profile *p)
{
    for (int gpu = -1; gpu < (int)p->n_gpus; gpu++) {
        double rate = profile_gflops(p, gpu, "Q4_K", 3);
        must(isnan(rate) || (rate > 0 && isfinite(rate)));
    }
    must(profile_disk_bytes_per_s(p) >= 0);
    must((profile_disk_used(p) != NULL) == (profile_disk_bytes_per_s(p) > 0));
    must(profile_theta(p, 3) == -1 || (profile_theta(p, 3) >= 0 && profile_theta(p, 3) <= 1));
}

/* The file is replaced by each write: one name a process, gone when it ends. */
static char path[64];
static void remove_file(void)
{
    unlink(path);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    profile *p = NULL, *again = NULL;
    pr_err e = {0};

    if (!*path) {
        snprintf(path, sizeof path, "/tmp/prima-fuzz-profile-%ld", (long)getpid());
        atexit(remove_file);
    }
    if (profile_parse(&p, (const char *)data, n, &e)) {
        must(e.code == PR_EUSAGE && *e.msg && !p);
        return 0;
    }
    ask(p);
    must(profile_write(p, path, &e) == PR_OK);
    must(profile_read(&again, path, &e) == PR_OK);
    memcpy(again->sha256, p->sha256, sizeof p->sha256);
    must(!memcmp(p, again, sizeof *p));
    profile_free(p);
    profile_free(again);
    return 0;
}
