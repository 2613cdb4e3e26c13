/* The runtime's reader (src/base/disk_read.h) in a profile: under which names its figures stand there, and
 * the options that read as they were measured. */
#ifndef PRIMA_DISK_BEST_H
#define PRIMA_DISK_BEST_H
#include "planner/profile.h"
#include "src/base/disk_read.h"

/* profile_disk.engine of what it measures: "prima-uring" or "prima-pread". AUTO has no name: NULL. */
const char *disk_engine_name(disk_read_engine e);
/* Options for engine, mode, block size and depth of a measurement; limit and idle class are left out. false,
 * and *o as it was: not of our reader (fio, imported), or not what it can do (a profile is a user's file). */
bool disk_options_of(disk_read_options *o, const profile_disk *d);
/* Those of the measurement that plans count on (profile_disk_used); all defaults when it is not of our
 * reader.
 */
disk_read_options disk_best(const profile *p);

#endif
