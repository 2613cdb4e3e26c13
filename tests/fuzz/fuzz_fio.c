/* Any bytes as the output of fio: refused, or figures that a profile can hold as they are. */
#include "src/fio.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void must(bool ok)
{
    if (!ok) abort();
}

static void check(const profile_disk *d)
{
    must(!strcmp(d->pattern, "seq") || !strcmp(d->pattern, "rand"));
    must(*d->engine && memchr(d->engine, 0, sizeof d->engine));
    must(d->bs_bytes >= 1 && d->bs_bytes <= (uint64_t)1 << 30);
    must(d->iodepth >= 1 && d->iodepth <= 65536 && d->reps >= 1);
    must(isfinite(d->read_bytes_per_s) && d->read_bytes_per_s >= 1);
    must(isfinite(d->iops) && d->iops >= 0);
    must(isfinite(d->clat_p50_us) && d->clat_p50_us >= 0 && isfinite(d->clat_p99_us) && d->clat_p99_us >= 0);
    must(isfinite(d->spread_pct) && d->spread_pct >= 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    profile_disk d[PROFILE_MAX_DISK];
    char version[FIO_VERSION_BYTES];
    size_t found = 0;
    pr_err err;

    if (fio_parse(d, &found, version, (const char *)data, n, &err)) {
        must(*err.msg && err.code == PR_EINTEGRITY);
        return 0;
    }
    must(found >= 1 && found <= PROFILE_MAX_DISK && memchr(version, 0, sizeof version));
    for (size_t i = 0; i < found; i++) check(&d[i]);
    return 0;
}
