/* Any bytes as the header lines of a server: what is taken from them is plausible, and where they lead is an
 * address that may be asked, or none. */
#include "net/fetch_impl.h"
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void must(bool ok)
{
    if (!ok) abort();
}

static void check_address(const char *ref)
{
    char *url = fetch_url_join("https://host.example/a/b", ref), *key, origin[FETCH_ORIGIN_BYTES];
    char shown[FETCH_SHOWN_BYTES];

    if (!url) return;
    if (fetch_url_check(url, false, PR_ENETWORK, NULL) == PR_OK) {
        must(fetch_url_origin(origin, url));
        must(!strncmp(origin, "https://", 8) || !strncmp(origin, "http://", 7));
    }
    fetch_url_show(shown, url);
    for (const char *c = shown; *c; c++) must(*c >= 0x20 && *c < 0x7f);
    must((key = fetch_url_key(url)) != NULL);
    free(key);
    free(url);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    answer a = {0};

    answer_clear(&a);
    for (size_t at = 0; at < n;) {
        const uint8_t *end = memchr(data + at, '\n', n - at);
        size_t line_bytes = end ? (size_t)(end - data) + 1 - at : n - at;
        char *line = malloc(line_bytes); /* of its own, so that a read behind it is seen */
        if (!line) abort();
        memcpy(line, data + at, line_bytes);
        answer_line(&a, line, line_bytes, true);
        free(line);
        at += line_bytes;
    }
    must(!a.has_range || (a.first < a.end && (!a.has_total || a.end <= a.total)));
    must(!*a.etag || (a.etag[0] == '"' && a.etag[strlen(a.etag) - 1] == '"'));
    must(strspn(a.commit, "0123456789abcdefABCDEF") == strlen(a.commit));
    must(a.retry_after_s == -1 || a.retry_after_s >= 0);
    if (a.location) check_address(a.location);
    if (a.next) check_address(a.next);
    answer_clear(&a);
    return 0;
}
