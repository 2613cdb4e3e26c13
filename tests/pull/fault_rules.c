/* The rules of the fault server: which requests go wrong, how, and how often.
 *
 * A line is METHOD GLOB WORD...: the method or *, a pattern for the decoded path, then what happens. The
 * first line that fits and is not used up decides. `skip=2 times=3` means the third, fourth and fifth request
 * that fits. The words are described in tests/pull/README.md. */
#include "tests/pull/fault.h"
#include <fnmatch.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { MAX_RULES = 64, MAX_LINE = 2048 };

typedef struct {
    char method[16], glob[FAULT_TEXT], listener[8];
    unsigned long skip, times; /* times 0: for ever */
    unsigned long n_seen;
    int64_t cut_max; /* > 0: cut at a random byte, at most this one */
    fault f;
} rule;

static struct {
    pthread_mutex_t lock;
    const char *path;
    struct stat seen;
    rule rule[MAX_RULES];
    size_t n;
    uint64_t random;
} rules = {.lock = PTHREAD_MUTEX_INITIALIZER};

void rules_open(const char *path, uint64_t seed)
{
    rules.path = path;
    rules.random = seed ? seed : 1;
}

/* xorshift64: the same seed gives the same cuts. */
static uint64_t random_u64(void)
{
    rules.random ^= rules.random << 13;
    rules.random ^= rules.random >> 7;
    return rules.random ^= rules.random << 17;
}

static void bad_rule(unsigned line, const char *word)
{
    fprintf(stderr, "fault_server: %s:%u: \"%s\" is no rule\n", rules.path, line, word);
    exit(2);
}

static void copy_text(char *to, size_t size, const char *from)
{
    snprintf(to, size, "%s", from);
}

/* Underscores stand for spaces where a value may have them, since words are separated by spaces. */
static void copy_spaced(char *to, size_t size, const char *from)
{
    copy_text(to, size, from);
    for (char *c = to; *c; c++) *c = *c == '_' ? ' ' : *c;
}

static void parse_cut(rule *r, const char *value)
{
    if (strncmp(value, "random:", 7) == 0) {
        r->cut_max = strtoll(value + 7, NULL, 10);
        r->f.cut = 1;
    } else {
        r->f.cut = strtoll(value, NULL, 10);
    }
}

static bool parse_number_word(rule *r, const char *key, const char *value)
{
    const long long n = strtoll(value, NULL, 10);
    fault *f = &r->f;

    if (strcmp(key, "times") == 0) r->times = (unsigned long)n;
    else if (strcmp(key, "skip") == 0) r->skip = (unsigned long)n;
    else if (strcmp(key, "status") == 0) f->status = (int)n;
    else if (strcmp(key, "stall") == 0) f->stall = n;
    else if (strcmp(key, "truncate") == 0) f->truncate = n;
    else if (strcmp(key, "length") == 0) f->length = n;
    else if (strcmp(key, "corrupt") == 0) f->corrupt = n;
    else if (strcmp(key, "shift") == 0) f->shift = n;
    else if (strcmp(key, "rate") == 0) f->rate = (uint64_t)n;
    else return false;
    return true;
}

static bool parse_word(rule *r, char *word)
{
    char *value = strchr(word, '=');
    fault *f = &r->f;

    if (!value) {
        if (strcmp(word, "no_ranges") == 0) f->no_ranges = true;
        else if (strcmp(word, "chunked") == 0) f->chunked = true;
        else if (strcmp(word, "reset") == 0) f->reset = true;
        else return false;
        return true;
    }
    *value++ = '\0';
    if (strcmp(word, "cut") == 0) parse_cut(r, value);
    else if (strcmp(word, "on") == 0) copy_text(r->listener, sizeof r->listener, value);
    else if (strcmp(word, "redirect") == 0) copy_text(f->redirect, sizeof f->redirect, value);
    else if (strcmp(word, "etag") == 0) copy_text(f->etag, sizeof f->etag, value);
    else if (strcmp(word, "content_range") == 0)
        copy_spaced(f->content_range, sizeof f->content_range, value);
    else if (strcmp(word, "header") == 0) copy_spaced(f->header, sizeof f->header, value);
    else return parse_number_word(r, word, value);
    return true;
}

static void parse_line(char *text, unsigned line)
{
    char *save = NULL, *method = strtok_r(text, " \t\n", &save), *glob, *word;
    rule *r = &rules.rule[rules.n];

    if (!method || *method == '#') return;
    if (rules.n == MAX_RULES || !(glob = strtok_r(NULL, " \t\n", &save))) {
        bad_rule(line, method);
        return;
    }
    memset(r, 0, sizeof *r);
    r->f.line = line;
    r->f.cut = r->f.stall = r->f.truncate = r->f.length = r->f.corrupt = CUT_NONE;
    copy_text(r->method, sizeof r->method, method);
    copy_text(r->glob, sizeof r->glob, glob);
    while ((word = strtok_r(NULL, " \t\n", &save))) {
        if (!parse_word(r, word)) bad_rule(line, word);
    }
    rules.n++;
}

static void read_again_if_new(void)
{
    char line[MAX_LINE];
    struct stat now;
    FILE *f;

    if (!rules.path || stat(rules.path, &now)) return;
    if (now.st_ino == rules.seen.st_ino && now.st_dev == rules.seen.st_dev) return;
    if (!(f = fopen(rules.path, "r"))) return;
    rules.seen = now;
    rules.n = 0;
    for (unsigned i = 1; fgets(line, sizeof line, f); i++) parse_line(line, i);
    fclose(f);
}

static bool fits(const rule *r, const request *q)
{
    if (strcmp(r->method, "*") != 0 && strcmp(r->method, q->method) != 0) return false;
    if (r->listener[0] && strcmp(r->listener, q->listener) != 0) return false;
    return fnmatch(r->glob, q->path, 0) == 0;
}

void rules_match(fault *out, const request *q)
{
    memset(out, 0, sizeof *out);
    out->cut = out->stall = out->truncate = out->length = out->corrupt = CUT_NONE;
    pthread_mutex_lock(&rules.lock);
    read_again_if_new();
    for (size_t i = 0; i < rules.n; i++) {
        rule *r = &rules.rule[i];
        if (!fits(r, q)) continue;
        r->n_seen++;
        if (r->n_seen <= r->skip || (r->times && r->n_seen > r->skip + r->times)) continue;
        *out = r->f;
        if (r->cut_max > 0) out->cut = 1 + (int64_t)(random_u64() % (uint64_t)r->cut_max);
        break;
    }
    pthread_mutex_unlock(&rules.lock);
}
