/* Option tables over getopt_long; see options.h. */
#include "src/options.h"
#include "kernels/cuda/device.h"
#include "src/base/log.h"
#include "src/base/units.h"
#include "src/cmd.h"
#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAX_OPTIONS = 64, LONG_ONLY = 256 };

typedef struct {
    bool help, version, quiet, no_progress;
    size_t verbose;
    const char *log_format, *color;
} common_options;

static const struct {
    const char *name;
    char letter;
    const char *arg, *help;
} common_table[] = {
    {"help", 'h', NULL, "show this text"},
    {"version", 'V', NULL, "show version and commit"},
    {"verbose", 'v', NULL, "log more (repeatable)"},
    {"quiet", 'q', NULL, "log errors only"},
    {"log-format", 0, "text|json", "form of log lines (text)"},
    {"no-progress", 0, NULL, "no progress line"},
    {"color", 0, "auto|always|never", "colour in log lines (auto)"},
};
enum { N_COMMON = sizeof common_table / sizeof *common_table };

/* --- help --------------------------------------------------------------------------------------- */
static void print_option(const char *name, char letter, const char *arg, const char *help)
{
    char left[64];

    snprintf(left, sizeof left, "%s%c%s --%s%s%s", letter ? "-" : " ", letter ? letter : ' ',
             letter ? "," : " ", name, arg ? " " : "", arg ? arg : "");
    printf("  %-32s %s\n", left, help);
}

/* A command may give a common option a meaning of its own. */
static bool in_table(const opt_spec *spec, const char *name)
{
    for (const opt *o = spec->table; o->name; o++) {
        if (strcmp(o->name, name) == 0) return true;
    }
    return false;
}

static void print_help(const opt_spec *spec, const char *command)
{
    printf("Usage: prima %s %s\n\n%s\n\nOptions:\n", command, spec->usage, spec->about);
    for (const opt *o = spec->table; o->name; o++) print_option(o->name, o->letter, o->arg, o->help);
    for (size_t i = 0; i < N_COMMON; i++) {
        if (!in_table(spec, common_table[i].name))
            print_option(common_table[i].name, common_table[i].letter, common_table[i].arg,
                         common_table[i].help);
    }
}

/* --- values ------------------------------------------------------------------------------------- */
static int bad_value(const opt *o, const char *text, pr_err *err)
{
    switch (o->kind) {
    case OPT_COUNT:
        return pr_fail(err, PR_EUSAGE, "--%s %s: expected a whole number from %.0f to %.0f", o->name, text,
                       o->min, o->max);
    case OPT_SEED:
        return pr_fail(err, PR_EUSAGE, "--%s %s: expected a whole number from 0 to 2^64-1", o->name, text);
    case OPT_DURATION:
        return pr_fail(err, PR_EUSAGE, "--%s %s: expected a duration such as 500ms, 10s or 5m", o->name,
                       text);
    default:
        return pr_fail(err, PR_EUSAGE, "--%s %s: expected a number from %g to %g", o->name, text, o->min,
                       o->max);
    }
}

static bool parse_duration(const char *text, double *seconds)
{
    char *unit;
    double v = strtod(text, &unit);

    if (unit == text || !isfinite(v) || v < 0) return false;
    if (strcmp(unit, "ms") == 0) *seconds = v / 1e3;
    else if (strcmp(unit, "s") == 0) *seconds = v;
    else if (strcmp(unit, "m") == 0) *seconds = v * 60;
    else return false;
    return true;
}

static bool parse_u64(const char *text, uint64_t *v)
{
    char *rest;

    if (*text < '0' || *text > '9') return false;
    errno = 0;
    *v = strtoull(text, &rest, 10);
    return !*rest && !errno;
}

static int set_size(const opt *o, const char *text, pr_err *err)
{
    char hint[UNITS_HINT_BYTES];
    uint64_t v;

    if (!units_size(text, &v, hint))
        return pr_fail(err, PR_EUSAGE, "--%s %s: %s", o->name, text,
                       *hint ? hint : "expected a size such as 8GiB, 512MiB, 500MB or plain bytes");
    if ((double)v < o->min || (double)v > o->max)
        return pr_fail(err, PR_EUSAGE, "--%s %s: expected %.0f to %.0f bytes", o->name, text, o->min, o->max);
    *(uint64_t *)o->value = v;
    return PR_OK;
}

static int add_value(const opt *o, const char *text, pr_err *err)
{
    opt_list *list = o->value;

    if (list->n == OPT_LIST_MAX)
        return pr_fail(err, PR_EUSAGE, "--%s %s: given more than %d times", o->name, text, OPT_LIST_MAX);
    list->value[list->n++] = text;
    return PR_OK;
}

static int set_value(const opt *o, const char *text, pr_err *err)
{
    uint64_t u = 0;
    double d = 0;
    char *rest;

    switch (o->kind) {
    case OPT_FLAG: *(bool *)o->value = true; return PR_OK;
    case OPT_STRING: *(const char **)o->value = text; return PR_OK;
    case OPT_COUNT:
        if (!parse_u64(text, &u) || (double)u < o->min || (double)u > o->max) return bad_value(o, text, err);
        *(size_t *)o->value = (size_t)u;
        return PR_OK;
    case OPT_SEED: return parse_u64(text, (uint64_t *)o->value) ? PR_OK : bad_value(o, text, err);
    case OPT_DURATION: return parse_duration(text, (double *)o->value) ? PR_OK : bad_value(o, text, err);
    case OPT_SIZE: return set_size(o, text, err);
    case OPT_REAL:
        d = strtod(text, &rest);
        if (rest == text || *rest || !(d >= o->min && d <= o->max)) return bad_value(o, text, err);
        *(double *)o->value = d;
        return PR_OK;
    case OPT_LIST: return add_value(o, text, err);
    }
    return pr_fail(err, PR_EINTERNAL, "option kind %d", (int)o->kind);
}

/* --- common options ------------------------------------------------------------------------------ */
static int set_common(common_options *c, size_t i, const char *text, pr_err *err)
{
    const char *name = common_table[i].name;

    if (strcmp(name, "help") == 0) c->help = true;
    else if (strcmp(name, "version") == 0) c->version = true;
    else if (strcmp(name, "verbose") == 0) c->verbose++;
    else if (strcmp(name, "quiet") == 0) c->quiet = true;
    else if (strcmp(name, "no-progress") == 0) c->no_progress = true;
    else if (strcmp(name, "log-format") == 0) c->log_format = text;
    else c->color = text;
    if (c->log_format && strcmp(c->log_format, "text") && strcmp(c->log_format, "json"))
        return pr_fail(err, PR_EUSAGE, "--log-format %s: expected text or json", c->log_format);
    if (c->color && strcmp(c->color, "auto") && strcmp(c->color, "always") && strcmp(c->color, "never"))
        return pr_fail(err, PR_EUSAGE, "--color %s: expected auto, always or never", c->color);
    return PR_OK;
}

static int setup_log(const common_options *c, pr_err *err)
{
    const char *env = getenv("PRIMA_LOG");
    log_options o = {.level = LOG_INFO, .progress = !c->no_progress && !c->quiet};

    if (env && !log_level_parse(env, &o.level))
        return pr_fail(err, PR_EUSAGE, "PRIMA_LOG=%s: expected error, warn, info or debug", env);
    if (c->verbose) o.level = LOG_DEBUG;
    if (c->quiet) o.level = LOG_ERROR;
    o.json = c->log_format && strcmp(c->log_format, "json") == 0;
    o.color = isatty(STDERR_FILENO) && !getenv("NO_COLOR");
    if (c->color && strcmp(c->color, "auto")) o.color = strcmp(c->color, "always") == 0;
    log_setup(&o);
    return PR_OK;
}

/* --- the parser ----------------------------------------------------------------------------------- */
/* getopt's tables: the command's options first, then the common ones; val = index + LONG_ONLY. */
static size_t build_getopt(const opt_spec *spec, struct option *longs, char *shorts)
{
    size_t n = 0;

    *shorts++ = ':';
    for (const opt *o = spec->table; o->name; o++, n++) {
        bool arg = o->kind != OPT_FLAG;
        longs[n] = (struct option){o->name, arg ? required_argument : no_argument, NULL, (int)n + LONG_ONLY};
        if (o->letter) *shorts++ = o->letter;
        if (o->letter && arg) *shorts++ = ':';
    }
    for (size_t i = 0; i < N_COMMON; i++) {
        bool arg = common_table[i].arg;
        longs[n + i] = (struct option){common_table[i].name, arg ? required_argument : no_argument, NULL,
                                       (int)(n + i) + LONG_ONLY};
        if (common_table[i].letter) *shorts++ = common_table[i].letter;
    }
    longs[n + N_COMMON] = (struct option){0};
    *shorts = 0;
    return n;
}

static size_t index_of(const opt_spec *spec, size_t n, int c)
{
    if (c >= LONG_ONLY) return (size_t)(c - LONG_ONLY);
    for (size_t i = 0; i < n; i++) {
        if (spec->table[i].letter == c) return i;
    }
    for (size_t i = 0; i < N_COMMON; i++) {
        if (common_table[i].letter == c) return n + i;
    }
    return n + N_COMMON;
}

int options_parse(const opt_spec *spec, int argc, char **argv, int *first_arg, pr_err *err)
{
    struct option longs[MAX_OPTIONS + N_COMMON + 1];
    char shorts[3 * (MAX_OPTIONS + N_COMMON) + 2];
    common_options common = {0};
    size_t n = build_getopt(spec, longs, shorts);
    int c, rc;

    opterr = 0;
    optind = 1;
    while ((c = getopt_long(argc, argv, shorts, longs, NULL)) != -1) {
        size_t i = index_of(spec, n, c);
        if (c == '?' || c == ':')
            return pr_fail(err, PR_EUSAGE, "%s: %s (see prima %s --help)", argv[optind - 1],
                           c == ':' ? "a value is missing" : "unknown option", argv[0]);
        rc = i < n ? set_value(&spec->table[i], optarg, err) : set_common(&common, i - n, optarg, err);
        if (rc) return rc;
    }
    if (common.help) print_help(spec, argv[0]);
    else if (common.version) printf("prima %s (%s)\n", prima_version, gpu_support());
    if (common.help || common.version) return OPTIONS_HELP;
    if ((rc = setup_log(&common, err))) return rc;
    *first_arg = optind;
    if (argc - optind < spec->min_args || (spec->max_args >= 0 && argc - optind > spec->max_args))
        return pr_fail(err, PR_EUSAGE, "expected: prima %s %s (see prima %s --help)", argv[0], spec->usage,
                       argv[0]);
    return PR_OK;
}
