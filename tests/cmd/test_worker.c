/* prima worker as people and systemd start it: options, the address on standard output, strangers at the
 * door, and how it ends. What it computes is tested with the ring; how `prima run` starts it in
 * test_launch.c. */
#include "net/frame.h"
#include "src/base/clock.h"
#include "src/run/control.h"
#include "tests/common/prima.h"
#include <criterion/criterion.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static pr_err err;
static pid_t worker;
static const sock_options no_options = {.lost_after_ms = 0};

static void setup(void)
{
    signal(SIGPIPE, SIG_IGN);
    test_dir_new();
    setenv("PRIMA_KEY_FILE", in_dir("key"), 1);
    cr_assert_eq(prima_run(NULL, (const char *[]){"keygen", NULL}).status, 0);
}

static void teardown(void)
{
    if (worker > 0) kill(worker, SIGKILL);
    test_dir_remove();
}
TestSuite(worker, .init = setup, .fini = teardown, .timeout = 60);

/* --- options ---------------------------------------------------------------------------------------------
 */
Test(worker, options)
{
    static const struct {
        const char *argv[7], *says;
        int status;
    } cases[] = {
        {{"worker", NULL}, "--listen ADDR:PORT", 2},
        {{"worker", "--listen", "9700", NULL}, "the port is missing", 2},
        {{"worker", "--listen", "127.0.0.1:0", "more", NULL}, "expected: prima worker", 2},
        {{"worker", "--listen", "127.0.0.1:0", "--threads", "257", NULL}, "--threads 257", 2},
        {{"worker", "--listen", "192.0.2.1:9700", NULL}, "not an address of this machine", 2},
        {{"worker", "--stdio", "--insecure", NULL}, "no other option", 2},
        {{"worker", "--stdio", "--listen", "127.0.0.1:0", NULL}, "no other option", 2},
        {{"worker", "--stdio", "--probe", NULL}, "--probe and --stdio", 2},
        {{"worker", "--probe", "--model", "x.gguf", NULL}, "do not go with --probe", 2},
        {{"worker", "--listen", "127.0.0.1:0", "--key-file", "/nonexistent", NULL}, "prima keygen", 7},
        {{"worker", "--stdio", NULL}, "standard input ended", 6}, /* /dev/null */
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        prima_result r = prima_run(NULL, cases[i].argv);
        cr_expect_eq(r.status, cases[i].status, "case %zu: %d: %s", i, r.status, r.err);
        cr_expect(strstr(r.err, cases[i].says), "case %zu: %s", i, r.err);
    }
}

Test(worker, key_file_that_others_can_read)
{
    cr_assert_eq(chmod(in_dir("key"), 0644), 0);
    prima_result r = prima_run(NULL, (const char *[]){"worker", "--listen", "127.0.0.1:0", NULL});
    cr_expect_eq(r.status, 7);
    cr_expect(strstr(r.err, "chmod 600"), "%s", r.err);
}

Test(worker, port_in_use)
{
    const sock_addr any = {.host = "127.0.0.1"};
    sock_listener l;

    cr_assert_eq(sock_listen(&l, &any, &no_options, &err), PR_OK);
    prima_result r = prima_run(in_dir("out"), (const char *[]){"worker", "--listen", l.address, NULL});
    cr_expect_eq(r.status, 9);
    cr_expect(strstr(r.err, "the port is in use"), "%s", r.err);
    char *out = read_file(in_dir("out"));
    cr_expect_str_empty(out, "an address is printed when connections can come");
    free(out);
    sock_listener_close(&l);
}

/* --- a worker that runs ----------------------------------------------------------------------------------
 */
static sock_addr start_worker(const char *option)
{
    sock_addr at;
    struct stat st;

    worker =
        prima_start(in_dir("address"), (const char *[]){"worker", "--listen", "127.0.0.1:0", option, NULL});
    for (int i = 0; (stat(in_dir("address"), &st) || !st.st_size) && i < 1000; i++)
        nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
    char *text = read_file(in_dir("address"));
    cr_assert_eq(count_lines(in_dir("address")), 1u);
    text[strcspn(text, "\n")] = 0;
    cr_assert_eq(sock_addr_parse(&at, text, false, &err), PR_OK, "%s", err.msg);
    free(text);
    return at;
}

static prima_result end_worker(int sig)
{
    uint64_t start = clock_ns();

    cr_assert_eq(kill(worker, sig), 0);
    prima_result r = prima_wait(worker);
    worker = 0;
    cr_expect_lt(clock_ms_since(start), 4500, "nobody's five seconds are waited for");
    return r;
}

static sock visit(const sock_addr *at)
{
    sock s;

    cr_assert_eq(sock_connect(&s, at, &no_options, false, sock_deadline(5), &err), PR_OK, "%s", err.msg);
    return s;
}

/* A head that says hello with this version, and what it is answered. isa: that it asks for, or NULL. */
static char *greet_once(const sock_addr *at, const security *sec, const char *version, const char *isa,
                        control **k)
{
    json_t *hello = json_pack("{s:s, s:s}", "type", "hello", "prima", version);
    sock s = visit(at);
    channel *c;
    json_t *answer;
    char *line;

    cr_assert_eq(channel_open(&c, &s, CHANNEL_CLIENT, sec, sock_deadline(5), &err), PR_OK, "%s", err.msg);
    cr_assert_eq(control_new(k, c, 5, &err), PR_OK, "%s", err.msg);
    if (isa) json_object_set_new(hello, "isa", json_string(isa));
    cr_assert_eq(control_send(*k, hello, &err), PR_OK);
    cr_assert_eq(control_recv(*k, &answer, &err), PR_OK, "%s", err.msg);
    line = json_line(answer);
    json_decref(answer);
    return line;
}

/* The same, when the worker has noticed that the last head is gone. */
static char *greet_with(const sock_addr *at, const security *sec, const char *version, const char *isa,
                        control **k)
{
    char *answer = greet_once(at, sec, version, isa, k);

    for (int i = 0; i < 100 && strstr(answer, "serves another run"); i++) {
        control_close(*k);
        free(answer);
        nanosleep(&(struct timespec){.tv_nsec = 100000000}, NULL);
        answer = greet_once(at, sec, version, isa, k);
    }
    return answer;
}

static char *greet_as(const sock_addr *at, const security *sec, const char *version, control **k)
{
    return greet_with(at, sec, version, NULL, k);
}

/* The version as it is in `prima --version`; before start_worker, which has the file of messages from then
 * on. */
static void get_version(char *out, size_t n)
{
    char *text;

    cr_assert_eq(prima_run(in_dir("version"), (const char *[]){"--version", NULL}).status, 0);
    text = read_file(in_dir("version"));
    snprintf(out, n, "%.*s", (int)strcspn(text + 6, " \n"), text + 6);
    free(text);
}

Test(worker, serves_heads_one_after_another_until_a_signal)
{
    cluster_key key;
    security sec;
    char version[64], *answer;
    control *k;
    sock_addr at;

    get_version(version, sizeof version);
    at = start_worker(NULL);
    cr_assert_eq(security_read(&sec, &key, NULL, false, &err), PR_OK);
    for (int i = 0; i < 2; i++) {
        answer = greet_as(&at, &sec, version, &k);
        cr_expect(strstr(answer, "\"hello\""), "%s", answer);
        control_close(k); /* and goes away */
        free(answer);
    }
    answer = greet_as(&at, &sec, "another", &k);
    cr_expect(strstr(answer, "install the same on both"), "%s", answer);
    control_close(k);
    free(answer);
    prima_result r = end_worker(SIGTERM);
    cr_expect_eq(r.status, 0, "%s", r.err);
    cr_expect(strstr(r.err, "for holders of key ") && strstr(r.err, "a run begins"), "%s", r.err);
}

/* No CPU has both avx2 and neon. What it cannot do it says by name, and waits for the next head. */
Test(worker, instruction_sets_that_it_has_not)
{
    static const struct {
        const char *isa, *answer;
    } cases[] = {{"ref", "\"isa\":\"ref\""},
                 {"avx2", "this CPU does not have it"},
                 {"neon", "this CPU does not have it"},
                 {"zx81", "an instruction set that is none"}};
    char version[64];
    cluster_key key;
    security sec;
    sock_addr at;
    size_t n_refused = 0;

    get_version(version, sizeof version);
    at = start_worker(NULL);
    cr_assert_eq(security_read(&sec, &key, NULL, false, &err), PR_OK);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        control *k;
        char *answer = greet_with(&at, &sec, version, cases[i].isa, &k);
        bool refused = strstr(answer, "\"fail\"") != NULL;
        n_refused += refused;
        cr_expect(strstr(answer, cases[i].answer) || (!refused && strstr(answer, cases[i].isa)), "%s: %s",
                  cases[i].isa, answer);
        control_close(k);
        free(answer);
    }
    cr_expect_geq(n_refused, 2u);
    cr_expect_eq(end_worker(SIGTERM).status, 0);
}

Test(worker, a_signal_ends_it_in_the_middle_of_a_run)
{
    cluster_key key;
    security sec;
    char version[64], *answer;
    control *k;
    sock_addr at;

    get_version(version, sizeof version);
    at = start_worker(NULL);
    cr_assert_eq(security_read(&sec, &key, NULL, false, &err), PR_OK);
    answer = greet_as(&at, &sec, version, &k);
    cr_expect(strstr(answer, "\"hello\""), "%s", answer);
    cr_expect_eq(end_worker(SIGINT).status, 0);
    control_close(k);
    free(answer);
}

Test(worker, strangers_do_not_end_it)
{
    static const char *const hello[] = {"GET / HTTP/1.1\r\n\r\n", "\x16\x03\x01", ""};
    sock_addr at = start_worker(NULL);
    cluster_key key;
    security sec;
    sock silent;
    channel *c;

    for (size_t i = 0; i < sizeof hello / sizeof *hello; i++) {
        sock s = visit(&at);
        cr_assert_eq(sock_write(&s, hello[i], strlen(hello[i]), sock_deadline(1), NULL), PR_OK);
        sock_close(&s);
    }
    cr_assert_eq(security_read(&sec, &key, NULL, false, &err), PR_OK);
    silent = visit(&at);
    cr_expect_eq(channel_open(&c, &silent, CHANNEL_CLIENT, &sec, sock_deadline(8), &err), PR_OK, "%s",
                 err.msg);
    cr_expect_eq(end_worker(SIGTERM).status, 0);
    channel_close(c);
}

Test(worker, insecure_is_said_aloud)
{
    start_worker("--insecure");
    prima_result r = end_worker(SIGTERM);
    cr_expect_eq(r.status, 0);
    cr_expect(strstr(r.err, "INSECURE: for anyone"), "%s", r.err);
}
