/* How `prima run` starts workers: what the tests share. Really, on this machine, and by an ssh of the tests'
 * own: a script that runs the command here, or fails in the ways in which ssh and what it starts can fail. */
#ifndef PRIMA_TESTS_LAUNCH_RIG_H
#define PRIMA_TESTS_LAUNCH_RIG_H
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

static inline void sleep_ms(long ms)
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
static inline void find_program(void)
{
    ssize_t n = readlink("/proc/self/exe", program, sizeof program - 32);

    cr_assert_gt(n, 0);
    program[n] = 0;
    for (int up = 0; up < 3; up++) *strrchr(program, '/') = 0;
    strcat(program, "/prima");
}

static inline void setup(void)
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

static inline void teardown(void)
{
    test_dir_remove();
}
/* --- what is left ----------------------------------------------------------------------------------------
 */
static inline bool file_holds(const char *path, const char *word)
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
static inline pid_t find_process(const char *file, const char *word)
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

static inline size_t open_files(void)
{
    DIR *d = opendir("/proc/self/fd");
    size_t n = 0;

    while (readdir(d)) n++;
    closedir(d);
    return n;
}

/* Waits for it: between fork and exec a program has another name. */
static inline pid_t must_find(const char *file, const char *word)
{
    pid_t found = 0;

    for (int i = 0; i < 1000 && !found; i++) {
        found = find_process(file, word);
        if (!found) sleep_ms(10);
    }
    cr_assert_gt(found, 1, "no process with %s", word);
    return found;
}

/* Its sleeping child: the file "stat" is PID (NAME) STATE PPID ... */
static inline pid_t child_of(pid_t parent)
{
    char word[32];

    snprintf(word, sizeof word, ") S %ld ", (long)parent);
    return must_find("stat", word);
}

static inline void expect_nothing_left(void)
{
    cr_expect(waitpid(-1, NULL, WNOHANG) < 0 && errno == ECHILD, "a process or a zombie is left");
    for (int i = 0; i < 1000 && find_process("cmdline", marker); i++)
        sleep_ms(10); /* a kill takes its time */
    cr_expect_eq(find_process("cmdline", marker), 0, "what the program had started is left");
}

static inline char *log_text(void)
{
    return read_file(in_dir("log"));
}

static inline bool log_has(const char *word)
{
    char *text = log_text();
    bool has = strstr(text, word) != NULL;

    free(text);
    return has;
}

/* --- launching -------------------------------------------------------------------------------------------
 */
static inline launch_options desk(const char *ssh)
{
    return (launch_options){
        .name = "desk", .host = "127.0.0.1", .sec = &sec, .self = program, .ssh = ssh, .threads = 1};
}

static inline int launch(launched **l, const launch_options *o, double seconds)
{
    err = (pr_err){0};
    return launch_worker(l, o, sock_deadline(seconds), &err);
}

static inline launched *must_launch(const launch_options *o)
{
    launched *l;

    cr_assert_eq(launch(&l, o, 8), PR_OK, "%s", err.msg);
    return l;
}

static inline int knock(const char *address, const security *with)
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

static inline sock_listener occupy(uint16_t *port)
{
    const sock_addr any = {.host = "127.0.0.1"};
    sock_listener l;
    sock_addr at;

    cr_assert_eq(sock_listen(&l, &any, &no_options, &err), PR_OK);
    cr_assert_eq(sock_addr_parse(&at, l.address, false, &err), PR_OK);
    *port = at.port;
    return l;
}

/* What the ssh of this test does from here on. */
static inline void act(const char *as)
{
    setenv("FAKE", as, 1);
}

#endif
