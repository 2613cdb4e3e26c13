/* Where the hub is and who we are there, from the environment, by the rules of the hub's own client:
 * HF_TOKEN, else the file HF_TOKEN_PATH, else $HF_HOME/token, where HF_HOME is $XDG_CACHE_HOME/huggingface or
 * ~/.cache/huggingface when it is not set.
 *
 * A token goes into a header: what holds anything but printable ASCII is refused, and never shown. */
#include "src/base/file.h"
#include "src/base/log.h"
#include "src/pull/hub.h"
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

enum { TOKEN_BYTES = 4096 };

/* NULL also when it is set to nothing. */
static const char *env(const char *name)
{
    const char *v = getenv(name);
    return v && *v ? v : NULL;
}

static bool is_true(const char *v)
{
    static const char *const yes[] = {"1", "on", "yes", "true"};

    for (size_t i = 0; v && i < sizeof yes / sizeof *yes; i++) {
        if (strcasecmp(v, yes[i]) == 0) return true;
    }
    return false;
}

/* --- endpoint ------------------------------------------------------------------------------------------ */
static int set_endpoint(hub *h, pr_err *err)
{
    const char *v = env("HF_ENDPOINT"), *host;
    size_t n;

    if (!v) v = HUB_DEFAULT;
    host = strstr(v, "://");
    if (!host || (strncmp(v, "https://", 8) != 0 && strncmp(v, "http://", 7) != 0) || !host[3] ||
        host[3] == '/' || strpbrk(v, " \t\r\n?#@"))
        return pr_fail(err, PR_EUSAGE, "HF_ENDPOINT is not the address of a hub: expected something like %s",
                       HUB_DEFAULT);
    host += 3;
    for (n = strlen(v); v[n - 1] == '/';) n--;
    h->endpoint = strndup(v, n);
    h->origin = strndup(v, (size_t)(host - v) + strcspn(host, "/"));
    return h->endpoint && h->origin ? PR_OK : pr_fail(err, PR_ERESOURCE, "out of memory");
}

/* --- token --------------------------------------------------------------------------------------------- */
static int token_path(char out[PATH_MAX], bool *explicitly)
{
    const char *v;

    *explicitly = true;
    if ((v = env("HF_TOKEN_PATH"))) return snprintf(out, PATH_MAX, "%s", v) < PATH_MAX;
    *explicitly = false;
    if ((v = env("HF_HOME"))) return snprintf(out, PATH_MAX, "%s/token", v) < PATH_MAX;
    if ((v = env("XDG_CACHE_HOME"))) return snprintf(out, PATH_MAX, "%s/huggingface/token", v) < PATH_MAX;
    if ((v = env("HOME"))) return snprintf(out, PATH_MAX, "%s/.cache/huggingface/token", v) < PATH_MAX;
    return false;
}

/* The text without the white space around it, from `from`; both copied. Nothing else there: no token. */
static int take_token(hub *h, const char *text, const char *from, pr_err *err)
{
    size_t n;

    text += strspn(text, " \t\r\n");
    n = strlen(text);
    while (n && strchr(" \t\r\n", text[n - 1])) n--;
    if (!n) return PR_OK;
    for (size_t i = 0; i < n; i++) {
        if (text[i] < 0x21 || text[i] > 0x7E)
            return pr_fail(err, PR_EAUTH,
                           "%s holds no token: expected one line of printable characters without blanks",
                           from);
    }
    h->token = strndup(text, n);
    h->token_from = strdup(from);
    return h->token && h->token_from ? PR_OK : pr_fail(err, PR_ERESOURCE, "out of memory");
}

static int set_token(hub *h, pr_err *err)
{
    char path[PATH_MAX], *text = NULL;
    bool explicitly;
    size_t n;
    pr_err e = {0};
    int rc;

    if (env("HF_TOKEN")) return take_token(h, env("HF_TOKEN"), "HF_TOKEN", err);
    if (!token_path(path, &explicitly)) return PR_OK;
    if (access(path, F_OK) && errno == ENOENT && !explicitly) return PR_OK;
    if (file_slurp(&text, &n, path, TOKEN_BYTES, &e)) {
        log_warn("no token: %s", e.msg);
        return PR_OK;
    }
    rc = take_token(h, text, path, err);
    free(text);
    return rc;
}

/* "127.0.0.1:8080", "localhost", "[::1]:80". */
static bool is_loopback(const char *host)
{
    size_t n = *host == '[' ? strcspn(host, "]") + 1 : strcspn(host, ":");

    return (n == 9 && !strncasecmp(host, "localhost", n)) || (n == 5 && !strncmp(host, "[::1]", n)) ||
           (!strncmp(host, "127.", 4) && strspn(host, "0123456789.") == n);
}

/* Over http:// everybody on the way could read it; only to this machine itself nobody is on the way. */
static void keep_token_safe(hub *h)
{
    if (!h->token || strncmp(h->origin, "http://", 7) != 0 || is_loopback(h->origin + 7)) return;
    log_warn("the token from %s is not used: HF_ENDPOINT is not https://", h->token_from);
    free(h->token);
    free(h->token_from);
    h->token = h->token_from = NULL;
}

int hub_from_env(hub *out, pr_err *err)
{
    int rc;

    *out = (hub){.offline = is_true(env("HF_HUB_OFFLINE"))};
    if ((rc = set_endpoint(out, err)) || (rc = set_token(out, err))) hub_clear(out);
    else keep_token_safe(out);
    return rc;
}

void hub_clear(hub *h)
{
    free(h->endpoint);
    free(h->origin);
    free(h->token);
    free(h->token_from);
    *h = (hub){0};
}
