/* The contract of fetch.h against a small server of this process: bytes, resuming, redirects and tokens,
 * waiting, giving up. What a server may do wrong is in test_fetch_wrong.c, disk, locks and journals in
 * test_fetch_disk.c. */
#include "net/fetch.h"
#include "src/base/clock.h"
#include "tests/net/fetch_rig.h"
#include <criterion/criterion.h>
#include <time.h>

TestSuite(fetch, .init = rig_setup, .fini = rig_clear, .timeout = 60);

/* --- bytes ------------------------------------------------------------------------------------------ */
static uint64_t last_done, calls;

static void never_falls(void *arg, uint64_t done, uint64_t total)
{
    cr_assert_eq(arg, (void *)&last_done);
    cr_assert_geq(done, last_done);
    cr_assert_leq(done, total);
    last_done = done;
    calls++;
}

Test(fetch, whole_file_over_several_connections)
{
    const fetch_range whole = {0, site.n};
    uint64_t resumed = 9;

    options.jobs = 4;
    options.progress = never_falls;
    options.progress_arg = &last_done;
    rig_open();
    rig_head("/f");
    cr_expect_str_eq(facts.etag, "\"v1\"");
    cr_expect(facts.has_bytes && facts.has_ranges && facts.bytes == site.n);
    cr_expect_str_empty(facts.sha256);
    cr_expect_not(fetch_is_done(path, &facts, &whole, 1));
    cr_assert_eq(fetch_ranges(f, &facts, path, &whole, 1, &resumed, &err), PR_OK, "%s", err.msg);
    cr_expect_eq(resumed, 0);
    cr_expect_eq(last_done, site.n);
    cr_expect_geq(calls, 2);
    cr_expect_gt(site.gets, 3, "only %u requests: not in parallel", site.gets);
    rig_expect_bytes(0, site.n);
    cr_expect(fetch_is_done(path, &facts, &whole, 1));
    /* Without a server little is known of it. */
    cr_expect(fetch_is_done(path, &(fetch_facts){.url = facts.url}, &whole, 1));
    cr_expect_not(fetch_is_done(path, &(fetch_facts){.url = path}, &whole, 1));
    cr_expect_not(fetch_is_done(path, &(fetch_facts){.url = facts.url, .etag = path}, &whole, 1));
    /* Again: nothing is asked. */
    unsigned before = site.requests;
    cr_assert_eq(fetch_ranges(f, &facts, path, &whole, 1, &resumed, &err), PR_OK, "%s", err.msg);
    cr_expect_eq(resumed, site.n);
    cr_expect_eq(site.requests, before);
    fetch_discard(path);
    cr_expect_not(fetch_is_done(path, &facts, &whole, 1));
}

Test(fetch, some_ranges_and_later_more)
{
    const fetch_range some[] = {{0, 1}, {100, 5000}, {3000001, 3500000}},
                      more[] = {{50, 200}, {3499999, 3600000}};

    rig_open();
    rig_head("/f");
    cr_assert_eq(fetch_ranges(f, &facts, path, some, 3, NULL, &err), PR_OK, "%s", err.msg);
    cr_expect_eq(site.sent, 1 + 4900 + 499999, "%d", (int)site.sent);
    rig_expect_bytes(0, 1);
    rig_expect_hole(1, 100);
    rig_expect_bytes(100, 5000);
    rig_expect_hole(5000, 3000001);
    rig_expect_bytes(3000001, 3500000);
    rig_expect_hole(3500000, site.n);
    cr_assert_eq(fetch_ranges(f, &facts, path, more, 2, NULL, &err), PR_OK, "%s", err.msg);
    cr_expect_eq(site.sent, 1 + 4900 + 499999 + 50 + 100000, "%d", (int)site.sent);
    rig_expect_bytes(50, 5000);
    rig_expect_bytes(3000001, 3600000);
    cr_expect(fetch_is_done(path, &facts, some, 3));
    cr_expect_not(fetch_is_done(path, &facts, &(fetch_range){0, site.n}, 1));
}

Test(fetch, bytes_into_memory)
{
    static uint8_t got[5000000];

    options.jobs = 3;
    rig_open();
    rig_head("/f");
    cr_assert_eq(fetch_bytes(f, &facts, 17, 1000, got, &err), PR_OK, "%s", err.msg);
    cr_expect_arr_eq(got, site.data + 17, 1000);
    cr_assert_eq(fetch_bytes(f, &facts, 3, sizeof got, got, &err), PR_OK, "%s", err.msg);
    cr_expect(memcmp(got, site.data + 3, sizeof got) == 0);
    cr_expect_eq(fetch_bytes(f, &facts, site.n - 1, 2, got, &err), PR_EINTEGRITY);
    cr_expect_eq(fetch_bytes(f, &facts, 0, 0, got, &err), PR_OK);
}

Test(fetch, nothing_at_all)
{
    site.n = 0;
    rig_open();
    rig_head("/f");
    cr_expect(facts.has_bytes && facts.bytes == 0);
    cr_assert_eq(fetch_ranges(f, &facts, path, &(fetch_range){0, 0}, 1, NULL, &err), PR_OK, "%s", err.msg);
    cr_expect(fetch_is_done(path, &facts, NULL, 0));
}

Test(fetch, ipv6)
{
    static http_server six;

    six = (http_server){.data = site.data, .n = site.n, .etag = "\"v6\"", .v6 = true};
    if (!http_start(&six)) cr_skip_test("no ::1 here");
    rig_open();
    cr_assert_eq(fetch_head(f, http_url(&six, "/f"), &facts, &err), PR_OK, "%s", err.msg);
    rig_fetch_whole();
}

/* --- cut connections -------------------------------------------------------------------------------- */
static uint64_t cut_fifty_times(http_server *s, const http_request *r)
{
    (void)r;
    if (s->value[0] >= 50) return UINT64_MAX;
    s->value[0]++;
    return 1 + (uint64_t)rand() % (s->n / 50);
}

Test(fetch, cut_fifty_times_costs_no_byte_twice)
{
    srand(11);
    site.limit = cut_fifty_times;
    options.tries = 2; /* bytes come each time: no limit */
    options.backoff_s = 0.01;
    rig_open();
    rig_head("/f");
    rig_fetch_whole();
    cr_expect_eq(site.value[0], 50);
    cr_expect_eq(site.sent, site.n, "%lld bytes too many", (long long)(site.sent - site.n));
}

Test(fetch, cut_fifty_times_over_several_connections)
{
    srand(12);
    site.limit = cut_fifty_times;
    options.jobs = 4;
    options.backoff_s = 0.01;
    rig_open();
    rig_head("/f");
    rig_fetch_whole();
}

static uint64_t cut_for_good(http_server *s, const http_request *r)
{
    return r->number > 3 ? 0 : s->n / 4;
}

Test(fetch, gives_up_and_goes_on_in_another_handle)
{
    const fetch_range whole = {0, site.n};
    uint64_t resumed;

    site.limit = cut_for_good;
    options.tries = 3;
    options.backoff_s = 0.01;
    rig_open();
    rig_head("/f");
    cr_assert_eq(fetch_ranges(f, &facts, path, &whole, 1, NULL, &err), PR_ENETWORK);
    cr_expect(strstr(err.msg, "127.0.0.1") && strstr(err.msg, "call again"), "%s", err.msg);
    uint64_t sent = site.sent;
    cr_expect_eq(sent, site.n / 4 * 2, "two answers carried a quarter each");
    fetch_free(f);
    site.limit = NULL;
    rig_open();
    cr_assert_eq(fetch_ranges(f, &facts, path, &whole, 1, &resumed, &err), PR_OK, "%s", err.msg);
    cr_expect_eq(resumed, sent);
    cr_expect_eq(site.sent, site.n);
    rig_expect_bytes(0, site.n);
}

/* --- several connections ------------------------------------------------------------------------------ */
/* The first connection that is asked for bytes is slow. */
static bool slow_first(http_server *s, int fd, const http_request *r, bool *keep)
{
    if (strcmp(r->method, "GET") != 0 || s->value[0]++) return false;
    *keep = false;
    http_say(fd, "HTTP/1.1 206 T\r\nETag: \"v1\"\r\nContent-Range: bytes %d-%d/%d\r\n\r\n", (int)r->first,
             (int)r->end - 1, (int)s->n);
    for (uint64_t at = r->first; at < r->end; at += 10000) {
        if (send(fd, s->data + at, r->end - at < 10000 ? r->end - at : 10000, MSG_NOSIGNAL) <= 0) break;
        s->value[1] = (int)(at - r->first);
        nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL);
    }
    return true;
}

Test(fetch, the_slowest_is_helped)
{
    site.hook = slow_first;
    options.jobs = 2;
    rig_open();
    rig_head("/f");
    rig_fetch_whole();
    cr_expect_gt(site.value[1], 0);
    cr_expect_lt(site.value[1], 2000000, "it had half of the file, and kept it: %d", site.value[1]);
}

/* --- waiting ---------------------------------------------------------------------------------------- */
static bool fail_some(http_server *s, int fd, const http_request *r, bool *keep)
{
    (void)keep;
    if (strcmp(r->method, "GET") != 0 || s->value[1]++ >= s->value[2]) return false;
    http_status(fd, s->value[0], s->text);
    return true;
}

Test(fetch, server_errors_then_well)
{
    site.hook = fail_some;
    site.value[0] = 500;
    site.value[2] = 3;
    options.backoff_s = 0.01;
    rig_open();
    rig_head("/f");
    rig_fetch_whole();
    cr_expect_eq(site.gets, 4);
}

Test(fetch, server_errors_without_end)
{
    site.hook = fail_some;
    site.value[0] = 502;
    site.value[2] = 1000;
    options.backoff_s = 0.01;
    options.tries = 5;
    rig_open();
    rig_head("/f");
    cr_expect_eq(fetch_ranges(f, &facts, path, &(fetch_range){0, 9}, 1, NULL, &err), PR_ENETWORK);
    cr_expect_eq(site.gets, 5);
    cr_expect(strstr(err.msg, "502"), "%s", err.msg);
}

Test(fetch, back_off_doubles)
{
    uint64_t start = clock_ns();

    site.hook = fail_some;
    site.value[0] = 500;
    site.value[2] = 5;
    options.backoff_s = 0.2;
    rig_open();
    rig_head("/f");
    rig_fetch_whole();
    /* 0.02 s, then 0.2, 0.4, 0.8 and 1.6 s, of which jitter takes at most half. */
    cr_expect(clock_ms_since(start) > 1500 && clock_ms_since(start) < 20000, "%.0f ms",
              clock_ms_since(start));
}

Test(fetch, retry_after_seconds)
{
    uint64_t start = clock_ns();

    site.hook = fail_some;
    site.value[0] = 429;
    site.value[2] = 1;
    strcpy(site.text, "Retry-After: 1\r\n");
    options.backoff_s = 0.01;
    options.jobs = 4;
    rig_open();
    rig_head("/f");
    rig_fetch_whole();
    cr_expect(clock_ms_since(start) >= 1000, "%.0f ms", clock_ms_since(start));
}

Test(fetch, retry_after_date)
{
    time_t when = time(NULL) + 3;
    struct tm tm;

    site.hook = fail_some;
    site.value[0] = 503;
    site.value[2] = 1;
    gmtime_r(&when, &tm);
    strftime(site.text, sizeof site.text, "Retry-After: %a, %d %b %Y %H:%M:%S GMT\r\n", &tm);
    options.backoff_s = 0.01;
    rig_open();
    rig_head("/f");
    rig_fetch_whole();
    cr_expect_geq(time(NULL), when);
}

static bool stall_once(http_server *s, int fd, const http_request *r, bool *keep)
{
    if (strcmp(r->method, "GET") != 0 || s->value[0]++) return false;
    *keep = false;
    http_say(fd, "HTTP/1.1 206 T\r\nETag: \"v1\"\r\nContent-Range: bytes %d-%d/%d\r\n\r\n", (int)r->first,
             (int)r->end - 1, (int)s->n);
    http_send(fd, s->data + r->first, 1000);
    sleep(20);
    return true;
}

Test(fetch, stalled_stream_is_given_up)
{
    uint64_t start = clock_ns();

    site.hook = stall_once;
    options.stall_s = 2;
    options.stall_bytes_s = 750; /* 1500 bytes in the window: the thousand that came are too few */
    options.backoff_s = 0.01;
    rig_open();
    rig_head("/f");
    rig_fetch_whole();
    cr_expect(clock_ms_since(start) > 2000 && clock_ms_since(start) < 15000, "%.0f ms",
              clock_ms_since(start));
    cr_expect_eq(site.sent, site.n - 1000);
}

static volatile int stop;

static uint64_t stop_in_the_middle(http_server *s, const http_request *r)
{
    (void)s;
    stop = r->number > 2;
    return stop ? 100000 : UINT64_MAX;
}

Test(fetch, stop_keeps_what_is_there)
{
    const fetch_range whole = {0, site.n};
    uint64_t resumed, start = clock_ns();

    options.stop = &stop;
    options.backoff_s = 20;
    rig_open();
    rig_head("/f");
    cr_assert_eq(fetch_ranges(f, &facts, path, &(fetch_range){0, 1000}, 1, NULL, &err), PR_OK, "%s", err.msg);
    site.limit = stop_in_the_middle;
    cr_assert_eq(fetch_ranges(f, &facts, path, &whole, 1, NULL, &err), PR_EINTERRUPTED);
    cr_expect_lt(clock_ms_since(start), 5000, "it waited for the next try");
    cr_expect_eq(fetch_head(f, http_url(&site, "/f"), &(fetch_facts){0}, &err), PR_EINTERRUPTED);
    fetch_free(f);
    stop = 0;
    site.limit = NULL;
    rig_open();
    cr_assert_eq(fetch_ranges(f, &facts, path, &whole, 1, &resumed, &err), PR_OK, "%s", err.msg);
    cr_expect_geq(resumed, 1000);
    cr_expect_lt(resumed, site.n);
    rig_expect_bytes(0, site.n);
}

/* --- a hub ------------------------------------------------------------------------------------------ */
static const char SHA[] = "00112233445566778899AABBCCDDEEFF00112233445566778899aabbccddeeff";
static http_server cdn;

/* As the public documentation of /resolve/ says: the hub's answer has the fields, and leads to another host.
 */
static bool resolve(http_server *s, int fd, const http_request *r, bool *keep)
{
    (void)keep;
    if (!strcmp(r->path, "/o/r/resolve/main/f")) { /* relative, and with the same fields */
        http_say(fd, "HTTP/1.1 307 T\r\nLocation: ../../../../moved/f\r\nContent-Length: 0\r\n\r\n");
        return true;
    }
    pthread_mutex_lock(&s->mutex);
    s->value[0] += !strcmp(r->method, "GET");
    pthread_mutex_unlock(&s->mutex);
    http_say(fd,
             "HTTP/1.1 302 T\r\nX-Linked-Etag: \"%s\"\r\nX-Linked-Size: %d\r\nX-Repo-Commit: c0ffee\r\nETag: "
             "\"%s\"\r\n"
             "Location: http://127.0.0.1:%u/blob?until=%d\r\nContent-Length: 0\r\n\r\n",
             s->text, (int)s->n, s->text, cdn.port, s->value[0]);
    return true;
}

/* An address of the CDN answers value[0] times and has then expired: 403, or value[4]. */
static bool expire(http_server *s, int fd, const http_request *r, bool *keep)
{
    int until = atoi(strchr(r->path, '=') + 1);

    (void)keep;
    pthread_mutex_lock(&s->mutex);
    if (s->value[1] < until) s->value[1] = until, s->value[2] = 0;
    bool gone = until < s->value[1] || s->value[2]++ >= s->value[0];
    s->value[3] += gone;
    pthread_mutex_unlock(&s->mutex);
    if (gone) http_status(fd, s->value[4] ? s->value[4] : 403, "");
    return gone;
}

static uint64_t a_fifth(http_server *s, const http_request *r)
{
    (void)r;
    return s->n / 5;
}

static void start_hub_with(const char *tag)
{
    cdn = (http_server){
        .data = site.data, .n = site.n, .etag = "\"md5-of-the-cdn\"", .hook = expire, .value = {1000000}};
    cr_assert(http_start(&cdn));
    site.hook = resolve;
    strcpy(site.text, tag);
    options.token = "hf_secret";
    options.token_origin = http_url(&site, "");
    rig_open();
    rig_head("/o/r/resolve/main/f");
}

static void start_hub(void)
{
    start_hub_with(SHA);
}

Test(fetch, hub_says_what_it_is)
{
    start_hub();
    cr_expect_str_eq(facts.sha256, "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff");
    cr_expect_str_eq(facts.commit, "c0ffee");
    cr_expect(facts.has_bytes && facts.bytes == site.n && facts.has_ranges);
    cr_expect_null(strstr(facts.etag, "cdn"));
    cr_expect_str_eq(facts.url, http_url(&site, "/o/r/resolve/main/f"));
    cr_expect_eq(cdn.requests, 0, "HEAD does not leave the hub");
}

Test(fetch, token_stays_with_its_host)
{
    start_hub();
    rig_fetch_whole();
    cr_expect_eq(site.tokens, site.requests, "%u of %u", site.tokens, site.requests);
    cr_expect_gt(cdn.requests, 0);
    cr_expect_eq(cdn.tokens, 0);
}

Test(fetch, expired_addresses_are_renewed)
{
    options.jobs = 3;
    start_hub();
    cdn.value[0] = 1;
    rig_fetch_whole();
    cr_expect_gt(cdn.value[3], 0, "nothing expired");
}

Test(fetch, hub_names_the_content_not_the_cdn)
{
    options.backoff_s = 0.01;
    start_hub();
    cr_assert_eq(fetch_ranges(f, &facts, path, &(fetch_range){0, 1000}, 1, NULL, &err), PR_OK, "%s", err.msg);
    strcpy(cdn.etag, "\"another-cdn\"");
    rig_fetch_whole();
    strcpy(site.text, "ff112233445566778899AABBCCDDEEFF00112233445566778899aabbccddeeff");
    fetch_discard(path);
    cr_expect_eq(fetch_ranges(f, &facts, path, &(fetch_range){0, 1000}, 1, NULL, &err), PR_EINTEGRITY);
    cr_expect(strstr(err.msg, "changed"), "%s", err.msg);
}

Test(fetch, addresses_that_fail_are_renewed)
{
    options.backoff_s = 0.01;
    start_hub();
    cdn.value[0] = 1;
    cdn.value[4] = 503;
    cdn.limit = a_fifth;
    rig_fetch_whole();
    cr_expect_eq(cdn.value[3], 5, "each of five addresses failed once: %d", cdn.value[3]);
}

/* Two addresses in a row that have expired before they are used. */
static bool refuse_twice(http_server *s, int fd, const http_request *r, bool *keep)
{
    (void)s;
    (void)keep;
    if (r->number != 2 && r->number != 3) return false;
    http_status(fd, 403, "");
    return true;
}

Test(fetch, addresses_that_expire_at_once)
{
    options.backoff_s = 0.01;
    start_hub();
    cdn.hook = refuse_twice;
    cdn.limit = a_fifth;
    rig_fetch_whole();
    cr_expect_geq(site.value[0], 3, "the hub was asked %d times", site.value[0]);
}

/* What the hub calls it is no tag of the CDN: If-Range with it would give the whole each time. */
Test(fetch, tag_of_the_hub_is_not_sent_on)
{
    options.jobs = 3;
    start_hub_with("a-tag-that-is-no-hash");
    cr_expect_str_empty(facts.sha256);
    rig_fetch_whole();
    cr_expect_gt(cdn.gets, 3, "%u requests: no ranges", cdn.gets);
}

/* A plain server's tag may look like a hash: it is its own all the same. */
Test(fetch, another_address_with_the_same_tag)
{
    uint64_t resumed;

    snprintf(site.etag, sizeof site.etag, "\"%064d\"", 7);
    rig_open();
    rig_head("/f");
    cr_assert_eq(fetch_ranges(f, &facts, path, &(fetch_range){0, 1000}, 1, NULL, &err), PR_OK, "%s", err.msg);
    rig_close();
    rig_open();
    rig_head("/g");
    cr_assert_eq(fetch_ranges(f, &facts, path, &(fetch_range){0, 1000}, 1, &resumed, &err), PR_OK, "%s",
                 err.msg);
    cr_expect_eq(resumed, 0);
}

static uint64_t another_tag(http_server *s, const http_request *r)
{
    if (r->number == 1) return 100000;
    strcpy(s->etag, "\"another-cdn\"");
    return UINT64_MAX;
}

Test(fetch, another_tag_of_the_cdn_is_asked_about)
{
    options.backoff_s = 0.01;
    start_hub();
    cdn.limit = another_tag;
    rig_fetch_whole();
    cr_expect_eq(site.value[0], 2, "the hub was asked %d times", site.value[0]);
}

Test(fetch, resumes_from_another_mirror_by_hash)
{
    uint64_t resumed;

    start_hub();
    cr_assert_eq(fetch_ranges(f, &facts, path, &(fetch_range){0, 1000}, 1, NULL, &err), PR_OK, "%s", err.msg);
    rig_close();
    rig_open();
    rig_head("/elsewhere/f");
    cr_assert_eq(fetch_ranges(f, &facts, path, &(fetch_range){0, 1000}, 1, &resumed, &err), PR_OK, "%s",
                 err.msg);
    cr_expect_eq(resumed, 1000);
}

/* --- other redirects -------------------------------------------------------------------------------- */
static bool lead_on(http_server *s, int fd, const http_request *r, bool *keep)
{
    (void)keep;
    if (strncmp(r->path, "/go", 3) != 0) return false;
    http_say(fd, "HTTP/1.1 302 T\r\nLocation: %s\r\nContent-Length: 3\r\n\r\nno\n", s->text);
    return true;
}

Test(fetch, redirect_to_a_plain_server)
{
    static http_server other;

    other = (http_server){.data = site.data, .n = site.n, .etag = "\"other\""};
    cr_assert(http_start(&other));
    site.hook = lead_on;
    strcpy(site.text, http_url(&other, "/f"));
    options.token = "hf_secret";
    options.token_origin = http_url(&site, "");
    rig_open();
    rig_head("/go");
    cr_expect_str_eq(facts.etag, "\"other\"");
    rig_fetch_whole();
    cr_expect_eq(other.tokens, 0);
}

Test(fetch, redirect_in_a_circle)
{
    site.hook = lead_on;
    strcpy(site.text, "/go");
    rig_open();
    cr_expect_eq(fetch_head(f, http_url(&site, "/go"), &facts, &err), PR_ENETWORK);
    cr_expect_eq(site.requests, 11, "%u", site.requests);
}

Test(fetch, redirects_that_are_refused)
{
    static const char *const bad[] = {"http://192.0.2.1/f", "file:///etc/passwd", "ftp://127.0.0.1/f",
                                      "http://", "scp://h/f"};

    site.hook = lead_on;
    rig_open();
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        strcpy(site.text, bad[i]);
        cr_expect_eq(fetch_head(f, http_url(&site, "/go"), &facts, &err), PR_ENETWORK, "%s", bad[i]);
        cr_expect(strstr(err.msg, "/go redirects"), "%s", err.msg);
    }
}

/* --- small bodies ----------------------------------------------------------------------------------- */
static bool api(http_server *s, int fd, const http_request *r, bool *keep)
{
    (void)s;
    (void)keep;
    if (!strcmp(r->path, "/api/1"))
        http_say(
            fd,
            "HTTP/1.1 200 T\r\nLink: </api/2?cursor=x>; rel=\"next\"\r\nContent-Length: 6\r\n\r\n{\"a\":1");
    else if (!strcmp(r->path, "/api/2?cursor=x"))
        http_say(fd, "HTTP/1.1 200 T\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n");
    else if (!strcmp(r->path, "/api/empty")) http_say(fd, "HTTP/1.1 200 T\r\nContent-Length: 0\r\n\r\n");
    else http_status(fd, atoi(r->path + 1), "");
    return true;
}

Test(fetch, text)
{
    char *text, *next, *none;
    size_t n;

    site.hook = api;
    rig_open();
    cr_assert_eq(fetch_text(f, http_url(&site, "/api/1"), 6, &text, &n, &next, &err), PR_OK, "%s", err.msg);
    cr_expect_str_eq(text, "{\"a\":1");
    cr_expect_eq(n, 6);
    cr_expect_str_eq(next, http_url(&site, "/api/2?cursor=x"));
    free(text);
    cr_assert_eq(fetch_text(f, next, 100, &text, &n, &none, &err), PR_OK, "%s", err.msg);
    cr_expect_str_eq(text, "{}");
    cr_expect_null(none);
    free(text);
    free(next);
    cr_assert_eq(fetch_text(f, http_url(&site, "/api/empty"), 100, &text, &n, NULL, &err), PR_OK, "%s",
                 err.msg);
    cr_expect_str_empty(text);
    free(text);
    cr_expect_eq(fetch_text(f, http_url(&site, "/api/1"), 5, &text, &n, NULL, &err), PR_EINTEGRITY);
}

Test(fetch, refusals_say_what_to_do)
{
    static const struct {
        int status, rc;
        const char *says;
    } t[] = {{401, PR_EAUTH, "HF_TOKEN"}, {403, PR_EAUTH, "HF_TOKEN"},   {404, PR_ENETWORK, "check name"},
             {410, PR_ENETWORK, "check"}, {451, PR_ENETWORK, "refuses"}, {418, PR_ENETWORK, "418"}};
    char *text, where[20];
    size_t n;

    site.hook = api;
    rig_open();
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        snprintf(where, sizeof where, "/%d", t[i].status);
        cr_expect_eq(fetch_text(f, http_url(&site, where), 100, &text, &n, NULL, &err), t[i].rc, "%d",
                     t[i].status);
        cr_expect(strstr(err.msg, t[i].says) && strstr(err.msg, where), "%s", err.msg);
        cr_expect_eq(fetch_head(f, http_url(&site, where), &facts, &err), t[i].rc, "%d", t[i].status);
    }
    cr_expect_leq(site.requests, 2 * sizeof t / sizeof *t + 1, "asked again: %u", site.requests);
}

Test(fetch, head_is_refused_but_get_is_not)
{
    site.hook = fail_some;
    site.value[0] = 405;
    rig_open();
    rig_head("/f");
    cr_expect(facts.bytes == site.n && facts.has_ranges);
}

Test(fetch, options_that_are_refused)
{
    static const struct {
        const char *token, *origin;
        unsigned jobs;
        int rc;
    } t[] = {{"a\r\nX: y", "https://h", 1, PR_EAUTH},
             {"", "https://h", 1, PR_EAUTH},
             {"a\n", "https://h", 1, PR_EAUTH},
             {"a", NULL, 1, PR_EUSAGE},
             {"a", "h", 1, PR_EUSAGE},
             {NULL, NULL, 65, PR_EUSAGE}};
    char *text;
    size_t n;

    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        fetch *g;
        const fetch_options o = {.token = t[i].token, .token_origin = t[i].origin, .jobs = t[i].jobs};
        cr_expect_eq(fetch_new(&g, &o, &err), t[i].rc, "%d", (int)i);
        if (t[i].token && *t[i].token) cr_expect_null(strstr(err.msg, "X: y"));
    }
    rig_open();
    cr_expect_eq(fetch_text(f, "http://192.0.2.1/", 9, &text, &n, NULL, &err), PR_EUSAGE);
    cr_expect(strstr(err.msg, "--insecure-http"), "%s", err.msg);
    cr_expect_eq(fetch_head(f, "ftp://192.0.2.1/", &facts, &err), PR_EUSAGE);
}
