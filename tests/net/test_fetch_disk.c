/* The disk's side of fetch.h: journals that lie, kills, locks, full disks, and files as a source. */
#include "net/fetch.h"
#include "src/base/clock.h"
#include "src/base/file.h"
#include "tests/net/fetch_rig.h"
#include <criterion/criterion.h>
#include <errno.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>

TestSuite(fetch_disk, .init = rig_setup, .fini = rig_clear, .timeout = 60);

static char journal_path[120], part_path[120];

static void names(void)
{
    snprintf(journal_path, sizeof journal_path, "%s.part.json", path);
    snprintf(part_path, sizeof part_path, "%s.part", path);
}

static void sleep_ms(long ms)
{
    nanosleep(&(struct timespec){ms / 1000, ms % 1000 * 1000000}, NULL);
}

/* --- journals --------------------------------------------------------------------------------------- */
enum { FIRST_MILLION = 1000000 };

static void write_journal(const char *text)
{
    cr_assert_eq(file_write_atomic(journal_path, text, strlen(text), &err), PR_OK, "%s", err.msg);
}

/* A million bytes are there and the journal says so; then the journal (NULL: no more of it) says `text`. */
static uint64_t resumed_with(const char *text)
{
    uint64_t resumed;

    rig_open();
    rig_head("/f");
    fetch_discard(path);
    cr_assert_eq(fetch_ranges(f, &facts, path, &(fetch_range){0, FIRST_MILLION}, 1, NULL, &err), PR_OK, "%s",
                 err.msg);
    rig_close();
    if (text) write_journal(text);
    else cr_assert_eq(unlink(journal_path), 0);
    rig_open();
    rig_head("/f");
    cr_assert_eq(fetch_ranges(f, &facts, path, &(fetch_range){0, site.n}, 1, &resumed, &err), PR_OK, "%s",
                 err.msg);
    rig_expect_bytes(0, site.n);
    rig_close();
    return resumed;
}

static const char *journal_of(const char *etag, const char *done)
{
    static char text[600];

    snprintf(text, sizeof text,
             "{\"schema\":\"prima/part/"
             "1\",\"url\":\"%s\",\"etag\":\"%s\",\"size\":%d,\"commit\":\"\",\"done\":%s}\n",
             http_url(&site, "/f"), etag, (int)site.n, done);
    return text;
}

Test(fetch_disk, journal_is_believed_when_it_fits)
{
    names();
    cr_expect_eq(resumed_with(journal_of("\\\"v1\\\"", "[[0,1000000]]")), FIRST_MILLION);
    cr_expect_eq(resumed_with(journal_of("\\\"v1\\\"", "[[0,10],[20,1000]]")), 990);
}

Test(fetch_disk, journals_that_do_not_fit)
{
    static const char *const hostile[] = {"[[0,6000124]]",
                                          "[[-5,10]]",
                                          "[[10,5]]",
                                          "[[5,10],[0,3]]",
                                          "[[0,10],[10,20]]",
                                          "[[0,10],[5,20]]",
                                          "[[0]]",
                                          "[0,10]",
                                          "[[0,10,20]]",
                                          "[[0,1e6]]",
                                          "[[0,\"10\"]]",
                                          "{}",
                                          "[[0,9223372036854775807]]",
                                          "[[0,18446744073709551617]]",
                                          "[[0,10]",
                                          "[[0,0]]"};
    static const char *const garbage[] = {
        "",
        "\n",
        "{",
        "[]",
        "null",
        "\x7f\x45\x4c\x46",
        "{\"schema\":\"prima/part/1\"}",
        "{\"schema\":\"prima/part/1\",\"size\":6000123,\"done\":[[0,1000000]]}"};
    char torn[600];

    names();
    for (size_t i = 0; i < sizeof hostile / sizeof *hostile; i++)
        cr_expect_eq(resumed_with(journal_of("\\\"v1\\\"", hostile[i])), 0, "%s", hostile[i]);
    for (size_t i = 0; i < sizeof garbage / sizeof *garbage; i++)
        cr_expect_eq(resumed_with(garbage[i]), 0, "%s", garbage[i]);
    cr_expect_eq(resumed_with(journal_of("\\\"v0\\\"", "[[0,1000000]]")), 0, "another version");
    cr_expect_eq(resumed_with(NULL), 0);
    snprintf(torn, sizeof torn, "%s", journal_of("\\\"v1\\\"", "[[0,1000000]]"));
    torn[strlen(torn) - 20] = 0;
    cr_expect_eq(resumed_with(torn), 0);
    torn[9] = 'x';
    cr_expect_eq(resumed_with(torn), 0);
}

Test(fetch_disk, journal_of_another_schema_or_url_or_size)
{
    char text[600], *at;

    names();
    snprintf(text, sizeof text, "%s", journal_of("\\\"v1\\\"", "[[0,1000000]]"));
    *(strstr(text, "part/1") + 5) = '2';
    cr_expect_eq(resumed_with(text), 0);
    snprintf(text, sizeof text, "%s", journal_of("\\\"v1\\\"", "[[0,1000000]]"));
    at = strstr(text, "/f\"");
    at[1] = 'g';
    cr_expect_eq(resumed_with(text), 0);
    snprintf(text, sizeof text, "%s", journal_of("\\\"v1\\\"", "[[0,1000000]]"));
    *strstr(text, "6000123") = '7';
    cr_expect_eq(resumed_with(text), 0);
}

/* Somebody has cut or removed PATH.part, and left the journal. */
Test(fetch_disk, journal_without_its_file)
{
    uint64_t resumed;

    names();
    for (int i = 0; i < 2; i++) {
        rig_open();
        rig_head("/f");
        cr_assert_eq(fetch_ranges(f, &facts, path, &(fetch_range){0, FIRST_MILLION}, 1, NULL, &err), PR_OK);
        fetch_free(f);
        cr_assert_eq(i ? unlink(part_path) : truncate(part_path, 500000), 0);
        cr_expect_not(fetch_is_done(path, &facts, &(fetch_range){0, 1000}, 1));
        rig_open();
        cr_assert_eq(fetch_ranges(f, &facts, path, &(fetch_range){0, site.n}, 1, &resumed, &err), PR_OK);
        cr_expect_eq(resumed, 0);
        rig_expect_bytes(0, site.n);
        rig_close();
        fetch_discard(path);
    }
}

/* The same tag, but not the same length: no version of one file. */
Test(fetch_disk, another_length_under_the_same_tag)
{
    uint64_t resumed;

    rig_open();
    rig_head("/f");
    cr_assert_eq(fetch_ranges(f, &facts, path, &(fetch_range){0, FIRST_MILLION}, 1, NULL, &err), PR_OK);
    rig_close();
    site.n -= 5;
    rig_open();
    rig_head("/f");
    cr_assert_eq(fetch_ranges(f, &facts, path, &(fetch_range){0, site.n}, 1, &resumed, &err), PR_OK, "%s",
                 err.msg);
    cr_expect_eq(resumed, 0);
    rig_expect_bytes(0, site.n);
}

Test(fetch_disk, without_a_version_another_process_starts_over)
{
    uint64_t resumed;

    *site.etag = 0;
    rig_open();
    rig_head("/f");
    cr_assert_eq(fetch_ranges(f, &facts, path, &(fetch_range){0, FIRST_MILLION}, 1, NULL, &err), PR_OK);
    cr_assert_eq(fetch_ranges(f, &facts, path, &(fetch_range){0, FIRST_MILLION + 1}, 1, &resumed, &err),
                 PR_OK);
    cr_expect_eq(resumed, FIRST_MILLION, "the same handle knows");
    fetch_free(f);
    rig_open();
    cr_assert_eq(fetch_ranges(f, &facts, path, &(fetch_range){0, FIRST_MILLION}, 1, &resumed, &err), PR_OK);
    cr_expect_eq(resumed, 0);
}

/* What a process left that was killed while it replaced the journal; and somebody's own file. */
Test(fetch_disk, torn_temporaries_are_swept)
{
    char torn[150], own[150];

    names();
    snprintf(torn, sizeof torn, "%s.tmp4711", journal_path);
    snprintf(own, sizeof own, "%s.tmp4711.bak", journal_path);
    cr_assert_eq(file_write_atomic(torn, "{", 1, &err), PR_OK);
    cr_assert_eq(file_write_atomic(own, "{", 1, &err), PR_OK);
    rig_open();
    rig_head("/f");
    rig_fetch_whole();
    cr_expect_neq(access(torn, F_OK), 0);
    cr_expect_eq(access(own, F_OK), 0);
}

/* --- killed ----------------------------------------------------------------------------------------- */
static bool slowly(http_server *s, int fd, const http_request *r, bool *keep)
{
    if (strcmp(r->method, "GET") != 0) return false;
    *keep = true;
    http_say(fd,
             "HTTP/1.1 206 T\r\nETag: \"v1\"\r\nContent-Range: bytes %d-%d/%d\r\nContent-Length: %d\r\n\r\n",
             (int)r->first, (int)r->end - 1, (int)s->n, (int)(r->end - r->first));
    for (uint64_t at = r->first; at < r->end; at += 20000) {
        http_send(fd, s->data + at, r->end - at < 20000 ? r->end - at : 20000);
        sleep_ms(s->value[0]);
    }
    return true;
}

/* Fetches in a process of its own, which never comes back. */
static pid_t fetch_in_child(void)
{
    pid_t pid = fork();

    if (pid) return pid;
    if (!fetch_new(&f, &options, &err))
        fetch_ranges(f, &facts, path, &(fetch_range){0, site.n}, 1, NULL, &err);
    _exit(err.code ? 1 : 0);
}

static void kill_child(pid_t pid)
{
    int status;

    kill(pid, SIGKILL);
    cr_assert_eq(waitpid(pid, &status, 0), pid);
    cr_assert(WIFSIGNALED(status), "it ended before");
}

/* What the journal claims, byte by byte. */
static uint64_t check_claims(void)
{
    uint64_t claimed = 0;
    const uint8_t *text = rig_part();

    for (uint64_t at = 0; at < site.n; at += 1000) {
        fetch_range r = {at, at + 1000 < site.n ? at + 1000 : site.n};
        if (!fetch_is_done(path, &facts, &r, 1)) continue;
        cr_assert(memcmp(text + r.first, site.data + r.first, r.end - r.first) == 0, "byte %d", (int)at);
        claimed += r.end - r.first;
    }
    return claimed;
}

Test(fetch_disk, killed_twice)
{
    uint64_t claimed = 0, resumed;

    names();
    site.hook = slowly;
    site.value[0] = 10; /* 2 MB/s and connection */
    options.jobs = 2;
    rig_open();
    rig_head("/f");
    for (int i = 0; i < 2; i++) {
        pid_t pid = fetch_in_child();
        sleep_ms(1400); /* the journal is written each second; on a slow disk that takes a while itself */
        for (int tries = 0; tries < 100 && check_claims() <= claimed; tries++) sleep_ms(100);
        kill_child(pid);
        uint64_t now = check_claims();
        cr_expect_gt(now, claimed, "%lld after %lld", (long long)now, (long long)claimed);
        claimed = now;
        site.value[0] = 40;
    }
    site.value[0] = 0;
    cr_assert_eq(fetch_ranges(f, &facts, path, &(fetch_range){0, site.n}, 1, &resumed, &err), PR_OK, "%s",
                 err.msg);
    cr_expect_geq(resumed, claimed);
    rig_expect_bytes(0, site.n);
}

/* --- locks ------------------------------------------------------------------------------------------ */
Test(fetch_disk, two_processes)
{
    char pid_text[40];
    pid_t pid;

    names();
    site.hook = slowly;
    site.value[0] = 1000;
    rig_open();
    rig_head("/f");
    pid = fetch_in_child();
    for (int i = 0; i < 300 && access(journal_path, F_OK); i++) sleep_ms(10);
    cr_expect_eq(fetch_ranges(f, &facts, path, &(fetch_range){0, 9}, 1, NULL, &err), PR_ERESOURCE);
    snprintf(pid_text, sizeof pid_text, "pid %ld", (long)pid);
    cr_expect(strstr(err.msg, "another process") && strstr(err.msg, pid_text), "%s", err.msg);
    kill_child(pid);
    site.hook = NULL;
    rig_fetch_whole();
}

Test(fetch_disk, two_handles)
{
    fetch *other;

    rig_open();
    rig_head("/f");
    cr_assert_eq(fetch_ranges(f, &facts, path, &(fetch_range){0, 9}, 1, NULL, &err), PR_OK);
    cr_assert_eq(fetch_new(&other, &options, &err), PR_OK);
    cr_expect_eq(fetch_ranges(other, &facts, path, &(fetch_range){0, 9}, 1, NULL, &err), PR_ERESOURCE);
    fetch_free(f);
    f = other;
    cr_expect_eq(fetch_ranges(other, &facts, path, &(fetch_range){0, 9}, 1, NULL, &err), PR_OK, "%s",
                 err.msg);
}

/* The caller renames PATH.part: the next fetch into PATH is a new one. */
Test(fetch_disk, renamed_meanwhile)
{
    uint64_t resumed;

    names();
    rig_open();
    rig_head("/f");
    rig_fetch_whole();
    cr_assert_eq(rename(part_path, path), 0);
    fetch_discard(path);
    cr_assert_eq(fetch_ranges(f, &facts, path, &(fetch_range){0, 9}, 1, &resumed, &err), PR_OK, "%s",
                 err.msg);
    cr_expect_eq(resumed, 0);
    cr_expect_eq(access(path, F_OK), 0);
}

/* --- disks ------------------------------------------------------------------------------------------ */
/* A small disk of this test's own at the folder, gone with the test's process. */
static void mount_tmpfs(const char *size)
{
#ifdef __linux__
    if (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
        mount("tmpfs", folder, "tmpfs", 0, size))
        cr_skip_test("no file system of its own for this test: %s", strerror(errno));
#else
    cr_skip_test("no way to mount %s here", size);
#endif
}

Test(fetch_disk, too_small_before_the_first_byte)
{
    names();
    mount_tmpfs("size=512m");
    rig_open();
    rig_head("/f");
    cr_expect_eq(fetch_ranges(f, &facts, path, &(fetch_range){0, site.n}, 1, NULL, &err), PR_ERESOURCE);
    cr_expect(strstr(err.msg, "disk full") && strstr(err.msg, "6000123"), "%s", err.msg);
    cr_expect_eq(site.gets, 0);
    rig_expect_no_part();
}

static void shrink(void *arg, uint64_t done, uint64_t total)
{
    (void)total;
    if (done > 1000000 && !*(int *)arg)
        *(int *)arg = mount(NULL, folder, NULL, MS_REMOUNT, "size=3m") ? -1 : 1;
}

static uint64_t two_million(http_server *s, const http_request *r)
{
    (void)s;
    return r->number == 2 ? 2000000 : UINT64_MAX;
}

Test(fetch_disk, full_in_the_middle)
{
    uint64_t resumed;
    int shrunk = 0;

    names();
    mount_tmpfs("size=1100m");
    site.limit = two_million;
    options.progress = shrink;
    options.progress_arg = &shrunk;
    options.backoff_s = 20; /* the first pause is a tenth of it: time for a journal */
    rig_open();
    rig_head("/f");
    cr_expect_eq(fetch_ranges(f, &facts, path, &(fetch_range){0, site.n}, 1, NULL, &err), PR_ERESOURCE);
    cr_assert_eq(shrunk, 1);
    cr_expect(strstr(err.msg, "still missing") && strstr(err.msg, "No space"), "%s", err.msg);
    rig_close();
    options.progress = NULL;
    cr_assert_eq(mount(NULL, folder, NULL, MS_REMOUNT, "size=1100m"), 0);
    rig_open();
    rig_head("/f");
    cr_assert_eq(fetch_ranges(f, &facts, path, &(fetch_range){0, site.n}, 1, &resumed, &err), PR_OK, "%s",
                 err.msg);
    cr_expect_gt(resumed, 2600000, "the journal is older: %d", (int)resumed);
    rig_expect_bytes(0, site.n);
}

Test(fetch_disk, limit_of_file_size)
{
    names();
    signal(SIGXFSZ, SIG_IGN);
    cr_assert_eq(setrlimit(RLIMIT_FSIZE, &(struct rlimit){2000000, 2000000}), 0);
    rig_open();
    rig_head("/f");
    cr_expect_eq(fetch_ranges(f, &facts, path, &(fetch_range){0, site.n}, 1, NULL, &err), PR_ERESOURCE);
    cr_expect(strstr(err.msg, "File too large"), "%s", err.msg);
}

Test(fetch_disk, places_that_are_refused)
{
    static const char *const what[] = {"dir", "link", "fifo", "none"};

    rig_open();
    rig_head("/f");
    for (size_t i = 0; i < sizeof what / sizeof *what; i++) {
        snprintf(path, sizeof path, "%s/%s%s", folder, what[i], i == 3 ? "/f" : "");
        names();
        if (i == 0) cr_assert_eq(mkdir(part_path, 0777), 0);
        if (i == 1) cr_assert_eq(symlink("/tmp/nowhere-at-all", part_path), 0);
        if (i == 2) cr_assert_eq(mkfifo(part_path, 0666), 0);
        cr_expect_eq(fetch_ranges(f, &facts, path, &(fetch_range){0, 9}, 1, NULL, &err), PR_ERESOURCE, "%s",
                     what[i]);
        cr_expect(strstr(err.msg, part_path), "%s", err.msg);
    }
}

/* The journal is written where it stands, not where somebody's link leads. */
Test(fetch_disk, a_journal_that_is_a_link)
{
    char victim[120], *text;
    size_t n;

    rig_open();
    rig_head("/f");
    names();
    snprintf(victim, sizeof victim, "%s/victim", folder);
    cr_assert_eq(file_write_atomic(victim, "mine", 4, &err), PR_OK);
    cr_assert_eq(symlink(victim, journal_path), 0);
    cr_expect_eq(fetch_ranges(f, &facts, path, &(fetch_range){0, site.n}, 1, NULL, &err), PR_ERESOURCE);
    cr_expect(strstr(err.msg, journal_path), "%s", err.msg);
    cr_assert_eq(file_slurp(&text, &n, victim, 100, &err), PR_OK);
    cr_expect_str_eq(text, "mine");
    free(text);
}

/* --- files as a source ------------------------------------------------------------------------------ */
Test(fetch_disk, local_file)
{
    const fetch_range part = {1000, 3000000};
    char source[120], url[200], *text;
    uint8_t got[50];
    uint64_t resumed;
    size_t n;

    snprintf(source, sizeof source, "%s/a model.gguf", folder);
    cr_assert_eq(file_write_atomic(source, site.data, site.n, &err), PR_OK);
    snprintf(url, sizeof url, "file://%s/a%%20model.gguf", folder);
    rig_open();
    cr_assert_eq(fetch_head(f, url, &facts, &err), PR_OK, "%s", err.msg);
    cr_expect(facts.has_bytes && facts.has_ranges && facts.bytes == site.n);
    cr_assert_eq(fetch_bytes(f, &facts, site.n - 50, 50, got, &err), PR_OK, "%s", err.msg);
    cr_expect_arr_eq(got, site.data + site.n - 50, 50);
    cr_assert_eq(fetch_ranges(f, &facts, path, &part, 1, NULL, &err), PR_OK, "%s", err.msg);
    rig_expect_hole(0, part.first);
    rig_expect_bytes(part.first, part.end);
    fetch_free(f);
    rig_open();
    cr_assert_eq(fetch_ranges(f, &facts, path, &(fetch_range){0, site.n}, 1, &resumed, &err), PR_OK, "%s",
                 err.msg);
    cr_expect_eq(resumed, part.end - part.first);
    rig_expect_bytes(0, site.n);
    cr_expect_eq(fetch_text(f, source, 100, &text, &n, NULL, &err), PR_EUSAGE, "too large");
    cr_expect_eq(site.requests, 0);
    /* Another version of it. */
    fetch_discard(path);
    cr_assert_eq(file_write_atomic(source, site.data, site.n - 1, &err), PR_OK);
    cr_expect_eq(fetch_ranges(f, &facts, path, &part, 1, NULL, &err), PR_EINTEGRITY);
    cr_expect_eq(fetch_head(f, "file:///nowhere/at/all", &(fetch_facts){0}, &err), PR_ERESOURCE);
    cr_expect_eq(fetch_head(f, "file://other/f", &(fetch_facts){0}, &err), PR_EUSAGE);
    cr_expect_eq(fetch_head(f, folder, &(fetch_facts){0}, &err), PR_ERESOURCE);
}
