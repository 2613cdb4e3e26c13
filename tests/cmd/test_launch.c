/* How `prima run` starts workers: really, on this machine, and by an ssh of the test's own: a script that
 * runs the command here, or fails in the ways in which ssh and what it starts can fail. */
#include "src/base/clock.h"
#include "src/base/log.h"
#include "src/run/child.h"
#include "src/run/launch.h"
#include "src/run/launch_order.h"
#include "tests/common/prima.h"
#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static pr_err err;
static cluster_key key;
static security sec = {.key = &key};
static const sock_options no_options = {.lost_after_ms = 0};
static char program[4096], marker[32];

static void sleep_ms(long ms)
{
    nanosleep(&(struct timespec){ms / 1000, ms % 1000 * 1000000}, NULL);
}

/* --- the ssh of this test: takes off ssh's options and acts as FAKE says ---------------------------------
 */
static const char fake_ssh[] =
    "#!/bin/sh\n"
    "echo \"$@\" > \"$FAKE_DIR/args\"\n"
    "while [ \"$1\" = -T ] || [ \"$1\" = -o ]; do [ \"$1\" = -o ] && shift; shift; done\n"
    "host=$1; shift 2\n"
    "case $FAKE in\n"
    "run) exec \"$FAKE_PRIMA\" \"$@\";;\n"
    "greeting) printf 'Welcome!\\nlast login: 10:22\\n10.0.0.1:5\\n'; exec \"$FAKE_PRIMA\" \"$@\";;\n"
    "noise) head -c 3000 /dev/zero | tr '\\0' x >&2; printf '\\n\\033[31mred\\0tail\\r\\n\\nwithout end' "
    ">&2\n"
    "  echo \"$FAKE_ADDRESS\"; cat > /dev/null;;\n"
    "says) echo \"$FAKE_ADDRESS\"; cat > /dev/null;;\n"
    "unreachable) echo \"ssh: connect to host $host port 22: No route to host\" >&2; exit 255;;\n"
    "hangs) sleep \"$FAKE_SLEEP\";;\n"
    "leaves) sleep \"$FAKE_SLEEP\" & echo \"$FAKE_ADDRESS\"; cat > /dev/null;;\n"
    "shares) setsid sleep \"$FAKE_SLEEP\" & echo \"$FAKE_ADDRESS\"; cat > /dev/null;;\n"
    "stubborn) trap '' TERM; echo \"$FAKE_ADDRESS\"; sleep \"$FAKE_SLEEP\"; sleep \"$FAKE_SLEEP\";;\n"
    "exits) echo \"2026-11-20T12:46:19Z error prima worker: the last line\" >&2; exit \"$FAKE_STATUS\";;\n"
    "esac\n";

/* build/MODE/tests/LAYER/test_x -> build/MODE/prima */
static void find_program(void)
{
    ssize_t n = readlink("/proc/self/exe", program, sizeof program - 32);

    cr_assert_gt(n, 0);
    program[n] = 0;
    for (int up = 0; up < 3; up++) *strrchr(program, '/') = 0;
    strcat(program, "/prima");
}

static void setup(void)
{
    signal(SIGPIPE, SIG_IGN);
    find_program();
    test_dir_new();
    write_file(in_dir("ssh"), fake_ssh);
    cr_assert_eq(chmod(in_dir("ssh"), 0700), 0);
    snprintf(marker, sizeof marker, "%ld",
             900000000L + getpid()); /* seconds; found in /proc by this number */
    setenv("PRIMA_SSH", in_dir("ssh"), 1);
    setenv("FAKE_DIR", in_dir(""), 1);
    setenv("FAKE_PRIMA", program, 1);
    setenv("FAKE_SLEEP", marker, 1);
    setenv("FAKE_ADDRESS", "127.0.0.1:4000", 1);
    memset(key.psk, 0xa5, sizeof key.psk);
    strcpy(key.id, "0123456789abcdef");
    dup2(open(in_dir("log"), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600), STDERR_FILENO);
}

static void teardown(void)
{
    test_dir_remove();
}
TestSuite(launch, .init = setup, .fini = teardown, .timeout = 20);

/* --- what is left ----------------------------------------------------------------------------------------
 */
static bool file_holds(const char *path, const char *word)
{
    char text[4096];
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof text - 1);

    if (fd >= 0) close(fd);
    for (ssize_t i = 0; i < n; i++)
        if (!text[i]) text[i] = ' ';
    text[n > 0 ? n : 0] = 0;
    return strstr(text, word) != NULL;
}

/* A process whose file of this name in /proc holds the word; 0: none. */
static pid_t find_process(const char *file, const char *word)
{
    DIR *d = opendir("/proc");
    pid_t found = 0;

    for (struct dirent *e; !found && (e = readdir(d));) {
        char path[300];
        snprintf(path, sizeof path, "/proc/%s/%s", e->d_name, file);
        if (*e->d_name > '0' && *e->d_name <= '9' && file_holds(path, word)) found = (pid_t)atol(e->d_name);
    }
    closedir(d);
    return found;
}

static size_t open_files(void)
{
    DIR *d = opendir("/proc/self/fd");
    size_t n = 0;

    while (readdir(d)) n++;
    closedir(d);
    return n;
}

/* Waits for it: between fork and exec a program has another name. */
static pid_t must_find(const char *file, const char *word)
{
    pid_t found = 0;

    for (int i = 0; i < 200 && !found; i++) {
        found = find_process(file, word);
        if (!found) sleep_ms(10);
    }
    cr_assert_gt(found, 1, "no process with %s", word);
    return found;
}

/* Its sleeping child: the file "stat" is PID (NAME) STATE PPID ... */
static pid_t child_of(pid_t parent)
{
    char word[32];

    snprintf(word, sizeof word, ") S %ld ", (long)parent);
    return must_find("stat", word);
}

static void expect_nothing_left(void)
{
    cr_expect(waitpid(-1, NULL, WNOHANG) < 0 && errno == ECHILD, "a process or a zombie is left");
    for (int i = 0; i < 200 && find_process("cmdline", marker); i++) sleep_ms(10); /* a kill takes its time */
    cr_expect_eq(find_process("cmdline", marker), 0, "what the program had started is left");
}

static char *log_text(void)
{
    return read_file(in_dir("log"));
}

static bool log_has(const char *word)
{
    char *text = log_text();
    bool has = strstr(text, word) != NULL;

    free(text);
    return has;
}

/* --- launching -------------------------------------------------------------------------------------------
 */
static launch_options desk(const char *ssh)
{
    return (launch_options){
        .name = "desk", .host = "127.0.0.1", .sec = &sec, .self = program, .ssh = ssh, .threads = 1};
}

static int launch(launched **l, const launch_options *o, double seconds)
{
    err = (pr_err){0};
    return launch_worker(l, o, sock_deadline(seconds), &err);
}

static launched *must_launch(const launch_options *o)
{
    launched *l;

    cr_assert_eq(launch(&l, o, 8), PR_OK, "%s", err.msg);
    return l;
}

static int knock(const char *address, const security *with)
{
    sock_addr to;
    sock s;
    channel *c;
    int rc;

    cr_assert_eq(sock_addr_parse(&to, address, false, &err), PR_OK, "%s", err.msg);
    if ((rc = sock_connect(&s, &to, &no_options, false, sock_deadline(2), &err))) return rc;
    if (!(rc = channel_open(&c, &s, CHANNEL_CLIENT, with, sock_deadline(4), &err))) channel_close(c);
    return rc;
}

Test(launch, on_this_machine)
{
    size_t files = open_files();
    cluster_key other = key;
    const security strange = {.key = &other};
    launch_options o = desk(NULL);
    launched *l = must_launch(&o);
    uint64_t start;

    other.psk[0]++;
    cr_expect(launch_is_ours(l) && launch_running(l));
    cr_expect_eq(launch_check(l, &err), PR_OK);
    cr_expect_eq(knock(launch_address(l), &sec), PR_OK, "the worker has the key: %s", err.msg);
    cr_expect_eq(knock(launch_address(l), &strange), PR_EAUTH, "%s", err.msg);
    cr_expect(log_has(" info  [desk] listening on 127.0.0.1:"));
    cr_expect_not(log_has("a5a5a5"), "the key is in the log");
    start = clock_ns();
    cr_expect_eq(launch_stop(l, 5), PR_OK, "leaves by itself");
    cr_expect_lt(clock_ms_since(start), 2000);
    cr_expect_not(log_has("in the middle of its work"), "it had nothing to do");
    expect_nothing_left();
    cr_expect_eq(open_files(), files);
}

Test(launch, several_at_once_leave_one_by_one)
{
    launch_options o = desk(NULL);
    launched *a = must_launch(&o), *b = must_launch(&o);
    uint64_t start = clock_ns();

    /* b has inherited nothing that keeps a's input open. */
    cr_expect_eq(launch_stop(a, 5), PR_OK);
    cr_expect_lt(clock_ms_since(start), 2000);
    cr_expect(launch_running(b));
    cr_expect_eq(launch_stop(b, 5), PR_OK);
    expect_nothing_left();
}

/* However a head dies, its workers' input ends. */
Test(launch, worker_leaves_when_the_head_is_killed)
{
    pid_t head = fork(), worker = 0;
    char *address;

    if (head == 0) {
        launch_options o = desk(NULL);
        launched *l;
        if (launch(&l, &o, 8)) _exit(1);
        write_file(in_dir("address"), launch_address(l));
        write_file(in_dir("ready"), "");
        for (;;) pause();
    }
    for (int i = 0; i < 800 && access(in_dir("ready"), F_OK); i++) sleep_ms(10);
    address = read_file(in_dir("address"));
    worker = child_of(head);
    cr_expect_eq(knock(address, &sec), PR_OK, "%s", err.msg);
    uint64_t start = clock_ns();
    cr_assert_eq(kill(head, SIGKILL), 0);
    while (kill(worker, 0) == 0 && clock_ms_since(start) < 5000) {
        char path[64];
        snprintf(path, sizeof path, "/proc/%ld/stat", (long)worker);
        if (file_holds(path, ") Z ")) break; /* whoever adopts it may reap late */
        sleep_ms(10);
    }
    cr_expect_lt(clock_ms_since(start), 2000);
    cr_expect_eq(knock(address, &sec), PR_EPEER);
    kill(worker, SIGKILL);
    waitpid(head, NULL, 0);
    free(address);
}

static sock_listener occupy(uint16_t *port)
{
    const sock_addr any = {.host = "127.0.0.1"};
    sock_listener l;
    sock_addr at;

    cr_assert_eq(sock_listen(&l, &any, &no_options, &err), PR_OK);
    cr_assert_eq(sock_addr_parse(&at, l.address, false, &err), PR_OK);
    *port = at.port;
    return l;
}

Test(launch, one_that_listens_already_is_not_ours)
{
    launch_options o = desk("desk.local");
    sock_listener at = occupy(&o.port);
    launched *l = must_launch(&o);

    cr_expect(!launch_is_ours(l) && launch_running(l));
    cr_expect_str_eq(launch_address(l), at.address);
    cr_expect_eq(launch_check(l, &err), PR_OK);
    cr_expect_eq(launch_stop(l, 5), PR_OK);
    cr_expect_neq(access(in_dir("args"), F_OK), 0, "nothing is started");
    sock_listener_close(&at);
    cr_expect_eq(launch_stop(NULL, 5), PR_OK);
}

/* Bound, but nobody listens: connecting fails, and so does the worker. */
Test(launch, port_in_use)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof a;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    launch_options o = desk(NULL);
    launched *l;

    cr_assert_eq(bind(fd, (struct sockaddr *)&a, n), 0);
    cr_assert_eq(getsockname(fd, (struct sockaddr *)&a, &n), 0);
    o.port = ntohs(a.sin_port);
    cr_expect_eq(launch(&l, &o, 8), PR_ERESOURCE);
    cr_expect_null(l);
    cr_expect(strstr(err.msg, "desk: ") == err.msg && strstr(err.msg, "the port is in use"), "%s", err.msg);
    expect_nothing_left();
    close(fd);
}

Test(launch, nobody_there_and_no_way_to_start_one)
{
    launch_options o = desk(NULL);
    uint64_t start = clock_ns();
    launched *l;
    wake stop;

    o.host = "192.0.2.1"; /* for documentation: on no network */
    o.port = 9700;
    cr_expect_eq(launch(&l, &o, 0.7), PR_EPEER);
    cr_expect_lt(clock_ms_since(start), 3000);
    cr_expect(strstr(err.msg, "desk: ") == err.msg &&
                  strstr(err.msg, "prima worker --listen 192.0.2.1:9700`") && strstr(err.msg, "ssh:"),
              "%s", err.msg);
    cr_expect(log_has("on that machine: prima worker --listen 192.0.2.1:9700"));
    cr_assert_eq(wake_init(&stop, &err), PR_OK);
    wake_raise(&stop);
    o.stop = &stop;
    cr_expect_eq(launch(&l, &o, 30), PR_EINTERRUPTED, "%s", err.msg);
    wake_clear(&stop);
}

Test(launch, no_such_program)
{
    launch_options o = desk(NULL);
    launched *l;

    o.self = "/nonexistent/prima";
    cr_expect_eq(launch(&l, &o, 8), PR_EUSAGE);
    cr_expect(strstr(err.msg, "desk: cannot start /nonexistent/prima"), "%s", err.msg);
    expect_nothing_left();
}

/* --- ssh -------------------------------------------------------------------------------------------------
 */
static void act(const char *as)
{
    setenv("FAKE", as, 1);
}

static void expect_args(const char *target)
{
    char *args = read_file(in_dir("args")), want[300];

    snprintf(want, sizeof want,
             "-T -o BatchMode=yes -o ConnectTimeout=10 -o ServerAliveInterval=15 -o ServerAliveCountMax=3 %s "
             "prima worker --stdio\n",
             target);
    cr_expect_str_eq(args, want);
    free(args);
}

Test(launch, by_ssh)
{
    static const struct {
        const char *ssh, *user, *target;
    } cases[] = {{"desk.local", "me", "me@desk.local"},
                 {"desk.local", NULL, "desk.local"},
                 {"you@desk", "me", "you@desk"}};

    act("run");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        launch_options o = desk(cases[i].ssh);
        o.user = cases[i].user;
        launched *l = must_launch(&o);
        expect_args(cases[i].target);
        cr_expect_eq(knock(launch_address(l), &sec), PR_OK, "%s", err.msg);
        cr_expect_eq(launch_stop(l, 5), PR_OK);
    }
    expect_nothing_left();
}

Test(launch, ssh_is_found_in_the_path)
{
    char path[8192];
    launch_options o = desk("desk.local");

    unsetenv("PRIMA_SSH");
    snprintf(path, sizeof path, "%s:%s", in_dir(""), getenv("PATH"));
    setenv("PATH", path, 1);
    act("run");
    cr_expect_eq(launch_stop(must_launch(&o), 5), PR_OK);
    expect_args("desk.local");
}

Test(launch, host_that_is_an_option)
{
    launch_options o = desk("-oProxyCommand=reboot");
    launched *l;

    cr_expect_eq(launch(&l, &o, 8), PR_EUSAGE);
    cr_expect_neq(access(in_dir("args"), F_OK), 0, "ssh was started");
}

Test(launch, greetings_at_login_are_passed_by)
{
    launch_options o = desk("desk.local");
    uint16_t port;
    sock_listener at = occupy(&port);
    launched *l;

    sock_listener_close(&at);
    o.port = port; /* so that 10.0.0.1:5 is a greeting too */
    act("greeting");
    l = must_launch(&o);
    cr_expect_str_empty(err.msg, "that nobody listened before is no error");
    cr_expect_eq(knock(launch_address(l), &sec), PR_OK, "%s", err.msg);
    cr_expect(log_has("[desk] Welcome!") && log_has("[desk] 10.0.0.1:5"));
    cr_expect_eq(launch_stop(l, 5), PR_OK);
}

Test(launch, what_it_logs_is_prefixed_bounded_and_harmless)
{
    launch_options o = desk("desk.local");
    char *text, *line;

    act("noise");
    cr_expect_eq(launch_stop(must_launch(&o), 5), PR_OK);
    text = log_text();
    cr_expect(strstr(text, " warn  [desk] \\x1b[31mred?tail\n"), "%s", text);
    cr_expect(strstr(text, " warn  [desk] without end\n"), "%s", text);
    line = strstr(text, "[desk] xxx");
    cr_assert_not_null(line);
    *strchr(line, '\n') = 0;
    cr_expect_eq(strlen(line), strlen("[desk] ") + CHILD_LINE_BYTES - 1);
    cr_expect_str_eq(line + strlen(line) - 4, "x...");
    free(text);
}

Test(launch, machine_that_cannot_be_reached)
{
    launch_options o = desk("desk.local");
    launched *l;

    o.user = "me";
    act("unreachable");
    cr_expect_eq(launch(&l, &o, 8), PR_EPEER);
    cr_expect(strstr(err.msg,
                     "-o ServerAliveCountMax=3 me@desk.local prima worker --stdio`: ssh: connect to host "
                     "me@desk.local port 22: No route to host"),
              "%s", err.msg);
    expect_nothing_left();
}

/* What a worker's exit status says, and which of them are about the network only. */
Test(launch, exit_statuses)
{
    static const struct {
        const char *status;
        int rc;
    } cases[] = {{"0", PR_EPEER},     {"1", PR_EINTERNAL}, {"2", PR_EUSAGE},  {"3", PR_EPEER},
                 {"5", PR_EMISMATCH}, {"6", PR_EPEER},     {"7", PR_EAUTH},   {"8", PR_EINTEGRITY},
                 {"9", PR_ERESOURCE}, {"127", PR_EUSAGE},  {"130", PR_EPEER}, {"255", PR_EPEER}};
    launch_options o = desk("desk.local");
    launched *l;

    act("exits");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        setenv("FAKE_STATUS", cases[i].status, 1);
        cr_expect_eq(launch(&l, &o, 8), cases[i].rc, "%s: %s", cases[i].status, err.msg);
        cr_expect(strstr(err.msg, "desk: ") == err.msg && strstr(err.msg, "prima worker: the last line") &&
                      !strstr(err.msg, "2026-11-20"),
                  "%s", err.msg);
    }
    cr_expect(log_has(" error [desk] prima worker: the last line\n"));
    expect_nothing_left();
}

Test(launch, ssh_that_hangs)
{
    launch_options o = desk("desk.local");
    uint64_t start = clock_ns();
    launched *l;
    wake stop;

    act("hangs");
    cr_expect_eq(launch(&l, &o, 0.5), PR_EPEER);
    cr_expect_lt(clock_ms_since(start), 2000);
    cr_expect(strstr(err.msg, "desk: no worker after") && strstr(err.msg, "desk.local prima worker --stdio"),
              "%s", err.msg);
    expect_nothing_left();
    cr_assert_eq(wake_init(&stop, &err), PR_OK);
    wake_raise(&stop);
    o.stop = &stop;
    cr_expect_eq(launch(&l, &o, 30), PR_EINTERRUPTED);
    wake_clear(&stop);
    expect_nothing_left();
}

/* The head must hear of it; the worker is its own neighbour otherwise. */
Test(launch, name_that_means_loopback_over_there)
{
    launch_options o = desk("desk.local");
    launched *l;

    o.host = "192.0.2.1";
    act("says");
    setenv("FAKE_ADDRESS", "127.0.1.1:4000", 1);
    cr_expect_eq(launch(&l, &o, 8), PR_EUSAGE);
    cr_expect(strstr(err.msg, "192.0.2.1 is 127.0.1.1:4000"), "%s", err.msg);
    setenv("FAKE_ADDRESS", "192.0.2.1:4000", 1);
    cr_expect_eq(launch_stop(must_launch(&o), 5), PR_OK);
}

/* --- ends ------------------------------------------------------------------------------------------------
 */
Test(launch, worker_that_is_killed)
{
    launch_options o = desk(NULL);
    launched *l = must_launch(&o);

    cr_assert_eq(kill(child_of(getpid()), SIGKILL), 0);
    for (int i = 0; i < 200 && launch_running(l); i++) sleep_ms(10);
    cr_expect_not(launch_running(l));
    cr_expect_eq(launch_check(l, &err), PR_EPEER);
    cr_expect(strstr(err.msg, "desk: its worker was ended by signal 9"), "%s", err.msg);
    cr_expect_eq(launch_stop(l, 5), PR_EPEER);
    expect_nothing_left();
}

Test(launch, stopped_by_force)
{
    launch_options o = desk("desk.local");
    uint64_t start;
    launched *l;

    act("stubborn");
    l = must_launch(&o);
    start = clock_ns();
    cr_expect_eq(launch_stop(l, 0.2), PR_EPEER);
    cr_expect_lt(clock_ms_since(start), 1500);
    expect_nothing_left();
}

/* A worker that was stopped by SIGSTOP does not hold anything up either. */
Test(launch, stopped_process)
{
    launch_options o = desk(NULL);
    launched *l = must_launch(&o);
    uint64_t start = clock_ns();

    cr_assert_eq(kill(child_of(getpid()), SIGSTOP), 0);
    cr_expect_eq(launch_stop(l, 0.2), PR_EPEER);
    cr_expect_lt(clock_ms_since(start), 1500);
    expect_nothing_left();
}

/* The program leaves, but not what it has started. */
Test(launch, left_behind)
{
    launch_options o = desk("desk.local");
    launched *l;

    act("leaves");
    l = must_launch(&o);
    must_find("cmdline", marker);
    cr_expect_eq(launch_stop(l, 5), PR_OK);
    expect_nothing_left();
}

/* As ssh does that shares its connection: what stays behind on purpose, in a session of its own, holds our
 * end of its standard error open. */
Test(launch, connection_that_is_shared)
{
    launch_options o = desk("desk.local");
    size_t files = open_files();
    uint64_t start;
    launched *l;
    pid_t shared;

    act("shares");
    l = must_launch(&o);
    shared = must_find("cmdline", marker);
    start = clock_ns();
    cr_expect_eq(launch_stop(l, 5), PR_OK);
    cr_expect_lt(clock_ms_since(start), 2000);
    cr_expect_eq(open_files(), files);
    cr_expect_eq(kill(shared, SIGKILL), 0);
}

/* --- the order -------------------------------------------------------------------------------------------
 */
static int read_order(launch_order *o, const char *text)
{
    int fd[2], rc;

    cr_assert_eq(pipe(fd), 0);
    cr_assert_eq(write(fd[1], text, strlen(text)), (ssize_t)strlen(text));
    close(fd[1]);
    err = (pr_err){0};
    rc = launch_order_read(o, fd[0], NULL, sock_deadline(2), &err);
    close(fd[0]);
    return rc;
}

Test(launch, order_there_and_back)
{
    launch_order o = {.listen = {"fe80::1%eth0", 9700},
                      .has_key = true,
                      .insecure = true,
                      .key = key,
                      .threads = 7,
                      .isa = "avx2",
                      .model = "/srv/\"models\"/\xc3\xa4.gguf"},
                 got;
    char rest[8] = "";
    int fd[2];

    cr_assert_eq(pipe(fd), 0);
    for (int i = 0; i < 2; i++) {
        cr_assert_eq(launch_order_write(fd[1], &o, &err), PR_OK, "%s", err.msg);
        cr_assert_eq(write(fd[1], "rest", 4), 4);
        cr_assert_eq(launch_order_read(&got, fd[0], NULL, sock_deadline(2), &err), PR_OK, "%s", err.msg);
        cr_expect_str_eq(got.listen.host, o.listen.host);
        cr_expect_eq(got.listen.port, 9700);
        cr_expect(got.insecure && got.threads == 7 && got.has_key == o.has_key);
        if (o.has_key) cr_expect_arr_eq(got.key.psk, key.psk, KEY_BYTES);
        if (o.has_key) cr_expect_str_eq(got.key.id, key.id);
        cr_expect_str_eq(got.isa, o.isa);
        cr_expect_str_eq(got.model, o.model);
        cr_expect_eq(read(fd[0], rest, 4), 4);
        cr_expect_str_eq(rest, "rest", "not a byte more than the line is read");
        o.has_key = false;
    }
    cr_expect_eq(launch_order_read(&got, fd[0], NULL, sock_deadline(0.1), &err), PR_EPEER);
}

#define HEX "a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5"
#define ORDER(listen, key, id, threads, more)                                                                \
    "{\"listen\":" listen ",\"key\":" key ",\"key_id\":" id ",\"insecure\":false,\"threads\":" threads       \
    ",\"isa\":\"\",\"model\":\"\"" more "}\n"

Test(launch, orders_that_are_none)
{
    static const struct {
        const char *text;
        int rc;
    } cases[] = {
        {ORDER("\"desk:1\"", "\"" HEX "a5\"", "\"0123\"", "1", ""), PR_OK},
        {ORDER("\"desk:1\"", "null", "null", "0", ""), PR_OK},
        {ORDER("\"desk:1\"", "\"" HEX "a\"", "\"0123\"", "1", ""), PR_EUSAGE},
        {ORDER("\"desk:1\"", "\"" HEX "aX\"", "\"0123\"", "1", ""), PR_EUSAGE},
        {ORDER("\"desk:1\"", "\"" HEX "a5\"", "null", "1", ""), PR_EUSAGE},
        {ORDER("\"desk:1\"", "null", "\"0123\"", "1", ""), PR_EUSAGE},
        {ORDER("\"desk:1\"", "5", "5", "1", ""), PR_EUSAGE}, /* not a plain connection by mistake */
        {ORDER("\"desk:1\"", "\"" HEX "a5\"", "\"0123456789abcdef0\"", "1", ""), PR_EUSAGE},
        {ORDER("\"desk\"", "\"" HEX "a5\"", "\"0123\"", "1", ""), PR_EUSAGE},
        {ORDER("1", "\"" HEX "a5\"", "\"0123\"", "1", ""), PR_EUSAGE},
        {ORDER("\"desk:1\"", "\"" HEX "a5\"", "\"0123\"", "-1", ""), PR_EUSAGE},
        {ORDER("\"desk:1\"", "\"" HEX "a5\"", "\"0123\"", "257", ""), PR_EUSAGE},
        {ORDER("\"desk:1\"", "\"" HEX "a5\"", "\"0123\"", "1", ",\"new\":1"), PR_EUSAGE},
        {"[]\n", PR_EUSAGE},
        {"{}\n", PR_EUSAGE},
        {"\n", PR_EUSAGE},
        {"{\"key\":\"" HEX "a5\n", PR_EUSAGE},
        {"{\"key\":\"" HEX "a5", PR_EPEER}, /* torn */
        {"", PR_EPEER},
    };
    launch_order o;
    char *longest = malloc(10001);

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        cr_expect_eq(read_order(&o, cases[i].text), cases[i].rc, "case %zu: %s", i, err.msg);
        cr_expect_null(strstr(err.msg, "a5a5"), "the key is in a message");
    }
    memset(longest, 'x', 10000);
    longest[10000] = 0;
    cr_expect_eq(read_order(&o, longest), PR_EUSAGE);
    free(longest);
}
