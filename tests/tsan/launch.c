/* Starting workers under ThreadSanitizer: several threads at once, each with a program that talks on both its
 * outputs while it is looked at, and that is stopped in the middle of a line. Prints TAP. */
#include "src/run/launch.h"
#include "src/base/log.h"
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { THREADS = 4, ROUNDS = 5 };
static char dir[64] = "/tmp/prima-tsan-XXXXXX", program[80];
static const char script[] = "#!/bin/sh\n"
                             "read order; echo 'a greeting'; echo 127.0.0.1:4000; echo 'more'\n"
                             "echo '2026-11-20T12:46:19Z debug a line' >&2\n"
                             "printf 'part of a line' >&2; cat > /dev/null\n";

static void *start_and_stop(void *arg)
{
    static const security sec = {.insecure = true};
    const launch_options o = {.name = arg, .host = "127.0.0.1", .sec = &sec, .self = program};
    bool good = true;

    for (int i = 0; i < ROUNDS; i++) {
        pr_err e = {0};
        launched *l;
        if (launch_worker(&l, &o, sock_deadline(20), &e)) {
            printf("# %s\n", e.msg);
            return NULL;
        }
        good = good && launch_is_ours(l) && !strcmp(launch_address(l), "127.0.0.1:4000");
        if (launch_running(l)) launch_check(l, &e);
        launch_stop(l, i % 2 ? 5 : 0);
    }
    return good ? arg : NULL;
}

int main(void)
{
    static char name[THREADS][8];
    pthread_t t[THREADS];
    bool good = true;
    void *end;
    FILE *f;

    signal(SIGPIPE, SIG_IGN);
    log_setup(&(log_options){.level = LOG_ERROR});
    if (!mkdtemp(dir)) return 1;
    snprintf(program, sizeof program, "%s/worker", dir);
    if (!(f = fopen(program, "we")) || fputs(script, f) < 0 || fclose(f) || chmod(program, 0700)) return 1;
    for (int i = 0; i < THREADS; i++) {
        snprintf(name[i], sizeof name[i], "dev%d", i);
        if (pthread_create(&t[i], NULL, start_and_stop, name[i])) return 1;
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(t[i], &end);
        good = good && end;
    }
    unlink(program);
    rmdir(dir);
    printf("%s 1 - workers started and stopped by %d threads at once\n1..1\n", good ? "ok" : "not ok",
           THREADS);
    return !good;
}
