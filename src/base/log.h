/* Log lines to stderr, one event a line; stdout is for data only. A progress line (terminal only) is
 * cleared before an event is printed and drawn again after it. Thread-safe. */
#ifndef PRIMA_BASE_LOG_H
#define PRIMA_BASE_LOG_H
#include <stdbool.h>

typedef enum { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG } log_level;

typedef struct {
    log_level level; /* lines above it are dropped; default LOG_INFO, PRIMA_LOG overrides */
    bool json;       /* --log-format json: {"ts","level","msg"} a line */
    bool color;      /* resolved by the caller from --color, NO_COLOR and isatty */
    bool progress;   /* false: log_progress draws nothing (also when stderr is no terminal) */
} log_options;

void log_setup(const log_options *o);
/* Level by name: error|warn|info|debug; returns false for anything else. */
bool log_level_parse(const char *name, log_level *out);
void log_msg(log_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
#define log_error(...) log_msg(LOG_ERROR, __VA_ARGS__)
#define log_warn(...)  log_msg(LOG_WARN, __VA_ARGS__)
#define log_info(...)  log_msg(LOG_INFO, __VA_ARGS__)
#define log_debug(...) log_msg(LOG_DEBUG, __VA_ARGS__)

/* Replace the progress line; an empty string removes it. Redraws at most 10 times a second. */
void log_progress(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

#endif
