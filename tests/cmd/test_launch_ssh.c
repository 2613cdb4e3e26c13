/* Workers that are started by ssh, and all that can be said and go wrong on the way. */
#include "tests/cmd/launch_rig.h"

TestSuite(launch_ssh, .init = setup, .fini = teardown, .timeout = 60);

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

Test(launch_ssh, by_ssh)
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

Test(launch_ssh, ssh_is_found_in_the_path)
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

Test(launch_ssh, host_that_is_an_option)
{
    launch_options o = desk("-oProxyCommand=reboot");
    launched *l;

    cr_expect_eq(launch(&l, &o, 8), PR_EUSAGE);
    cr_expect_neq(access(in_dir("args"), F_OK), 0, "ssh was started");
}

Test(launch_ssh, greetings_at_login_are_passed_by)
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

Test(launch_ssh, what_it_logs_is_prefixed_bounded_and_harmless)
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

Test(launch_ssh, machine_that_cannot_be_reached)
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
Test(launch_ssh, exit_statuses)
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

Test(launch_ssh, ssh_that_hangs)
{
    launch_options o = desk("desk.local");
    uint64_t start = clock_ns();
    launched *l;
    wake stop;

    act("hangs");
    cr_expect_eq(launch(&l, &o, 0.5), PR_EPEER);
    cr_expect_lt(clock_ms_since(start), 10000, "it hangs for ever");
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
Test(launch_ssh, name_that_means_loopback_over_there)
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
