/* Workers that are started on this machine, or found there, and how they end. */
#include "tests/cmd/launch_rig.h"

/* launch_stop(l, 5) waits five seconds for one that does not leave. */
enum { SOON_MS = 4500 };

TestSuite(launch, .init = setup, .fini = teardown, .timeout = 60);

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
    cr_expect_lt(clock_ms_since(start), SOON_MS);
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
    cr_expect_lt(clock_ms_since(start), SOON_MS);
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
    while (kill(worker, 0) == 0 && clock_ms_since(start) < 2 * SOON_MS) {
        char path[64];
        snprintf(path, sizeof path, "/proc/%ld/stat", (long)worker);
        if (file_holds(path, ") Z ")) break; /* whoever adopts it may reap late */
        sleep_ms(10);
    }
    cr_expect_lt(clock_ms_since(start), 2 * SOON_MS);
    cr_expect_eq(knock(address, &sec), PR_EPEER);
    kill(worker, SIGKILL);
    waitpid(head, NULL, 0);
    free(address);
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
    cr_expect_lt(clock_ms_since(start), SOON_MS);
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

/* --- ends ------------------------------------------------------------------------------------------------
 */
Test(launch, worker_that_is_killed)
{
    launch_options o = desk(NULL);
    launched *l = must_launch(&o);

    cr_assert_eq(kill(child_of(getpid()), SIGKILL), 0);
    for (int i = 0; i < 1000 && launch_running(l); i++) sleep_ms(10);
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
    cr_expect_lt(clock_ms_since(start), SOON_MS);
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
    cr_expect_lt(clock_ms_since(start), SOON_MS);
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
    cr_expect_lt(clock_ms_since(start), SOON_MS);
    cr_expect_eq(open_files(), files);
    cr_expect_eq(kill(shared, SIGKILL), 0);
}
