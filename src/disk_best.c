#include "src/disk_best.h"
#include <string.h>

const char *disk_engine_name(disk_read_engine e)
{
    switch (e) {
    case DISK_READ_URING: return "prima-uring";
    case DISK_READ_PREAD: return "prima-pread";
    case DISK_READ_AUTO: break;
    }
    return NULL;
}

bool disk_options_of(disk_read_options *o, const profile_disk *d)
{
    disk_read_engine e = DISK_READ_URING;

    if (strcmp(d->engine, disk_engine_name(e)) && strcmp(d->engine, disk_engine_name(e = DISK_READ_PREAD)))
        return false;
    if (strcmp(d->pattern, "seq") || d->bs_bytes < DISK_READ_ALIGN || d->bs_bytes > DISK_READ_MAX_BLOCK ||
        (d->bs_bytes & (d->bs_bytes - 1)) || !d->iodepth || d->iodepth > DISK_READ_MAX_DEPTH)
        return false;
    o->engine = e;
    o->mode = d->direct ? DISK_READ_DIRECT : DISK_READ_BUFFERED;
    o->block_bytes = (size_t)d->bs_bytes;
    o->depth = d->iodepth;
    return true;
}

disk_read_options disk_best(const profile *p)
{
    const profile_disk *used = profile_disk_used(p);
    disk_read_options o = {0};

    if (used) disk_options_of(&o, used);
    return o;
}
