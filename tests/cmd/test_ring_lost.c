/* Devices that are lost in the middle of a job, in every way: the job goes on, and the completions are those
 * of an undisturbed run. */
#include "tests/cmd/ring_job.h"

TestSuite(ring_lost, .init = open_dir, .fini = close_dir, .timeout = 200);

Test(ring_lost, workers_killed_at_several_moments)
{
    unsigned restarts = 0;
    char *csv;
    pid_t head;

    make_prompts(300, true);
    run_alone(MODEL);
    head = start(demo_plan(3, 2, 16), ARGS("--restarts", "20", "--timings", in_dir("t.csv")));
    for (size_t i = 0; i < 4; i++) {
        await_lines(1 + 50 * i);
        await_workers(1); /* two, unless the last one was killed while it came back */
        signal_worker(i % count_workers(), SIGKILL);
    }
    finish(head, "is lost");
    csv = read_file(in_dir("t.run.csv"));
    cr_assert_eq(sscanf(strrchr(csv, ','), ",%u", &restarts), 1, "%s", csv);
    cr_expect(restarts >= 2 && restarts <= 20, "%u restarts", restarts);
    free(csv);
}

/* Whoever comes back dies as soon as it is there, while it loads; then all that are left at once. */
Test(ring_lost, workers_killed_in_a_row_and_together)
{
    pid_t pid[2 * MAX_DEVICES], head;

    make_prompts(200, true);
    run_alone(MODEL);
    head = start(demo_plan(3, 1, 16), ARGS("--restarts", "20"));
    await_lines(10);
    for (unsigned ms = 0; ms < 60; ms += 10) {
        size_t n = find_workers(pid, 2 * MAX_DEVICES);
        if (n) kill(pid[n - 1], SIGKILL); /* by now it may have gone on without any */
        sleep_ms(20 + ms);
    }
    await_lines(80);
    for (size_t n = find_workers(pid, 2 * MAX_DEVICES); n-- > 0;) kill(pid[n], SIGKILL);
    finish(head, NULL);
}

/* Killed before it has said where it listens, it has never been there: nothing is begun. Later it is like one
 * that is lost in the middle of the job. */
Test(ring_lost, a_worker_killed_before_it_was_ready)
{
    make_prompts(20, true);
    run_alone(MODEL);
    for (unsigned ms = 0; ms < 40; ms += 8) {
        pid_t head = start(demo_plan(3, 1, 4), NULL);
        prima_result r;

        await_workers(1);
        sleep_ms(ms);
        signal_worker(0, SIGKILL);
        r = prima_wait(head);
        if (r.status == 0) assert_same("killed while it loads");
        else cr_expect(r.status == 6 && strstr(r.err, "d1"), "exit status %d: %s", r.status, r.err);
        assert_no_workers_after(3);
        forget_output();
    }
}

/* Three devices as the planner wants them, with so much memory each. How fast they are does not matter here:
 * their profiles are those of an example. */
static void plan_for_three(const char *ram)
{
    char text[1024], command[2048];
    uint16_t port[3];
    prima_result r;

    free_ports(port, 3);
    snprintf(text, sizeof text,
             "schema: prima/cluster/1\ncluster: box\nsecurity: {mode: psk}\ndevices:\n"
             "  - {name: d0, host: 127.0.0.1, ram: %s, port: %u, threads: 1, profile: d0.json, model: %s}\n"
             "  - {name: d1, host: 127.0.0.1, ram: %s, port: %u, threads: 1, profile: d1.json}\n"
             "  - {name: d2, host: 127.0.0.1, ram: %s, port: %u, threads: 1, profile: d2.json}\n",
             ram, port[0], MODEL, ram, port[1], ram, port[2]);
    write_file(in_dir("cluster.yaml"), text);
    for (int i = 0; i < 3; i++) {
        snprintf(command, sizeof command,
                 "sed 's/\"device\": \"d3-desktop\"/\"device\": \"d%d\"/' "
                 "datasets/clusters/paper-home/d3-desktop.json >'%s/d%d.json'",
                 i, in_dir("."), i);
        cr_assert_eq(system(command), 0);
    }
    r = prima_run(NULL, ARGS("plan", in_dir("cluster.yaml"), "-m", MODEL, "--ctx", "512", "--slots", "32",
                             "--layers", "3,3,2", "-o", plan_path));
    cr_assert_eq(r.status, 0, "%s", r.err);
}

/* A job that loses a device for good. Devices without a copy of the model get their tensors
 * from the head. 64 MiB: the others can hold its layers; 19 MiB: they cannot. */
Test(ring_lost, no_restarts)
{
    prima_result r;
    pid_t head;
    size_t n;

    make_prompts(200, true);
    run_alone(MODEL);
    plan_for_three("64MiB");
    head = start(plan_path, ARGS("--restarts", "0"));
    await_lines(20);
    signal_worker(0, SIGKILL);
    finish(head, "going on without d");

    plan_for_three("19MiB");
    head = start(plan_path, ARGS("--restarts", "1"));
    await_lines(20);
    signal_worker(0, SIGKILL);
    await_lines(lines_of(out) + 5);
    await_workers(2);
    signal_worker(0, SIGKILL);
    r = prima_wait(head);
    cr_expect_eq(r.status, 6, "exit status %d: %s", r.status, r.err);
    cr_expect(strstr(r.err, "restarts are used up"), "%s", r.err);
    cr_expect(strstr(r.err, "run again with --resume"), "%s", r.err);
    cr_expect(strstr(r.err, "  [d1] "), "lines of workers have their names in front: %s", r.err);
    n = count_lines(out);
    cr_assert(n >= 25 && n < 200, "%zu lines", n);
    assert_no_workers_after(3);
    finish(start(demo_plan(2, 3, 4), ARGS("--resume")), NULL); /* on any other ring */
}

Test(ring_lost, the_head_is_ended)
{
    static const int sig[] = {SIGTERM, SIGINT, SIGKILL};

    make_prompts(200, true);
    run_alone(MODEL);
    demo_plan(3, 1, 16);
    for (int i = 0; i < 3; i++) {
        pid_t head = start(plan_path, ARGS("--grace", "0s", i ? "--resume" : NULL));
        prima_result r;
        await_lines(20 + lines_of(out));
        kill(head, sig[i]);
        r = prima_wait(head);
        cr_expect_eq(r.status, 128 + sig[i], "exit status %d: %s", r.status, r.err);
        if (sig[i] != SIGKILL) cr_expect(strstr(r.err, "--resume"), "%s", r.err);
        assert_no_workers_after(3);
    }
    finish(start(plan_path, ARGS("--resume")), NULL);
}

/* A closed lid: nothing is refused, nothing answers. Only the silence tells. */
Test(ring_lost, a_worker_that_hangs_is_found_by_its_silence)
{
    plan *p = new_plan(MODEL, 3, 1, 16);
    uint64_t start_ns;
    pid_t head;

    make_prompts(200, true);
    run_alone(MODEL);
    p->net.heartbeat_s = 0.2;
    p->net.peer_s = 0.5;
    head = start(save(p), ARGS("--restarts", "20"));
    await_lines(20);
    signal_worker(0, SIGSTOP);
    start_ns = clock_ns();
    while (!file_contains(stderr_path, "is lost: ") && clock_ms_since(start_ns) < 20000) sleep_ms(5);
    cr_expect_lt(clock_ms_since(start_ns), 5000, "found after %.0f ms", clock_ms_since(start_ns));
    finish(head, "is lost: ");
}

/* A worker that somebody else has started and that hangs: it is waited for, for twenty seconds. A user who
 * wants to stop waits for no more than the grace time. */
Test(ring_lost, grace_is_kept_while_a_device_is_waited_for)
{
    plan *p = new_plan(MODEL, 2, 1, 4);
    uint64_t start_ns;
    prima_result r;
    pid_t head;

    make_prompts(200, true);
    run_alone(MODEL);
    p->net.heartbeat_s = 0.1;
    p->net.peer_s = 0.5;
    start_by_hand(p->device[1].port, NULL);
    head = start(save(p), ARGS("--grace", "1s"));
    await_lines(5);
    kill(by_hand, SIGSTOP);
    start_ns = clock_ns();
    while (!file_contains(stderr_path, "is lost: ") && clock_ms_since(start_ns) < 20000) sleep_ms(5);
    sleep_ms(200);
    start_ns = clock_ns();
    kill(head, SIGTERM);
    r = prima_wait(head);
    cr_expect_eq(r.status, 143, "exit status %d: %s", r.status, r.err);
    cr_expect(clock_ms_since(start_ns) > 900 && clock_ms_since(start_ns) < 15000, "%.0f ms",
              clock_ms_since(start_ns));
    cr_expect(strstr(r.err, "stopped by a signal; ") && strstr(r.err, "--resume"), "%s", r.err);
    kill(by_hand, SIGKILL);
    waitpid(by_hand, NULL, 0);
    finish(start(plan_path, ARGS("--resume")), NULL);
}
