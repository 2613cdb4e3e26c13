/* One table a command: parser, help text, default and range in one place. */
#ifndef PRIMA_OPTIONS_H
#define PRIMA_OPTIONS_H
#include "src/base/err.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum {
    OPT_FLAG,     /* bool *: present = true */
    OPT_STRING,   /* const char ** */
    OPT_COUNT,    /* size_t *: whole number in [min, max] */
    OPT_SEED,     /* uint64_t *: any unsigned 64-bit number */
    OPT_REAL,     /* double * in [min, max] */
    OPT_DURATION, /* double *, seconds: 500ms 10s 5m */
    OPT_SIZE,     /* uint64_t *, bytes in [min, max]: 8GiB 500MB */
    OPT_LIST      /* opt_list *: may be given several times, at most OPT_LIST_MAX */
} opt_kind;

enum { OPT_LIST_MAX = 64 };
typedef struct {
    size_t n;
    const char *value[OPT_LIST_MAX];
} opt_list;

typedef struct {
    const char *name; /* long name */
    char letter;      /* short name, or 0 */
    opt_kind kind;
    void *value;     /* holds the default beforehand */
    const char *arg; /* what the help calls the value; NULL for flags */
    double min, max;
    const char *help; /* one line; the default is part of it */
} opt;

typedef struct {
    const char *usage;      /* "MODEL.gguf PROMPTS.jsonl [options]" */
    const char *about;      /* one or more lines under the usage */
    const opt *table;       /* ends with name == NULL */
    int min_args, max_args; /* positional arguments; max < 0 = any number */
} opt_spec;

enum { OPTIONS_HELP = 1 }; /* returned after help or version was printed: the command is done */

/* argv[0] is the command's name. Positional arguments are moved to the end; *first_arg is the index of the
 * first. Also understands -h -V -v -q --log-format --no-progress --color and sets up the log. PR_EUSAGE names
 * the option and what it accepts. */
int options_parse(const opt_spec *spec, int argc, char **argv, int *first_arg, pr_err *err);

#endif
