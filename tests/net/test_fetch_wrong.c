/* Servers that change their mind, lie, or can do little: no wrong byte may pass. */
#include "net/fetch.h"
#include "tests/net/fetch_rig.h"
#include <criterion/criterion.h>

TestSuite(fetch_wrong, .init = rig_setup, .fini = rig_clear, .timeout = 60);

static const fetch_range part_of_it[] = {{1000, 2000000}};

/* --- another version -------------------------------------------------------------------------------- */
static uint8_t other_data[4][RIG_BYTES];

static void change(http_server *s)
{
    static unsigned version;
    uint8_t *other = other_data[version++ % 4];

    for (size_t i = 0; i < s->n; i++) other[i] = (uint8_t)(s->data[i] ^ 0x80) | 1;
    s->data = other;
    strcpy(s->etag, "\"v2\"");
}

static uint64_t a_third(http_server *s, const http_request *r)
{
    (void)r;
    return s->n / 3;
}

/* Stop after a third of the bytes. */
static void fetch_some(void)
{
    site.limit = a_third;
    options.tries = 1;
    options.backoff_s = 0.01;
    rig_open();
    rig_head("/f");
    cr_assert_eq(fetch_ranges(f, &facts, path, &(fetch_range){0, site.n}, 1, NULL, &err), PR_ENETWORK);
    cr_assert_eq(site.sent, site.n / 3);
    site.limit = NULL;
    rig_expect_bytes(0, site.n / 3);
}

Test(fetch_wrong, changed_between_tries)
{
    fetch_some();
    change(&site);
    cr_expect_eq(fetch_ranges(f, &facts, path, &(fetch_range){0, site.n}, 1, NULL, &err), PR_EINTEGRITY);
    cr_expect(strstr(err.msg, "changed"), "%s", err.msg);
    fetch_facts_clear(&facts);
    rig_head("/f");
    rig_fetch_whole(); /* all of the new version */
}

Test(fetch_wrong, changed_between_processes)
{
    uint64_t resumed;

    fetch_some();
    rig_close();
    change(&site);
    rig_open();
    rig_head("/f");
    cr_assert_eq(fetch_ranges(f, &facts, path, &(fetch_range){0, site.n}, 1, &resumed, &err), PR_OK, "%s",
                 err.msg);
    cr_expect_eq(resumed, 0);
    rig_expect_bytes(0, site.n);
}

/* It knows no If-Range: a part of the new version under its new tag. */
static bool ignores_if_range(http_server *s, int fd, const http_request *r, bool *keep)
{
    http_request bare = *r;

    *bare.if_range = 0;
    *keep = http_serve(s, fd, &bare);
    return true;
}

Test(fetch_wrong, changed_and_if_range_ignored)
{
    site.hook = ignores_if_range;
    fetch_some();
    change(&site);
    cr_expect_eq(fetch_ranges(f, &facts, path, &(fetch_range){0, site.n}, 1, NULL, &err), PR_EINTEGRITY);
    rig_expect_hole(site.n / 3, site.n);
}

Test(fetch_wrong, changed_and_only_a_date)
{
    *site.etag = 0;
    strcpy(site.modified, "Fri, 20 Nov 2026 10:00:00 GMT");
    fetch_some();
    cr_expect_str_eq(facts.etag, site.modified);
    change(&site);
    *site.etag = 0;
    strcpy(site.modified, "Fri, 20 Nov 2026 10:00:01 GMT");
    cr_expect_eq(fetch_ranges(f, &facts, path, &(fetch_range){0, site.n}, 1, NULL, &err), PR_EINTEGRITY);
}

Test(fetch_wrong, resumes_by_date)
{
    *site.etag = 0;
    strcpy(site.modified, "Fri, 20 Nov 2026 10:00:00 GMT");
    fetch_some();
    rig_fetch_whole();
    cr_expect_eq(site.sent, site.n);
}

/* A third part of it, then another length under the same tag. */
Test(fetch_wrong, changed_its_size)
{
    uint64_t n = site.n;

    fetch_some();
    site.n -= 7;
    cr_expect_eq(fetch_ranges(f, &facts, path, &(fetch_range){0, n}, 1, NULL, &err), PR_EINTEGRITY);
    cr_expect(strstr(err.msg, "changed"), "%s", err.msg);
}

Test(fetch_wrong, gone_416)
{
    const fetch_range end = {site.n - 10, site.n};

    rig_open();
    rig_head("/f");
    site.n /= 2;
    cr_expect_eq(fetch_ranges(f, &facts, path, &end, 1, NULL, &err), PR_EINTEGRITY);
    cr_expect(strstr(err.msg, "changed"), "%s", err.msg);
}

/* --- not what was asked for ------------------------------------------------------------------------- */
/* %d: first, last, size. Correct bodies of the right length each time. */
static const char *const lies[] = {
    "Content-Range: bytes 0-%2$d/%3$d\r\n",       /* from the start */
    "Content-Range: bytes %1$d-1999990/%3$d\r\n", /* less than asked */
    "Content-Range: bytes %1$d-%2$d/7\r\n",
    "Content-Range: bytes %1$d-%2$d/6000122\r\n", /* another size */
    "Content-Range: bytes 1001-%2$d/%3$d\r\n",
    "Content-Range: bytes %1$d-%2$d\r\n",
    "Content-Range: bytes */%3$d\r\n",
    "Content-Range: octets %1$d-%2$d/%3$d\r\n",
    "Content-Type: multipart/byteranges; boundary=x\r\n",
    "",
};

static bool lie(http_server *s, int fd, const http_request *r, bool *keep)
{
    char line[200];

    (void)keep;
    if (strcmp(r->method, "GET") != 0) return false;
    snprintf(line, sizeof line, lies[s->value[0]], (int)r->first, (int)r->end - 1, (int)s->n);
    http_say(fd, "HTTP/1.1 206 T\r\nETag: \"v1\"\r\n%sContent-Length: %d\r\n\r\n", line,
             (int)(r->end - r->first));
    http_send(fd, s->data + r->first, r->end - r->first);
    return true;
}

Test(fetch_wrong, content_range)
{
    site.hook = lie;
    rig_open();
    rig_head("/f");
    for (int i = 0; i < (int)(sizeof lies / sizeof *lies); i++) {
        site.value[0] = i;
        cr_expect_eq(fetch_ranges(f, &facts, path, part_of_it, 1, NULL, &err), PR_EINTEGRITY, "%s: %s",
                     lies[i], err.msg);
        rig_expect_no_part();
    }
}

/* More bytes than the range has, and no length. */
static bool too_long(http_server *s, int fd, const http_request *r, bool *keep)
{
    if (strcmp(r->method, "GET") != 0) return false;
    http_say(fd,
             "HTTP/1.1 206 T\r\nETag: \"v1\"\r\nContent-Range: bytes %d-%d/%d\r\nConnection: close\r\n\r\n",
             (int)r->first, (int)r->end - 1, (int)s->n);
    http_send(fd, s->data + r->first, r->end - r->first + 5000);
    *keep = false;
    return true;
}

/* A length that is smaller, then one that is larger than what Content-Range says. */
static bool wrong_length(http_server *s, int fd, const http_request *r, bool *keep)
{
    if (strcmp(r->method, "GET") != 0 || s->value[0] > 1) return false;
    int n = (int)(r->end - r->first) + (s->value[0]++ ? 3000 : -3000);
    http_say(fd,
             "HTTP/1.1 206 T\r\nETag: \"v1\"\r\nContent-Range: bytes %d-%d/%d\r\nContent-Length: %d\r\n\r\n",
             (int)r->first, (int)r->end - 1, (int)s->n, n);
    http_send(fd, s->data + r->first, (size_t)n);
    *keep = true;
    return true;
}

static void only_the_part(void)
{
    rig_open();
    rig_head("/f");
    cr_assert_eq(fetch_ranges(f, &facts, path, part_of_it, 1, NULL, &err), PR_OK, "%s", err.msg);
    rig_expect_hole(0, part_of_it[0].first);
    rig_expect_bytes(part_of_it[0].first, part_of_it[0].end);
    rig_expect_hole(part_of_it[0].end, site.n);
}

Test(fetch_wrong, body_longer_than_asked)
{
    site.hook = too_long;
    only_the_part();
}

Test(fetch_wrong, length_that_does_not_fit)
{
    site.hook = wrong_length;
    options.backoff_s = 0.01;
    only_the_part();
}

Test(fetch_wrong, compressed_although_not_asked)
{
    rig_open();
    rig_head("/f");
    strcpy(site.extra, "Content-Encoding: gzip\r\n");
    cr_expect_eq(fetch_ranges(f, &facts, path, part_of_it, 1, NULL, &err), PR_EINTEGRITY);
    cr_expect(strstr(err.msg, "compressed"), "%s", err.msg);
}

/* A page of a hotel's network, with 200, in place of the file. */
static bool welcome_page(http_server *s, int fd, const http_request *r, bool *keep)
{
    (void)s;
    (void)keep;
    if (strcmp(r->method, "GET") != 0) return false;
    http_say(fd, "HTTP/1.1 200 T\r\nContent-Length: 8\r\n\r\n<html>\r\n");
    return true;
}

Test(fetch_wrong, welcome_page)
{
    site.hook = welcome_page;
    rig_open();
    rig_head("/f");
    cr_expect_eq(fetch_ranges(f, &facts, path, part_of_it, 1, NULL, &err), PR_EINTEGRITY);
    rig_expect_no_part();
}

Test(fetch_wrong, nothing_listens)
{
    static http_server gone;

    cr_assert(http_start(&gone));
    shutdown(gone.listener, SHUT_RDWR);
    close(gone.listener);
    options.tries = 3;
    options.backoff_s = 0.01;
    rig_open();
    cr_expect_eq(fetch_head(f, http_url(&gone, "/f"), &facts, &err), PR_ENETWORK);
    cr_expect(strstr(err.msg, "3 tries"), "%s", err.msg);
}

static bool endless_header(http_server *s, int fd, const http_request *r, bool *keep)
{
    (void)r;
    http_say(fd, "HTTP/1.1 200 T\r\n");
    for (int i = 0; i < 3000; i++) http_say(fd, "X-%d: %01000d\r\n", i, i);
    s->value[0]++;
    *keep = false;
    return true;
}

Test(fetch_wrong, endless_header)
{
    site.hook = endless_header;
    options.tries = 2;
    options.backoff_s = 0.01;
    rig_open();
    cr_expect_eq(fetch_head(f, http_url(&site, "/f"), &facts, &err), PR_ENETWORK);
}

/* --- servers without ranges ------------------------------------------------------------------------- */
static uint64_t cut_three_times(http_server *s, const http_request *r)
{
    if (strcmp(r->method, "GET") != 0 || s->value[0] >= 3) return UINT64_MAX;
    return s->n / 4 * (uint64_t)++s->value[0];
}

Test(fetch_wrong, no_ranges)
{
    site.no_ranges = true;
    options.jobs = 4;
    rig_open();
    rig_head("/f");
    cr_expect_not(facts.has_ranges);
    rig_fetch_whole();
    cr_expect_eq(site.gets, 2, "one stream, and one to see whether there are ranges: %u", site.gets);
}

Test(fetch_wrong, no_ranges_and_only_a_part)
{
    site.no_ranges = true;
    only_the_part();
}

Test(fetch_wrong, no_ranges_into_memory)
{
    uint8_t got[100];

    site.no_ranges = true;
    rig_open();
    rig_head("/f");
    cr_assert_eq(fetch_bytes(f, &facts, 5000, sizeof got, got, &err), PR_OK, "%s", err.msg);
    cr_expect_arr_eq(got, site.data + 5000, sizeof got);
}

Test(fetch_wrong, no_ranges_and_cut)
{
    site.no_ranges = true;
    site.limit = cut_three_times;
    options.backoff_s = 0.01;
    rig_open();
    rig_head("/f");
    rig_fetch_whole();
}

/* Three times, and each time earlier. */
static uint64_t cut_earlier(http_server *s, const http_request *r)
{
    if (strcmp(r->method, "GET") != 0 || s->value[0] >= 3) return UINT64_MAX;
    return s->n / 4 * (uint64_t)(3 - s->value[0]++);
}

/* Neither ranges nor a validator: whatever came before a cut may be of another version. */
static bool another_each_time(http_server *s, int fd, const http_request *r, bool *keep)
{
    if (strcmp(r->method, "GET") != 0 || !s->value[1]) return false;
    change(s);
    *s->etag = 0;
    *keep = http_serve(s, fd, r);
    return true;
}

static uint64_t last_shown;

static void never_falls(void *arg, uint64_t done, uint64_t total)
{
    (void)arg;
    cr_assert(done >= last_shown && done <= total);
    last_shown = done;
}

Test(fetch_wrong, no_ranges_no_version)
{
    site.no_ranges = true;
    *site.etag = 0;
    site.hook = another_each_time;
    options.backoff_s = 4; /* a tenth of it each time: progress is shown in between */
    options.progress = never_falls;
    rig_open();
    rig_head("/f");
    cr_expect_str_empty(facts.etag);
    site.limit = cut_earlier;
    site.value[1] = 1;
    rig_fetch_whole(); /* all of the last version */
    cr_expect_eq(last_shown, site.n);
}

static bool no_length(http_server *s, int fd, const http_request *r, bool *keep)
{
    http_say(fd, "HTTP/1.1 200 T\r\nConnection: close\r\n\r\n");
    if (!strcmp(r->method, "GET")) http_send(fd, s->data, 100);
    *keep = false;
    return true;
}

Test(fetch_wrong, size_unknown)
{
    site.hook = no_length;
    rig_open();
    rig_head("/f");
    cr_expect_not(facts.has_bytes);
    cr_expect_eq(fetch_ranges(f, &facts, path, part_of_it, 1, NULL, &err), PR_ENETWORK);
    cr_expect(strstr(err.msg, "how long"), "%s", err.msg);
}

Test(fetch_wrong, ranges_that_are_not_in_it)
{
    const fetch_range beyond = {0, site.n + 1}, falling[] = {{10, 20}, {5, 7}}, inside_out = {9, 3};

    rig_open();
    rig_head("/f");
    cr_expect_eq(fetch_ranges(f, &facts, path, &beyond, 1, NULL, &err), PR_EINTEGRITY);
    cr_expect_eq(fetch_ranges(f, &facts, path, falling, 2, NULL, &err), PR_EINTEGRITY);
    cr_expect_eq(fetch_ranges(f, &facts, path, &inside_out, 1, NULL, &err), PR_EINTEGRITY);
}
