/* The commands: one file each, tied together by the table in main.c. argv[0] is the command's name. Each
 * returns PR_OK, or a negative code with *err set; main prints the message and exits with the code's
 * negation. */
#ifndef PRIMA_CMD_H
#define PRIMA_CMD_H
#include "src/base/err.h"

int cmd_pull(int argc, char **argv, pr_err *err);
int cmd_profile(int argc, char **argv, pr_err *err);
int cmd_plan(int argc, char **argv, pr_err *err);
int cmd_simulate(int argc, char **argv, pr_err *err);
int cmd_run(int argc, char **argv, pr_err *err);
int cmd_inspect(int argc, char **argv, pr_err *err);
int cmd_eval(int argc, char **argv, pr_err *err);
int cmd_bench(int argc, char **argv, pr_err *err);
int cmd_worker(int argc, char **argv, pr_err *err);
int cmd_keygen(int argc, char **argv, pr_err *err);

/* What this program calls itself in files: version and commit. */
extern const char *const prima_version;

#endif
