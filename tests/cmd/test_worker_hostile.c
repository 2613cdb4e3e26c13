/* A worker among strangers: whoever is not its head, or says what a head does not say, is shown the door
 * within seconds, with one line in the log, and the right head is served afterwards, with the right output;
 * also while strangers come and go. And a head that holds the key, but whose job or ring makes no sense. */
#include "src/base/clock.h"
#include "src/run/control.h"
#include "src/run/job.h"
#include "src/run/ship.h"
#include "tests/common/prima.h"
#include "tests/common/ring_plan.h"
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MODEL_PATH "datasets/demo/demo.gguf"
enum { HEAD, WORKER, N_DEVICES };
static const double GREETING_S = 5; /* that a worker waits for a stranger's first words */
static const sock_options no_options = {.lost_after_ms = 0};
static pr_err err;
static cluster_key key;
static security sec = {.key = &key};
static uint16_t port[N_DEVICES];
static sock_addr at; /* of the worker */
static char version[64];
static pid_t worker;
static model m;
static ship_source *source;

static void must(int rc)
{
    cr_assert_eq(rc, PR_OK, "%s", err.msg);
}

static void sleep_ms(long ms)
{
    nanosleep(&(struct timespec){ms / 1000, ms % 1000 * 1000000}, NULL);
}

/* --- a plan, its prompts, and what one device answers ------------------------------------------------------
 */
static void find_ports(void)
{
    sock_listener l[N_DEVICES];
    sock_addr any = {.host = "127.0.0.1"}, a;

    for (int i = 0; i < N_DEVICES; i++) must(sock_listen(&l[i], &any, &no_options, &err));
    for (int i = 0; i < N_DEVICES; i++) {
        must(sock_addr_parse(&a, l[i].address, false, &err));
        port[i] = a.port;
        sock_listener_close(&l[i]);
    }
    at = (sock_addr){.host = "127.0.0.1", .port = port[WORKER]};
}

static char *make_plan(uint32_t n_layers, size_t *n)
{
    plan *p = ring_plan_new(N_DEVICES, 2, n_layers, m.header_sha256, port);
    char *text;

    cr_assert_not_null(p);
    text = plan_text(p, n);
    cr_assert_not_null(text);
    plan_free(p);
    return text;
}

static void write_job(void)
{
    size_t n;
    char *text = make_plan(m.hp.n_layers, &n);
    FILE *f = fopen(in_dir("prompts"), "w");

    write_file(in_dir("plan.yaml"), text);
    free(text);
    for (int i = 0; i < 12; i++)
        fprintf(f,
                "{\"id\":\"p%d\",\"prompt\":\"Once upon a time there was a "
                "%s\",\"max_tokens\":%d,\"ignore_eos\":true}\n",
                i, i % 2 ? "dog" : "cat", 20 + i);
    fclose(f);
}

static void get_version(void)
{
    cr_assert_eq(prima_run(in_dir("version"), (const char *[]){"--version", NULL}).status, 0);
    char *text = read_file(in_dir("version"));
    snprintf(version, sizeof version, "%.*s", (int)strcspn(text + 6, " \n"), text + 6);
    free(text);
}

/* --- the worker: a process with a log of its own -----------------------------------------------------------
 */
static void start_worker(void)
{
    char program[4096], listen[64];
    ssize_t n = readlink("/proc/self/exe", program, sizeof program - 32);
    struct stat st;

    cr_assert_gt(n, 0);
    program[n] = 0;
    for (int up = 0; up < 3; up++) *strrchr(program, '/') = 0;
    strcat(program, "/prima");
    snprintf(listen, sizeof listen, "127.0.0.1:%u", port[WORKER]);
    write_file(in_dir("address"), "");
    fflush(NULL);
    cr_assert_geq(worker = fork(), 0);
    if (!worker) {
        dup2(open("/dev/null", O_RDONLY), 0);
        dup2(open(in_dir("address"), O_WRONLY), 1);
        dup2(open(in_dir("log"), O_WRONLY | O_CREAT | O_TRUNC | O_APPEND, 0644), 2);
        execl(program, program, "worker", "--listen", listen, "--model", MODEL_PATH, "--threads", "1",
              (char *)NULL);
        _exit(127);
    }
    for (int i = 0; (stat(in_dir("address"), &st) || !st.st_size) && i < 1000; i++) sleep_ms(10);
    cr_assert_eq(count_lines(in_dir("address")), 1u, "the worker has not started");
}

static void setup(void)
{
    signal(SIGPIPE, SIG_IGN);
    test_dir_new();
    setenv("PRIMA_KEY_FILE", in_dir("key"), 1);
    cr_assert_eq(prima_run(NULL, (const char *[]){"keygen", NULL}).status, 0);
    must(key_read(&key, in_dir("key"), &err));
    must(model_open(&m, MODEL_PATH, &err));
    must(ship_source_new(&source, &m, &err));
    get_version();
    find_ports();
    write_job();
    prima_result r = prima_run(NULL, (const char *[]){"run", MODEL_PATH, in_dir("prompts"), "--ctx", "256",
                                                      "-o", in_dir("expected"), NULL});
    cr_assert_eq(r.status, 0, "%s", r.err);
    start_worker();
}

static void teardown(void)
{
    if (worker > 0) {
        kill(worker, SIGKILL);
        waitpid(worker, NULL, 0);
    }
    ship_source_free(source);
    model_close(&m);
    test_dir_remove();
}
TestSuite(hostile, .init = setup, .fini = teardown, .timeout = 120);

/* Lines that warn, and the last of them. */
static size_t warnings(char last[512])
{
    char *text = read_file(in_dir("log"));
    size_t n = 0;

    *last = 0;
    for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) {
        if (!strstr(line, " warn ") && !strstr(line, " error ")) continue;
        n++;
        snprintf(last, 512, "%s", line);
    }
    free(text);
    return n;
}

/* --- the right head --------------------------------------------------------------------------------------
 */
static pid_t start_head(void)
{
    return prima_start(NULL,
                       (const char *[]){"run", in_dir("plan.yaml"), in_dir("prompts"), "--model", MODEL_PATH,
                                        "--threads", "1", "--restarts", "0", "-o", in_dir("out"), NULL});
}

static void expect_right_output(pid_t run)
{
    prima_result r = prima_wait(run);
    json_t *got, *expected;

    cr_assert_eq(r.status, 0, "%s", r.err);
    got = read_jsonl_sorted(in_dir("out"), true);
    expected = read_jsonl_sorted(in_dir("expected"), true);
    cr_expect(json_array_size(got) == 12 && json_equal(got, expected), "another output than one device's");
    json_decref(got);
    json_decref(expected);
    unlink(in_dir("out"));
    unlink(in_dir("out.manifest.json"));
}

static void serves_the_right_head(void)
{
    expect_right_output(start_head());
    cr_expect_eq(waitpid(worker, NULL, WNOHANG), 0, "the worker has ended");
}

/* --- strangers without the key -----------------------------------------------------------------------------
 */
static sock visit(void)
{
    sock s;
    must(sock_connect(&s, &at, &no_options, false, sock_deadline(5), &err));
    return s;
}

/* Until the worker closes the connection, whatever it says before. */
static bool is_shut_within(int fd, double seconds)
{
    uint64_t start = clock_ns();
    char rest[4096];

    while (clock_ms_since(start) < seconds * 1e3) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        if (poll(&p, 1, 100) <= 0) continue;
        ssize_t n = read(fd, rest, sizeof rest);
        if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) return true;
    }
    return false;
}

/* One line for this visit, soon after it has ended. */
static void expect_one_line(size_t before, const char *says, const char *name)
{
    char last[512];
    size_t n = before;

    for (int i = 0; i < 200 && (n = warnings(last)) == before; i++) sleep_ms(10);
    sleep_ms(50);
    n = warnings(last);
    cr_expect_eq(n, before + 1, "%s: %zu lines", name, n - before);
    cr_expect(strstr(last, says), "%s: %s", name, last);
}

static const struct {
    const char *name, *text;
    size_t n; /* 0: as long as the text is */
    double wait_s;
    bool leaves; /* without waiting */
    const char *says;
} strangers[] = {
    {"a browser", "GET / HTTP/1.1\r\nHost: 192.168.1.3:9700\r\nAccept: */*\r\n\r\n", 0, 2, false,
     "127.0.0.1:"},
    {"a plain head", "PRMA\x01\x00\x05\x00", 64, 2, false, "127.0.0.1:"},
    {"a port scan", "", 0, 0, true, "closed the connection before it proved to hold the key"},
    {"somebody silent", "", 0, GREETING_S + 2, false, "no answer in time"},
    {"half a greeting", "\x16\x03\x01\x02\x00\x01", 6, GREETING_S + 2, false, "no answer in time"},
    {"half a greeting, and gone", "\x16\x03\x01\x02\x00\x01", 6, 0, true, "closed the connection"},
    {"a record without end", "\x16\x03\x01\xff\xff\x01\x00\xff\xff", 9, 2, false, "127.0.0.1:"},
    {"an alert", "\x15\x03\x01\x00\x02\x02\x28", 7, 2, false, "127.0.0.1:"},
};

static void be_stranger(size_t i)
{
    char last[512], text[4096] = "";
    size_t before = warnings(last), n = strangers[i].n ? strangers[i].n : strlen(strangers[i].text);
    sock s = visit();

    memcpy(text, strangers[i].text, strangers[i].n == 64 ? 8 : n);
    must(sock_write(&s, text, n, sock_deadline(2), &err));
    if (!strangers[i].leaves)
        cr_expect(is_shut_within(s.fd, strangers[i].wait_s), "%s is still there", strangers[i].name);
    sock_close(&s);
    expect_one_line(before, strangers[i].says, strangers[i].name);
}

Test(hostile, strangers)
{
    for (size_t i = 0; i < sizeof strangers / sizeof *strangers; i++) be_stranger(i);
    serves_the_right_head();
}

Test(hostile, noise)
{
    uint64_t state = 3;

    for (int i = 0; i < 30; i++) {
        char last[512], noise[2000];
        size_t before = warnings(last);
        sock s = visit();
        for (size_t k = 0; k < sizeof noise; k++) {
            state = state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
            noise[k] = (char)(state >> 56);
        }
        if (i % 3 == 0)
            memcpy(noise, "\x16\x03\x01\x01\x00\x01\x00\x00\xfc\x03\x03", 11); /* like a greeting */
        sock_write(&s, noise, sizeof noise, sock_deadline(2), NULL);
        cr_expect(is_shut_within(s.fd, 2), "visit %d", i);
        sock_close(&s);
        expect_one_line(before, "127.0.0.1:", "noise");
    }
    serves_the_right_head();
}

Test(hostile, a_tls_client_without_our_key)
{
    char last[512];
    size_t before = warnings(last);
    SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
    SSL *ssl = SSL_new(ctx);
    sock s = visit();

    fcntl(s.fd, F_SETFL, fcntl(s.fd, F_GETFL) & ~O_NONBLOCK);
    SSL_set_fd(ssl, s.fd);
    cr_expect_neq(SSL_connect(ssl), 1, "a browser's TLS is let in");
    SSL_free(ssl);
    SSL_CTX_free(ctx);
    cr_expect(is_shut_within(s.fd, 2));
    sock_close(&s);
    expect_one_line(before, "key", "TLS without a key");
    serves_the_right_head();
}

Test(hostile, a_client_with_another_key)
{
    char last[512];
    size_t before = warnings(last);
    cluster_key other = key;
    const security wrong = {.key = &other};
    uint64_t start = clock_ns();
    sock s = visit();
    channel *c = NULL;
    uint8_t byte;
    int rc;

    other.psk[7] ^= 1;
    rc = channel_open(&c, &s, CHANNEL_CLIENT, &wrong, sock_deadline(5), &err);
    if (!rc)
        rc =
            channel_read(c, &byte, 1, sock_deadline(5), &err); /* the server may refuse after our last word */
    cr_expect_neq(rc, PR_OK);
    cr_expect_lt(clock_ms_since(start), 2000);
    channel_close(c);
    expect_one_line(before, "127.0.0.1:", "another key");
    serves_the_right_head();
}

/* --- those who hold the key --------------------------------------------------------------------------------
 */
static channel *enter(void)
{
    sock s = visit();
    channel *c;

    must(channel_open(&c, &s, CHANNEL_CLIENT, &sec, sock_deadline(5), &err));
    return c;
}

static bool channel_is_shut_within(channel *c, double seconds)
{
    uint64_t start = clock_ns();
    uint8_t byte;

    while (!channel_read(c, &byte, 1, sock_deadline(seconds), NULL)) {}
    return clock_ms_since(start) < seconds * 1e3;
}

static void send_text(channel *c, uint16_t type, const char *text)
{
    uint8_t room[FRAME_HEADER_BYTES + 4096];
    uint32_t n = (uint32_t)strlen(text);
    frame f = {.type = type, .rank = 0, .session = 1, .extra = n, .payload_bytes = n};

    memcpy(room + FRAME_HEADER_BYTES, text, n);
    must(frame_send(c, room, &f, sock_deadline(2), &err));
}

Test(hostile, first_words_that_are_no_greeting)
{
    static const struct {
        const char *name;
        frame f;
        const char *text, *says;
    } cases[] = {
        {"an empty message", {.type = FRAME_CONTROL}, "", "no greeting"},
        {"no JSON", {.type = FRAME_CONTROL}, "{\"type\":", "no greeting"},
        {"another message", {.type = FRAME_CONTROL}, "{\"type\":\"job\"}", "no greeting"},
        {"no version", {.type = FRAME_CONTROL}, "{\"type\":\"hello\"}", "no greeting"},
        {"a version that is no text",
         {.type = FRAME_CONTROL},
         "{\"type\":\"hello\",\"prima\":7}",
         "no greeting"},
        {"another version",
         {.type = FRAME_CONTROL},
         "{\"type\":\"hello\",\"prima\":\"0.0\"}",
         "the head runs prima 0.0 and this worker"},
        {"hidden states", {.type = FRAME_PASS}, "xxxx", "a frame of type 8 is not expected here"},
        {"a link probe", {.type = FRAME_ECHO}, "", "is not expected here"},
        {"a data connection without a run",
         {.type = FRAME_JOIN},
         "0123456789abcdef0123456789abcdef",
         "a data connection of another run"},
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char last[512];
        size_t before = warnings(last);
        channel *c = enter();
        send_text(c, cases[i].f.type, cases[i].text);
        cr_expect(channel_is_shut_within(c, 2), "%s", cases[i].name);
        channel_close(c);
        expect_one_line(before, cases[i].says, cases[i].name);
    }
    serves_the_right_head();
}

Test(hostile, frames_that_are_none)
{
    static const struct {
        const char *name, *says;
        size_t at; /* this byte of a good header ... */
        uint8_t value;
    } cases[] = {
        {"another magic", "not a prima frame", 0, 'p'},
        {"another protocol", "version 2 of the protocol", 4, 2},
        {"an unknown type", "a frame of type 255", 6, 255},
        {"a long one", "at most 4096 are allowed", 15, 0x7f}, /* 2 GiB */
        {"a reserved byte", "malformed frame: byte 60", 60, 1},
        {"an element type", "malformed frame", 50, 9},
        {"a matrix", "malformed frame", 40, 1},
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const frame f = {.type = FRAME_CONTROL, .extra = 0, .payload_bytes = 0};
        uint8_t header[FRAME_HEADER_BYTES];
        char last[512];
        size_t before = warnings(last);
        channel *c = enter();
        frame_encode(header, &f);
        header[cases[i].at] = cases[i].value;
        must(channel_write(c, header, sizeof header, sock_deadline(2), &err));
        cr_expect(channel_is_shut_within(c, 2), "%s", cases[i].name);
        channel_close(c);
        expect_one_line(before, cases[i].says, cases[i].name);
    }
    serves_the_right_head();
}

Test(hostile, silence_of_a_member)
{
    char last[512];
    size_t before = warnings(last);
    channel *c = enter();

    cr_expect(channel_is_shut_within(c, GREETING_S + 2));
    channel_close(c);
    expect_one_line(before, "no answer in time", "silence");
    serves_the_right_head();
}

/* --- a head of the test's own ------------------------------------------------------------------------------
 */
static json_t *expect_message(control *k, const char *type)
{
    for (;;) {
        json_t *message;
        must(control_recv(k, &message, &err));
        if (control_is(message, type)) return message;
        if (control_is(message, "need")) { /* its copy of the model is compared with ours */
            must(ship_answer(source, k, message, &err));
            json_decref(message);
            continue;
        }
        char *line = json_line(message);
        cr_assert(control_is(message, "beat"), "expected %s, found %s", type, line);
        free(line);
        json_decref(message);
    }
}

static control *greet(const char *answer)
{
    control *k;

    must(control_new(&k, enter(), 10, &err));
    must(control_send(k, json_pack("{s:s, s:s}", "type", "hello", "prima", version), &err));
    json_decref(expect_message(k, answer));
    return k;
}

static const job_sizes sizes = {.token = "0123456789abcdef0123456789abcdef",
                                .max_tokens = 8,
                                .merge_tokens = 8,
                                .max_out = 2,
                                .n_pages = 16,
                                .elem = FRAME_F32,
                                .heartbeat_s = 0.1,
                                .peer_s = 5,
                                .connect_s = 10};

static void send_job(control *k, uint32_t n_layers, const job_sizes *s)
{
    size_t n;
    char *text = make_plan(n_layers, &n);

    must(control_send(k, job_to_json(text, n, WORKER, s), &err));
    free(text);
}

Test(hostile, a_second_head_while_it_is_busy)
{
    char last[512];
    control *k = greet("hello");
    size_t before = warnings(last);

    for (int i = 0; i < 3; i++) {
        control *second;
        json_t *answer;
        must(control_new(&second, enter(), 5, &err));
        must(control_send(second, json_pack("{s:s, s:s}", "type", "hello", "prima", version), &err));
        answer = expect_message(second, "fail");
        cr_expect(strstr(json_string_value(json_object_get(answer, "message")), "serves another run"));
        cr_expect_eq(json_integer_value(json_object_get(answer, "code")), PR_ERESOURCE);
        json_decref(answer);
        cr_expect_neq(control_recv(second, &answer, &err), PR_OK, "it is shut");
        control_close(second);
    }
    expect_one_line(before + 2, "serves another run", "three heads");
    send_job(k, m.hp.n_layers, &sizes); /* the first is none the wiser */
    json_decref(expect_message(k, "ready"));
    must(control_send(k, json_pack("{s:s}", "type", "stop"), &err));
    json_decref(expect_message(k, "bye"));
    control_close(k);
    sleep_ms(400);
    serves_the_right_head();
}

static void join_as(uint16_t rank, uint64_t session, const char *token, channel **out)
{
    uint8_t room[FRAME_HEADER_BYTES + 64];
    uint32_t n = (uint32_t)strlen(token);
    frame f = {.type = FRAME_JOIN, .rank = rank, .session = session, .extra = n, .payload_bytes = n};

    *out = enter();
    memcpy(room + FRAME_HEADER_BYTES, token, n);
    must(frame_send(*out, room, &f, sock_deadline(2), &err));
}

/* The ring of the head of this test: it comes from us and goes back to us. */
Test(hostile, data_connections_that_do_not_belong_to_the_ring)
{
    static const struct {
        uint16_t rank;
        const char *token;
    } wrong[] = {
        {0, "0123456789abcdef0123456789abcdeF"},
        {0, "0123456789abcdef0123456789abcde"},
        {0, ""},
        {0, "0123456789abcdef0123456789abcdef0"},
        {1, "0123456789abcdef0123456789abcdef"},
        {65535, "0123456789abcdef0123456789abcdef"},
    };
    const frame_limits fl = {64, FRAME_BIT(FRAME_JOIN) | FRAME_BIT(FRAME_WALK)};
    const sock_addr any = {.host = "127.0.0.1"};
    control *k = greet("hello");
    channel *c, *old, *from_it;
    sock_listener l;
    uint8_t payload[64];
    char last[512];
    json_t *message;
    frame f;
    sock s;

    send_job(k, m.hp.n_layers, &sizes);
    json_decref(expect_message(k, "ready"));
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        size_t before = warnings(last);
        join_as(wrong[i].rank, 5, wrong[i].token, &c);
        cr_expect(channel_is_shut_within(c, 2), "case %zu", i);
        channel_close(c);
        expect_one_line(before, "a data connection of another run", "a wrong data connection");
    }
    must(sock_listen(&l, &any, &no_options, &err));
    join_as(HEAD, 4, sizes.token, &old); /* of a ring that has not come about */
    must(
        control_send(k, json_pack("{s:s, s:i, s:s}", "type", "ring", "session", 5, "next", l.address), &err));
    must(sock_accept(&s, &l, sock_deadline(5), &err));
    must(channel_open(&from_it, &s, CHANNEL_SERVER, &sec, sock_deadline(5), &err));
    must(frame_recv(from_it, &f, payload, &fl, sock_deadline(5), &err));
    cr_expect(f.type == FRAME_JOIN && f.rank == WORKER && f.session == 5 && f.payload_bytes == 32 &&
              !memcmp(payload, sizes.token, 32));
    sleep_ms(200);
    join_as(HEAD, 5, sizes.token, &c);
    message = expect_message(k, "ringed");
    cr_expect_eq(json_integer_value(json_object_get(message, "session")), 5);
    json_decref(message);
    cr_expect(channel_is_shut_within(old, 2));

    uint8_t room[FRAME_HEADER_BYTES + 64] = {0}; /* a frame of the ring before: the ring is out of step */
    f = (frame){.type = FRAME_WALK, .session = 4, .extra = 32, .payload_bytes = 32};
    must(frame_send(c, room, &f, sock_deadline(2), &err));
    message = expect_message(k, "fail");
    cr_expect_eq(json_integer_value(json_object_get(message, "session")), 5);
    cr_expect(strstr(json_string_value(json_object_get(message, "message")), "not come the way of the plan"));
    json_decref(message);
    channel_close(old);
    channel_close(c);
    channel_close(from_it);
    sock_listener_close(&l);
    control_close(k); /* and goes away without a word */
    sleep_ms(500);
    serves_the_right_head();
}

Test(hostile, jobs_that_make_no_sense)
{
    job_sizes large = sizes;
    struct {
        const char *name;
        json_t *message;
    } cases[6];
    size_t n;
    char *text = make_plan(m.hp.n_layers, &n);

    large.merge_tokens = large.max_tokens = 65536;
    large.n_pages = 1 << 24;
    cases[0].message = json_pack("{s:s}", "type", "job");
    cases[1].message = job_to_json(text, n, HEAD, &sizes); /* it is no head */
    cases[2].message = job_to_json(text, n, 17, &sizes);
    cases[3].message = job_to_json(text, n / 2, WORKER, &sizes);
    cases[4].message = job_to_json(text, n, WORKER, &large); /* more memory than the plan allows */
    cases[5].message = json_pack("{s:s}", "type", "nonsense");
    free(text);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        control *k = greet("hello");
        json_t *answer;
        must(control_send(k, cases[i].message, &err));
        answer = expect_message(k, "fail");
        cr_expect_gt(strlen(json_string_value(json_object_get(answer, "message"))), 10u, "case %zu", i);
        json_decref(answer);
        control_close(k);
        sleep_ms(400);
        cr_assert_eq(waitpid(worker, NULL, WNOHANG), 0, "the worker has ended in case %zu", i);
    }
    serves_the_right_head();
}

/* It beats itself all the while, and hears nothing for as long as the job says. */
Test(hostile, a_head_that_falls_silent)
{
    job_sizes impatient = sizes;
    control *k = greet("hello");
    uint64_t start;
    json_t *message;

    impatient.peer_s = 1;
    send_job(k, m.hp.n_layers, &impatient);
    json_decref(expect_message(k, "ready"));
    start = clock_ns();
    while (!control_recv(k, &message, &err)) {
        cr_expect(control_is(message, "beat"));
        json_decref(message);
    }
    cr_expect(clock_ms_since(start) > 800 && clock_ms_since(start) < 4000, "%g ms", clock_ms_since(start));
    control_close(k);
    serves_the_right_head();
}

/* The model's header is the plan's, but the plan has more layers than the model. */
Test(hostile, a_plan_with_more_layers_than_the_model)
{
    control *k = greet("hello");

    send_job(k, m.hp.n_layers + 3, &sizes);
    json_t *answer = expect_message(k, "fail");
    cr_expect_eq(json_integer_value(json_object_get(answer, "code")), PR_EMISMATCH);
    json_decref(answer);
    control_close(k);
    sleep_ms(400);
    serves_the_right_head();
}

/* --- a run in the middle of all this -----------------------------------------------------------------------
 */
Test(hostile, strangers_while_it_works)
{
    for (int round = 0; round < 2; round++) {
        pid_t run = start_head();
        for (int i = 0; i < 25; i++) {
            at.port = port[i % N_DEVICES]; /* the head has a door, too */
            sock s;
            if (!sock_connect(&s, &at, &no_options, false, sock_deadline(1), NULL)) {
                const char *text = strangers[i % 3].text;
                sock_write(&s, text, strlen(text), sock_deadline(1), NULL);
                sock_close(&s);
            }
            sleep_ms(10);
        }
        at.port = port[WORKER];
        expect_right_output(run);
        sleep_ms(300);
    }
}
