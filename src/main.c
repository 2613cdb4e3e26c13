/* prima: the table of commands, and the only place that prints an error and exits. */
#include "kernels/cuda/device.h"
#include "src/base/log.h"
#include "src/cmd.h"
#include <locale.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

const char *const prima_version = PRIMA_VERSION;

static const struct {
    const char *name, *what;
    int (*run)(int argc, char **argv, pr_err *err);
} commands[] = {
    {"pull", "fetch a model, or what a device needs of one, and check it", cmd_pull},
    {"profile", "measure this device", cmd_profile},
    {"plan", "which device runs which layers: from cluster.yaml and profiles to plan.yaml", cmd_plan},
    {"simulate", "play a plan through, event by event", cmd_simulate},
    {"run", "answer a file of prompts", cmd_run},
    {"inspect", "say what a model file or a plan is", cmd_inspect},
    {"eval", "tokens, chat prompts, logits, perplexity: for comparing implementations", cmd_eval},
    {"worker", "compute a device's layers for `prima run` on another device", cmd_worker},
    {"keygen", "make the key that the devices of a cluster share", cmd_keygen},
    {"bench", "measure and write results/*.csv", cmd_bench},
};
enum { N_COMMANDS = sizeof commands / sizeof *commands };

static void print_help(FILE *f)
{
    fprintf(f, "prima: run language models as unattended batch jobs\n\nUsage: prima COMMAND ... (prima "
               "COMMAND --help)\n\nCommands:\n");
    for (size_t i = 0; i < N_COMMANDS; i++) fprintf(f, "  %-10s %s\n", commands[i].name, commands[i].what);
}

static int run(int argc, char **argv, pr_err *err)
{
    for (size_t i = 0; i < N_COMMANDS; i++) {
        if (strcmp(argv[1], commands[i].name) == 0) return commands[i].run(argc - 1, argv + 1, err);
    }
    return pr_fail(err, PR_EUSAGE, "unknown command %s (see prima --help)", argv[1]);
}

int main(int argc, char **argv)
{
    pr_err err = {0};
    int rc;

    setlocale(LC_ALL, "C");
    signal(SIGPIPE, SIG_IGN);
    if (argc < 2) {
        print_help(stderr);
        return -PR_EUSAGE;
    }
    if (!strcmp(argv[1], "-h") || !strcmp(argv[1], "--help")) {
        print_help(stdout);
        return 0;
    }
    if (!strcmp(argv[1], "-V") || !strcmp(argv[1], "--version")) {
        printf("prima %s (%s)\n", prima_version, gpu_support());
        return 0;
    }
    rc = run(argc, argv, &err);
    if (rc && err.msg[0]) log_error("prima %s: %s", argv[1], err.msg);
    return -rc;
}
