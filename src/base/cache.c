/* The cache folder; see cache.h. */
#include "src/base/cache.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

/* An empty variable counts as not set, as the XDG specification has it. */
static const char *variable(const char *name)
{
    const char *v = getenv(name);
    return v && *v ? v : NULL;
}

static int make_folders(char *path, pr_err *err)
{
    for (char *c = path + 1; *c; c++) {
        if (*c != '/') continue;
        *c = 0;
        int failed = mkdir(path, 0755) && errno != EEXIST;
        if (failed) return pr_fail_errno(err, PR_ERESOURCE, "%s: making the folder", path);
        *c = '/';
    }
    return PR_OK;
}

int cache_path(char *out, size_t n, const char *name, pr_err *err)
{
    const char *cache = variable("PRIMA_CACHE"), *xdg = variable("XDG_CACHE_HOME"), *home = variable("HOME");
    int length;

    if (cache) length = snprintf(out, n, "%s/%s", cache, name);
    else if (xdg) length = snprintf(out, n, "%s/prima/%s", xdg, name);
    else if (home) length = snprintf(out, n, "%s/.cache/prima/%s", home, name);
    else
        return pr_fail(err, PR_EUSAGE,
                       "no place for the cache: set PRIMA_CACHE to a folder (XDG_CACHE_HOME and HOME are not "
                       "set either)");
    if (length < 0 || (size_t)length >= n)
        return pr_fail(err, PR_EUSAGE, "the cache folder's path is too long");
    return make_folders(out, err);
}
