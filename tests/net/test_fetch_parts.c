/* The parts of the fetch engine by themselves: sets of ranges against a bitmap, header lines, addresses. */
#include "net/fetch_impl.h"
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

TestSuite(fetch_parts, .timeout = 60);

static pr_err err;

/* --- sets ------------------------------------------------------------------------------------------- */
enum { MAP = 97 };

static void check_against_map(const range_set *s, const bool *map)
{
    uint64_t total = 0;

    for (size_t i = 0; i < s->n; i++) {
        cr_assert_lt(s->r[i].first, s->r[i].end);
        if (i) cr_assert_lt(s->r[i - 1].end, s->r[i].first, "ranges touch");
    }
    for (uint64_t at = 0; at < MAP; at++) {
        total += map[at];
        cr_assert_eq(set_covers(s, at, at + 1), map[at], "byte %d", (int)at);
    }
    cr_assert_eq(s->total, total);
}

static void check_next(const range_set *s, const bool *map, uint64_t first, uint64_t end, bool in)
{
    fetch_range got;
    uint64_t a = first, b;

    while (a < end && map[a] != in) a++;
    for (b = a; b < end && map[b] == in;) b++;
    cr_assert_eq(set_next(s, in, first, end, &got), a < end);
    if (a < end) {
        cr_assert_eq(got.first, a);
        cr_assert_eq(got.end, b);
    }
}

Test(fetch_parts, set_is_a_set_of_bytes)
{
    bool map[MAP] = {0};
    range_set s = {0};

    srand(7);
    for (int i = 0; i < 20000; i++) {
        uint64_t first = (uint64_t)rand() % MAP, end = first + (uint64_t)rand() % (MAP - first + 1);
        bool add = rand() % 2;
        if (end - first > 9) end = first + 9;
        cr_assert(add ? set_add(&s, first, end) : set_remove(&s, first, end));
        for (uint64_t at = first; at < end; at++) map[at] = add;
        check_against_map(&s, map);
        check_next(&s, map, (uint64_t)rand() % MAP, (uint64_t)rand() % MAP, rand() % 2);
    }
    set_clear(&s);
}

/* --- answers ---------------------------------------------------------------------------------------- */
static void feed(answer *a, const char *text)
{
    while (*text) {
        size_t n = strcspn(text, "\n") + 1;
        answer_line(a, text, n, true);
        text += n;
    }
}

static answer parsed(const char *text)
{
    answer a = {0};

    answer_clear(&a);
    feed(&a, "HTTP/1.1 206 Partial Content\r\n");
    feed(&a, text);
    feed(&a, "\r\n");
    return a;
}

Test(fetch_parts, content_range)
{
    static const struct {
        const char *text;
        bool range, total, malformed;
        uint64_t first, end, of;
    } t[] = {
        {"bytes 0-99/1000", true, true, false, 0, 100, 1000},
        {"bytes 5-5/*", true, false, false, 5, 6, 0},
        {"BYTES 0-0/1", true, true, false, 0, 1, 1},
        {"bytes */1000", false, true, false, 0, 0, 1000},
        {"bytes 0-1000/1000", false, false, true, 0, 0, 0}, /* one byte too many */
        {"bytes 9-5/1000", false, false, true, 0, 0, 0},
        {"bytes 0-99", false, false, true, 0, 0, 0},
        {"bytes -1-99/100", false, false, true, 0, 0, 0},
        {"bytes 0-99/100x", false, false, true, 0, 0, 0},
        {"bytes 0-18446744073709551616/18446744073709551617", false, false, true, 0, 0, 0},
        {"bytes 0-9223372036854775808/9223372036854775809", false, false, true, 0, 0, 0},
        {"items 0-99/100", false, false, true, 0, 0, 0},
        {"", false, false, true, 0, 0, 0},
    };

    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        char line[200];
        answer a;
        snprintf(line, sizeof line, "Content-Range: %s\r\n", t[i].text);
        a = parsed(line);
        cr_expect_eq(a.has_range, t[i].range, "%s", t[i].text);
        cr_expect_eq(a.has_total, t[i].total, "%s", t[i].text);
        cr_expect_eq(a.range_malformed, t[i].malformed, "%s", t[i].text);
        if (t[i].range) cr_expect(a.first == t[i].first && a.end == t[i].end, "%s", t[i].text);
        if (t[i].total) cr_expect_eq(a.total, t[i].of, "%s", t[i].text);
        answer_clear(&a);
    }
}

Test(fetch_parts, fields)
{
    answer a = parsed(
        "content-LENGTH:  42 \r\nETag: \"abc\"\r\nX-Linked-Etag: W/\"ff00\"\r\nX-Linked-Size: 77\r\n"
        "X-Repo-Commit: 0123abcd\r\nAccept-Ranges: bytes\r\nContent-Encoding: identity\r\n"
        "Link: <https://a/b?c=1>; rel=\"prev\", <https://a/b?c=2>; rel=\"next\"\r\nRetry-After: 120\r\n");

    cr_expect(a.complete && a.status == 206 && a.has_length && a.length == 42 && a.accepts_ranges &&
              !a.encoded);
    cr_expect_str_eq(a.etag, "\"abc\"");
    cr_expect_str_eq(a.linked_etag, "ff00");
    cr_expect(a.has_linked_size && a.linked_size == 77);
    cr_expect_str_eq(a.commit, "0123abcd");
    cr_expect_str_eq(a.next, "https://a/b?c=2");
    cr_expect_eq(a.retry_after_s, 120);
    /* What the next answer of the chain says: the hub's fields stay, everything else is new. */
    feed(&a, "HTTP/1.1 200 OK\r\nX-Linked-Etag: \"evil\"\r\nETag: \"cdn\"\r\n\r\nContent-Length: 9\r\n");
    cr_expect(a.complete && a.status == 200 && !a.has_length && !a.next);
    cr_expect_str_eq(a.linked_etag, "ff00");
    cr_expect_str_eq(a.etag, "\"cdn\"");
    answer_clear(&a);
}

Test(fetch_parts, fields_that_were_not_said)
{
    static const char *const numbers[] = {"Content-Length: -1\r\n", "Content-Length: 1x\r\n",
                                          "Content-Length: \r\n", "Content-Length: 99999999999999999999\r\n",
                                          "Content-Length: 0x10\r\n"};
    char long_line[9000];
    answer a;

    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        a = parsed(numbers[i]);
        cr_expect_not(a.has_length, "%s", numbers[i]);
        answer_clear(&a);
    }
    memset(long_line, 'x', sizeof long_line);
    memcpy(long_line, "ETag: \"", 7);
    memcpy(long_line + 1000, "\"\r\n", 4);
    a = parsed(long_line);
    cr_expect_str_empty(a.etag);
    answer_clear(&a);
    a = parsed("ETag: W/\"weak\"\r\nContent-Encoding: gzip\r\nX-Repo-Commit: ../../etc\r\n");
    cr_expect_str_empty(a.etag);
    cr_expect_str_empty(a.commit);
    cr_expect(a.encoded);
    answer_clear(&a);
    a = (answer){0}; /* not trusted: the CDN's X- fields */
    answer_line(&a, "HTTP/2 200\r\n", 12, false);
    answer_line(&a, "X-Linked-Etag: \"ff\"\r\n", 21, false);
    cr_expect_eq(a.status, 200);
    cr_expect_str_empty(a.linked_etag);
}

Test(fetch_parts, validator)
{
    answer a =
        parsed("Last-Modified: Fri, 20 Nov 2026 11:00:00 GMT\r\nDate: Fri, 20 Nov 2026 12:00:00 GMT\r\n");

    cr_expect_str_eq(answer_validator(&a), "Fri, 20 Nov 2026 11:00:00 GMT");
    answer_clear(&a);
    a = parsed("Last-Modified: Fri, 20 Nov 2026 11:59:59 GMT\r\nDate: Fri, 20 Nov 2026 12:00:00 GMT\r\n");
    cr_expect_str_empty(answer_validator(&a), "a file written a second ago may change in this second");
    answer_clear(&a);
}

/* --- addresses -------------------------------------------------------------------------------------- */
Test(fetch_parts, origins)
{
    static const struct {
        const char *url, *origin;
    } t[] = {{"https://Host.Example/a", "https://host.example:443"},
             {"http://host:8080/?q", "http://host:8080"},
             {"HTTPS://user:pw@host:443/", "https://host:443"},
             {"http://[::1]:81/x", "http://[::1]:81"},
             {"https://host.example@evil/", "https://evil:443"},
             {"https://evil\\@host.example/", "https://host.example:443"},
             {"no address", NULL},
             {"", NULL}};

    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        char origin[FETCH_ORIGIN_BYTES];
        bool ok = fetch_url_origin(origin, t[i].url);
        if (!t[i].origin) cr_expect_not(ok, "%s", t[i].url);
        else cr_expect(ok && strcmp(origin, t[i].origin) == 0, "%s: %s", t[i].url, ok ? origin : "none");
    }
    cr_expect(fetch_url_same_origin("https://a/b", "https://A:443/c"));
    cr_expect_not(fetch_url_same_origin("https://a/b", "http://a:443/b"));
    cr_expect_not(fetch_url_same_origin("https://a/b", "https://a:444/b"));
    cr_expect_not(fetch_url_same_origin("https://a/b", "https://a.b/b"));
}

Test(fetch_parts, which_may_be_asked)
{
    static const char *const good[] = {"https://host/x", "http://localhost:1/x", "http://127.8.9.1/x",
                                       "http://[::1]/x"};
    static const char *const bad[] = {
        "http://host/x",          "ftp://127.0.0.1/x", "http://[fd00::1]/x", "gopher://localhost/",
        "http://localhost.evil/", "http://128.0.0.1/", "scp://a/b",          "http:///x",
        "dict://localhost:1/"};

    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        cr_expect_eq(fetch_url_check(good[i], false, PR_EUSAGE, &err), PR_OK, "%s", good[i]);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        cr_expect_eq(fetch_url_check(bad[i], false, PR_EUSAGE, &err), PR_EUSAGE, "%s", bad[i]);
    cr_expect_eq(fetch_url_check("http://host/x", true, PR_EUSAGE, &err), PR_OK);
    cr_expect_eq(fetch_url_check("ftp://host/x", true, PR_EUSAGE, &err), PR_EUSAGE);
}

Test(fetch_parts, shown_and_kept_without_secrets)
{
    char shown[FETCH_SHOWN_BYTES], *a, *b;

    fetch_url_show(shown, "https://me:secret@host/dir/f?X-Amz-Signature=secret#secret");
    cr_expect_str_eq(shown, "https://host/dir/f");
    a = fetch_url_key("https://me:secret@host/dir/f?sig=secret");
    b = fetch_url_key("https://host/dir/f?sig=other");
    cr_expect_null(strstr(a, "secret"));
    cr_expect_str_neq(a, b, "the query belongs to the address");
    free(a);
    free(b);
    a = fetch_url_join("http://h/a/b?c", "../d%20e?f=1");
    cr_expect_str_eq(a, "http://h/d%20e?f=1");
    free(a);
    a = fetch_url_join("http://h/a", "//other:5/x");
    cr_expect_str_eq(a, "http://other:5/x");
    free(a);
}

Test(fetch_parts, local_paths)
{
    static const struct {
        const char *url, *path;
        bool local;
    } t[] = {{"dir/f.gguf", "dir/f.gguf", true},      {"/a b", "/a b", true},
             {"file:///a%20b", "/a b", true},         {"file://localhost/x", "/x", true},
             {"file://other/x", NULL, true},          {"file:///a%00b", NULL, true},
             {"https://host/file:///x", NULL, false}, {"FILE:///x", "/x", true}};

    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        char *path;
        cr_expect_eq(fetch_url_local(t[i].url, &path), t[i].local, "%s", t[i].url);
        if (t[i].path)
            cr_expect(path && strcmp(path, t[i].path) == 0, "%s: %s", t[i].url, path ? path : "none");
        else cr_expect_null(path, "%s: %s", t[i].url, path);
        free(path);
    }
}
