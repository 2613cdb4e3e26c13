/* Addresses: which may be asked, which belong to the same host, how they are shown and kept. The parsing is
 * libcurl's own (its URL interface), so that what is checked here is what is asked later. */
#include "net/fetch_impl.h"
#include "src/base/hash.h"
#include <arpa/inet.h>
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static CURLU *parse(const char *url)
{
    CURLU *u = curl_url();

    if (u && curl_url_set(u, CURLUPART_URL, url, CURLU_NON_SUPPORT_SCHEME)) {
        curl_url_cleanup(u);
        u = NULL;
    }
    return u;
}

/* A part of it; NULL when it has none. curl_free. */
static char *component(CURLU *u, CURLUPart what, unsigned flags)
{
    char *s = NULL;

    return curl_url_get(u, what, &s, flags) ? NULL : s;
}

static void printable(char *s)
{
    for (; *s; s++)
        if ((unsigned char)*s < 0x20 || (unsigned char)*s >= 0x7f) *s = '?';
}

void fetch_url_show(char out[FETCH_SHOWN_BYTES], const char *url)
{
    CURLU *u = parse(url);
    char *shown = NULL;

    if (u) {
        curl_url_set(u, CURLUPART_USER, NULL, 0);
        curl_url_set(u, CURLUPART_PASSWORD, NULL, 0);
        curl_url_set(u, CURLUPART_QUERY, NULL, 0);
        curl_url_set(u, CURLUPART_FRAGMENT, NULL, 0);
        shown = component(u, CURLUPART_URL, 0);
    }
    snprintf(out, FETCH_SHOWN_BYTES, "%.*s", FETCH_SHOWN_BYTES - 1, shown ? shown : url);
    printable(out);
    curl_free(shown);
    curl_url_cleanup(u);
}

bool fetch_url_origin(char out[FETCH_ORIGIN_BYTES], const char *url)
{
    CURLU *u = parse(url);
    char *scheme = NULL, *host = NULL, *port = NULL;
    bool ok = false;

    if (u) {
        scheme = component(u, CURLUPART_SCHEME, 0);
        host = component(u, CURLUPART_HOST, 0);
        port = component(u, CURLUPART_PORT, CURLU_DEFAULT_PORT);
    }
    if (scheme && host && *host && port) {
        int n = snprintf(out, FETCH_ORIGIN_BYTES, "%s://%s:%s", scheme, host, port);
        ok = n > 0 && n < FETCH_ORIGIN_BYTES;
        for (char *c = out; ok && *c; c++) *c = (char)tolower((unsigned char)*c);
    }
    curl_free(scheme);
    curl_free(host);
    curl_free(port);
    curl_url_cleanup(u);
    return ok;
}

bool fetch_url_same_origin(const char *a, const char *b)
{
    char x[FETCH_ORIGIN_BYTES], y[FETCH_ORIGIN_BYTES];

    return fetch_url_origin(x, a) && fetch_url_origin(y, b) && strcmp(x, y) == 0;
}

/* Of "scheme://host:port". */
static void origin_host(char host[FETCH_ORIGIN_BYTES], const char *origin)
{
    const char *begin = strstr(origin, "://") + 3, *end = strrchr(origin, ':');

    if (*begin == '[') begin++, end--;
    snprintf(host, FETCH_ORIGIN_BYTES, "%.*s", (int)(end - begin), begin);
}

bool fetch_url_host(char out[FETCH_ORIGIN_BYTES], const char *url)
{
    char origin[FETCH_ORIGIN_BYTES];

    if (!fetch_url_origin(origin, url)) return false;
    origin_host(out, origin);
    return true;
}

/* The host of "scheme://host:port" names this machine. */
static bool is_loopback(const char *origin)
{
    char host[FETCH_ORIGIN_BYTES];
    struct in_addr v4;
    struct in6_addr v6;

    origin_host(host, origin);
    if (strcmp(host, "localhost") == 0) return true;
    if (inet_pton(AF_INET, host, &v4) == 1) return ntohl(v4.s_addr) >> 24 == 127;
    return inet_pton(AF_INET6, host, &v6) == 1 && IN6_IS_ADDR_LOOPBACK(&v6);
}

int fetch_url_check(const char *url, bool insecure_http, pr_code code, pr_err *err)
{
    char origin[FETCH_ORIGIN_BYTES], shown[FETCH_SHOWN_BYTES];

    fetch_url_show(shown, url);
    if (!fetch_url_origin(origin, url) ||
        (strncmp(origin, "https://", 8) != 0 && strncmp(origin, "http://", 7) != 0))
        return pr_fail(err, code, "%s: not an address that can be fetched: expected https://HOST/PATH",
                       shown);
    if (strncmp(origin, "http://", 7) == 0 && !insecure_http && !is_loopback(origin))
        return pr_fail(
            err, code,
            "%s: plain http, which anybody on the way can read and change, is refused; use https, or allow "
            "it with --insecure-http",
            shown);
    return PR_OK;
}

char *fetch_url_join(const char *base, const char *ref)
{
    CURLU *u = parse(base);
    char *joined = NULL, *copy = NULL;

    if (u && !curl_url_set(u, CURLUPART_URL, ref, CURLU_NON_SUPPORT_SCHEME | CURLU_URLENCODE))
        joined = component(u, CURLUPART_URL, 0);
    if (joined) copy = strdup(joined);
    curl_free(joined);
    curl_url_cleanup(u);
    return copy;
}

char *fetch_url_key(const char *url)
{
    CURLU *u = strstr(url, "://") ? parse(url) : NULL;
    char *query = NULL, *bare = NULL, *key = NULL, digest[HASH_HEX_BYTES] = "";

    if (u) {
        query = component(u, CURLUPART_QUERY, 0);
        curl_url_set(u, CURLUPART_USER, NULL, 0);
        curl_url_set(u, CURLUPART_PASSWORD, NULL, 0);
        curl_url_set(u, CURLUPART_QUERY, NULL, 0);
        curl_url_set(u, CURLUPART_FRAGMENT, NULL, 0);
        bare = component(u, CURLUPART_URL, 0);
        if (query) hash_sha256_hex(query, strlen(query), digest);
    }
    if (asprintf(&key, "%s%s%s", bare ? bare : url, query ? "?sha256=" : "", digest) < 0) key = NULL;
    curl_free(query);
    curl_free(bare);
    curl_url_cleanup(u);
    return key;
}

bool fetch_url_local(const char *url, char **path)
{
    CURLU *u;
    char *host = NULL, *p = NULL;

    *path = NULL;
    if (!strstr(url, "://")) {
        *path = strdup(url);
        return true;
    }
    if (strncasecmp(url, "file://", 7) != 0) return false;
    if (!(u = parse(url))) return true;
    host = component(u, CURLUPART_HOST, 0);
    if (!host || !*host || strcasecmp(host, "localhost") == 0)
        p = component(u, CURLUPART_PATH, CURLU_URLDECODE);
    if (p && *p == '/') *path = strdup(p);
    curl_free(host);
    curl_free(p);
    curl_url_cleanup(u);
    return true;
}
