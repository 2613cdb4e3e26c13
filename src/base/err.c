/* Error values: formatting only. Nothing here allocates, prints or exits; a message that does not fit is
 * cut and ends in "..." so that a reader sees the cut. */
#include "src/base/err.h"
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* Mark a message that vsnprintf had to cut. Steps back over a UTF-8 sequence so that no half is left. */
static void mark_cut(char *msg, size_t cap, int wanted)
{
    size_t end;

    if (wanted >= 0 && (size_t)wanted < cap) return;
    end = cap - sizeof "...";
    while (end > 0 && ((unsigned char)msg[end] & 0xC0) == 0x80) end--;
    memcpy(msg + end, "...", sizeof "...");
}

int pr_fail(pr_err *err, pr_code code, const char *fmt, ...)
{
    va_list ap;

    if (!err) return code;
    err->code = code;
    va_start(ap, fmt);
    mark_cut(err->msg, sizeof err->msg, vsnprintf(err->msg, sizeof err->msg, fmt, ap));
    va_end(ap);
    return code;
}

int pr_fail_errno(pr_err *err, pr_code code, const char *fmt, ...)
{
    int saved = errno;
    char what[PR_MSG_BYTES];
    va_list ap;

    if (!err) return code;
    va_start(ap, fmt);
    mark_cut(what, sizeof what, vsnprintf(what, sizeof what, fmt, ap));
    va_end(ap);
    pr_fail(err, code, "%s: %s", what, strerror(saved));
    errno = saved;
    return code;
}

int pr_wrap(pr_err *err, const char *fmt, ...)
{
    char context[PR_MSG_BYTES], rest[PR_MSG_BYTES];
    va_list ap;

    if (!err) return PR_EINTERNAL;
    va_start(ap, fmt);
    mark_cut(context, sizeof context, vsnprintf(context, sizeof context, fmt, ap));
    va_end(ap);
    memcpy(rest, err->msg, sizeof rest);
    return pr_fail(err, err->code, "%s: %s", context, rest);
}
