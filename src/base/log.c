/* Log lines and the progress line, on stderr.
 *
 * Every event is put together in memory and leaves in one write, under a mutex, so lines of threads never
 * mix. Control characters in a message (it may quote a hostile file) are shown as \n or \x1b and never
 * reach the terminal. The progress line is the last line of the terminal: it is erased (CR, ESC[K) before an
 * event and drawn again behind it, in the same write. */
#include "src/base/log.h"
#include "src/base/clock.h"
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define MESSAGE_BYTES  2048
#define LINE_BYTES     (MESSAGE_BYTES * 6 + 128) /* JSON makes up to six bytes of one */
#define PROGRESS_BYTES 256
#define REDRAW_NS      100000000u

static const char *const level_names[] = {"error", "warn", "info", "debug"};
static const char *const level_colors[] = {"\033[31m", "\033[33m", "", "\033[2m"};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static log_options options = {.level = LOG_INFO};
static char progress[PROGRESS_BYTES]; /* as last asked for */
static bool drawn;                    /* it is on the terminal now */
static uint64_t drawn_ns;

/* Text being put together; what does not fit is dropped. */
typedef struct {
    char text[LINE_BYTES];
    size_t n;
} line;

static void put(line *l, const char *s, size_t n)
{
    if (n > sizeof l->text - l->n) n = sizeof l->text - l->n;
    memcpy(l->text + l->n, s, n);
    l->n += n;
}

static void put_text(line *l, const char *s)
{
    put(l, s, strlen(s));
}

/* Length of the UTF-8 sequence at s, 0 when it is not a valid one. */
static size_t utf8_length(const unsigned char *s)
{
    size_t n = s[0] < 0x80 ? 1 : s[0] >= 0xC2 && s[0] < 0xE0 ? 2 : s[0] >= 0xE0 && s[0] < 0xF0 ? 3 : 4;

    if (s[0] >= 0x80 && (s[0] < 0xC2 || s[0] > 0xF4)) return 0;
    for (size_t i = 1; i < n; i++)
        if ((s[i] & 0xC0) != 0x80) return 0;
    if (s[0] == 0xE0 && s[1] < 0xA0) return 0; /* overlong */
    if (s[0] == 0xED && s[1] > 0x9F) return 0; /* surrogate */
    if (s[0] == 0xF0 && s[1] < 0x90) return 0; /* overlong */
    if (s[0] == 0xF4 && s[1] > 0x8F) return 0; /* above U+10FFFF */
    return n;
}

/* A message with everything escaped that would break the line or, in JSON, the string. */
static void put_escaped(line *l, const char *text, bool json)
{
    const unsigned char *s = (const unsigned char *)text;

    while (*s) {
        size_t n = utf8_length(s);
        char esc[8];

        if (n > 1 || (n == 1 && *s >= 0x20 && *s != 0x7F && !(json && (*s == '"' || *s == '\\')))) {
            put(l, (const char *)s, n);
            s += n;
            continue;
        }
        if (*s == '\n') snprintf(esc, sizeof esc, "\\n");
        else if (n == 1 && (*s == '"' || *s == '\\')) snprintf(esc, sizeof esc, "\\%c", *s);
        else if (json) snprintf(esc, sizeof esc, "\\u%04x", n ? *s : 0xFFFDu);
        else snprintf(esc, sizeof esc, "\\x%02x", *s);
        put_text(l, esc);
        s++;
    }
}

static void put_event(line *l, log_level level, const char *message)
{
    char now[CLOCK_RFC3339_BYTES];

    clock_rfc3339(now);
    if (options.json) {
        put_text(l, "{\"ts\":\"");
        put_text(l, now);
        put_text(l, "\",\"level\":\"");
        put_text(l, level_names[level]);
        put_text(l, "\",\"msg\":\"");
        put_escaped(l, message, true);
        put_text(l, "\"}\n");
        return;
    }
    bool colored = options.color && *level_colors[level];
    put_text(l, now);
    put_text(l, " ");
    if (colored) put_text(l, level_colors[level]);
    put_text(l, level_names[level]);
    if (colored) put_text(l, "\033[0m");
    put(l, "  ", strlen(level_names[level]) < 5 ? 2 : 1);
    put_escaped(l, message, false);
    put_text(l, "\n");
}

/* stderr that is gone is nothing to report anywhere. */
static void flush(const line *l)
{
    for (size_t done = 0; done < l->n;) {
        ssize_t n = write(STDERR_FILENO, l->text + done, l->n - done);
        if (n <= 0) return;
        done += (size_t)n;
    }
}

void log_setup(const log_options *o)
{
    const char *wanted = getenv("PRIMA_LOG");
    bool known = true;

    pthread_mutex_lock(&lock);
    options = *o;
    options.progress = o->progress && isatty(STDERR_FILENO);
    if (wanted && *wanted) known = log_level_parse(wanted, &options.level);
    pthread_mutex_unlock(&lock);
    if (!known) log_warn("PRIMA_LOG=%s is not a level (error, warn, info, debug): ignored", wanted);
}

bool log_level_parse(const char *name, log_level *out)
{
    for (int i = LOG_ERROR; i <= LOG_DEBUG; i++) {
        if (strcmp(name, level_names[i])) continue;
        *out = (log_level)i;
        return true;
    }
    return false;
}

void log_msg(log_level level, const char *fmt, ...)
{
    char message[MESSAGE_BYTES];
    line l = {.n = 0};
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(message, sizeof message, fmt, ap);
    va_end(ap);
    pthread_mutex_lock(&lock);
    if (level <= options.level) {
        if (drawn) put_text(&l, "\r\033[K");
        put_event(&l, level, message);
        if (drawn) put_escaped(&l, progress, false);
        flush(&l);
    }
    pthread_mutex_unlock(&lock);
}

/* A progress line that wraps cannot be erased: cut it to the terminal's width. */
static void fit_progress(void)
{
    struct winsize w;
    size_t end;

    if (ioctl(STDERR_FILENO, TIOCGWINSZ, &w) || w.ws_col < 2 || strlen(progress) < w.ws_col) return;
    end = w.ws_col - 1u;
    while (end > 0 && ((unsigned char)progress[end] & 0xC0) == 0x80) end--;
    progress[end] = 0;
}

void log_progress(const char *fmt, ...)
{
    line l = {.n = 0};
    uint64_t now = clock_ns();
    va_list ap;

    pthread_mutex_lock(&lock);
    va_start(ap, fmt);
    vsnprintf(progress, sizeof progress, fmt, ap);
    va_end(ap);
    if (options.progress && (!*progress ? drawn : !drawn || now - drawn_ns >= REDRAW_NS)) {
        fit_progress();
        put_text(&l, "\r\033[K");
        put_escaped(&l, progress, false);
        flush(&l);
        drawn = *progress != 0;
        drawn_ns = now;
    }
    pthread_mutex_unlock(&lock);
}
