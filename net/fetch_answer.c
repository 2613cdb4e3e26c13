/* What a server says before the body: status and the header fields that matter here. Everything is hostile:
 * numbers are whole decimal numbers that fit, or they were not said; strings that are too long were not said
 * either. */
#include "net/fetch_impl.h"
#include <stdlib.h>
#include <string.h>
#include <strings.h>

void answer_clear(answer *a)
{
    free(a->location);
    free(a->next);
    *a = (answer){.retry_after_s = -1, .date_s = -1, .modified_s = -1};
}

/* A new status line: forget the last answer, but not what was said on the way. */
static void answer_again(answer *a, long status)
{
    answer kept = *a;

    answer_clear(a);
    memcpy(a->linked_etag, kept.linked_etag, sizeof a->linked_etag);
    memcpy(a->commit, kept.commit, sizeof a->commit);
    a->has_linked_size = kept.has_linked_size;
    a->linked_size = kept.linked_size;
    a->status = status;
}

/* A decimal number at *s, which is moved behind it. */
static bool number(const char **s, uint64_t *out)
{
    uint64_t v = 0;
    const char *p = *s;

    if (*p < '0' || *p > '9') return false;
    for (; *p >= '0' && *p <= '9'; p++) {
        if (v > (INT64_MAX - 9) / 10) return false; /* file offsets are signed */
        v = v * 10 + (uint64_t)(*p - '0');
    }
    *s = p;
    *out = v;
    return true;
}

static bool whole_number(const char *s, uint64_t *out)
{
    return number(&s, out) && *s == 0;
}

/* "bytes 0-99/1000", "bytes 0-99" + "/" + "*", or (416) "bytes" and "*" + "/1000". */
static void content_range(answer *a, const char *s)
{
    uint64_t last;

    a->has_range = a->has_total = false;
    a->range_malformed = true;
    if (strncasecmp(s, "bytes", 5) != 0 || (s[5] != ' ' && s[5] != '=')) return;
    s += 6;
    while (*s == ' ') s++;
    if (*s == '*') s++;
    else {
        if (!number(&s, &a->first) || *s++ != '-' || !number(&s, &last) || last < a->first) return;
        a->end = last + 1;
        a->has_range = true;
    }
    if (*s++ != '/') {
        a->has_range = false;
        return;
    }
    if (strcmp(s, "*") == 0) a->range_malformed = false;
    else if (whole_number(s, &a->total) && (!a->has_range || a->end <= a->total))
        a->has_total = true, a->range_malformed = false;
    else a->has_range = false;
}

static void copy(char *out, size_t room, const char *s, size_t n)
{
    if (n >= room) n = 0;
    memcpy(out, s, n);
    out[n] = 0;
}

/* X-Linked-Etag: "digits", sometimes W/"digits". */
static void linked_etag(answer *a, const char *s)
{
    size_t n;

    if (*a->linked_etag) return;
    if (strncmp(s, "W/", 2) == 0) s += 2;
    if (*s == '"') s++;
    n = strlen(s);
    if (n && s[n - 1] == '"') n--;
    copy(a->linked_etag, sizeof a->linked_etag, s, n);
}

static void commit(answer *a, const char *s)
{
    size_t n = strspn(s, "0123456789abcdefABCDEF");

    if (!*a->commit && s[n] == 0) copy(a->commit, sizeof a->commit, s, n);
}

/* Link: <https://...>; rel="next", <...>; rel="last" */
static void link_next(answer *a, const char *s)
{
    while (!a->next && (s = strchr(s, '<'))) {
        const char *end = strchr(++s, '>'), *rel, *stop;
        if (!end) return;
        stop = strchr(end, '<');
        rel = strstr(end, "rel=");
        if (rel && (!stop || rel < stop) &&
            (strncmp(rel + 4, "\"next\"", 6) == 0 || strncmp(rel + 4, "next", 4) == 0))
            a->next = strndup(s, (size_t)(end - s));
        s = end;
    }
}

static void retry_after(answer *a, const char *s)
{
    uint64_t v;
    time_t at;

    if (whole_number(s, &v)) a->retry_after_s = (double)v;
    else if ((at = curl_getdate(s, NULL)) != -1) {
        double left = difftime(at, time(NULL));
        a->retry_after_s = left > 0 ? left : 0;
    }
}

static void field(answer *a, const char *name, const char *value, bool trusted)
{
    uint64_t v;

    if (!strcasecmp(name, "content-length")) a->has_length = whole_number(value, &a->length);
    else if (!strcasecmp(name, "content-range")) content_range(a, value);
    else if (!strcasecmp(name, "accept-ranges")) {
        a->accepts_ranges = !strcasecmp(value, "bytes");
        a->accepts_none = !strcasecmp(value, "none");
    } else if (!strcasecmp(name, "content-encoding"))
        a->encoded = *value && strcasecmp(value, "identity") != 0;
    else if (!strcasecmp(name, "etag")) {
        size_t n = strlen(value);
        if (n >= 2 && value[0] == '"' && value[n - 1] == '"') copy(a->etag, sizeof a->etag, value, n);
    } else if (!strcasecmp(name, "last-modified")) {
        copy(a->modified, sizeof a->modified, value, strlen(value));
        a->modified_s = curl_getdate(value, NULL);
    } else if (!strcasecmp(name, "date")) a->date_s = curl_getdate(value, NULL);
    else if (!strcasecmp(name, "retry-after")) retry_after(a, value);
    else if (!strcasecmp(name, "link")) link_next(a, value);
    else if (!strcasecmp(name, "location")) {
        free(a->location);
        a->location = strdup(value);
    } else if (!trusted) return;
    else if (!strcasecmp(name, "x-linked-etag")) linked_etag(a, value);
    else if (!strcasecmp(name, "x-linked-size")) {
        if (!a->has_linked_size && whole_number(value, &v)) a->has_linked_size = true, a->linked_size = v;
    } else if (!strcasecmp(name, "x-repo-commit")) commit(a, value);
}

/* "HTTP/1.1 206 Partial Content" */
static bool status_line(const char *s, long *out)
{
    const char *space = strchr(s, ' ');

    if (strncmp(s, "HTTP/", 5) != 0 || !space || strspn(space + 1, "0123456789") != 3) return false;
    *out = strtol(space + 1, NULL, 10);
    return true;
}

void answer_line(answer *a, const char *line, size_t n, bool trusted)
{
    char text[8192], *colon, *value;
    long status;

    while (n && strchr("\r\n \t", line[n - 1])) n--;
    if (n >= sizeof text || memchr(line, 0, n)) return;
    memcpy(text, line, n);
    text[n] = 0;
    if (status_line(text, &status)) {
        answer_again(a, status);
        return;
    }
    if (a->complete) return; /* a trailer */
    if (!n) {
        a->complete = a->status >= 200;
        return;
    }
    if (!(colon = strchr(text, ':'))) return;
    *colon = 0;
    value = colon + 1;
    while (*value == ' ' || *value == '\t') value++;
    field(a, text, value, trusted);
}

const char *answer_validator(const answer *a)
{
    enum { OLD_ENOUGH_S = 60 }; /* a file that changes twice in a second keeps its date (RFC 9110, 8.8.2.2) */

    if (*a->etag) return a->etag;
    if (a->modified_s >= 0 && a->date_s >= a->modified_s + OLD_ENOUGH_S) return a->modified;
    return "";
}

bool answer_tag_is(const char *quoted, const char *bare)
{
    size_t n = strlen(bare);

    return strlen(quoted) == n + 2 && quoted[0] == '"' && quoted[n + 1] == '"' &&
           strncmp(quoted + 1, bare, n) == 0;
}

bool answer_is_redirect(const answer *a)
{
    long s = a->status;

    return a->location && (s == 301 || s == 302 || s == 303 || s == 307 || s == 308);
}
