/* A reader of the Prometheus text format, written from its description (exposition formats, version 0.0.4),
 * not from our writer: names, labels with escapes, values, and that HELP and TYPE come once and before. */
#ifndef PRIMA_TESTS_PROM_H
#define PRIMA_TESTS_PROM_H
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PROM_MAX = 512 };

typedef struct {
    char name[64], label[32], value_of_label[64], type[16];
    double value;
} prom_sample;

typedef struct {
    prom_sample s[PROM_MAX];
    size_t n;
    char wrong[256]; /* empty: the text is valid */
} prom;

static inline size_t prom_name(const char *p, bool is_label)
{
    size_t n = 0;

    while ((p[n] >= 'a' && p[n] <= 'z') || (p[n] >= 'A' && p[n] <= 'Z') || p[n] == '_' ||
           (p[n] == ':' && !is_label) || (n && p[n] >= '0' && p[n] <= '9'))
        n++;
    return n;
}

/* "text\"with\\escapes\n" behind the quote; NULL: it does not end. */
static inline const char *prom_text(const char *p, char *out, size_t max)
{
    size_t n = 0;

    for (; *p && *p != '"' && *p != '\n'; p++) {
        char c = *p;
        if (c == '\\') {
            c = *++p;
            if (c != '\\' && c != '"' && c != 'n') return NULL;
            if (c == 'n') c = '\n';
        }
        if (n + 1 < max) out[n++] = c;
    }
    out[n] = 0;
    return *p == '"' ? p + 1 : NULL;
}

/* A line without its end; false: it is none. */
static inline bool prom_line(prom *r, const char *p, const char *type_of, const char *type)
{
    prom_sample *s = &r->s[r->n];
    size_t n = prom_name(p, false);
    char *end;

    if (!n || n >= sizeof s->name || r->n == PROM_MAX) return false;
    *s = (prom_sample){.value = NAN};
    memcpy(s->name, p, n);
    snprintf(s->type, sizeof s->type, "%s", type);
    p += n;
    if (strcmp(s->name, type_of)) return false; /* all of our samples have the name of their family */
    if (*p == '{') {
        n = prom_name(++p, true);
        if (!n || n >= sizeof s->label || strncmp(p + n, "=\"", 2)) return false;
        memcpy(s->label, p, n);
        if (!(p = prom_text(p + n + 2, s->value_of_label, sizeof s->value_of_label)) || *p++ != '}')
            return false;
    }
    if (*p++ != ' ') return false;
    s->value = strtod(p, &end);
    if (end == p || *end) return false;
    r->n++;
    return true;
}

static inline bool prom_seen(char seen[][64], size_t n, const char *name)
{
    for (size_t i = 0; i < n; i++) {
        if (!strcmp(seen[i], name)) return true;
    }
    return false;
}

/* The conventions: base units, counters end in _total and nothing else does. */
static inline const char *prom_check_family(const char *name, const char *type)
{
    size_t n = strlen(name);
    bool is_total = n > 6 && !strcmp(name + n - 6, "_total");

    if (strcmp(type, "counter") && strcmp(type, "gauge")) return "type";
    if (is_total != !strcmp(type, "counter")) return "_total";
    if (strncmp(name, "prima_", 6)) return "prefix";
    if (strstr(name, "_ms") || strstr(name, "_mib") || strstr(name, "_percent")) return "unit";
    return NULL;
}

static inline prom *prom_parse(const char *text)
{
    static char seen[64][64];
    char help_of[64] = "", type_of[64] = "", type[16] = "";
    size_t n_seen = 0;
    prom *r = calloc(1, sizeof *r);

    if (text[0] && text[strlen(text) - 1] != '\n') snprintf(r->wrong, sizeof r->wrong, "no end of line");
    while (*text && !*r->wrong) {
        char line[512];
        size_t n = strcspn(text, "\n");
        snprintf(line, sizeof line, "%.*s", (int)n, text);
        text += n + (text[n] == '\n');
        if (!strncmp(line, "# HELP ", 7)) {
            snprintf(help_of, sizeof help_of, "%.*s", (int)prom_name(line + 7, false), line + 7);
            if (prom_seen(seen, n_seen, help_of) || n_seen == 64)
                snprintf(r->wrong, sizeof r->wrong, "a second time: %.200s", line);
            else snprintf(seen[n_seen++], 64, "%s", help_of);
        } else if (!strncmp(line, "# TYPE ", 7)) {
            const char *bad;
            if (sscanf(line + 7, "%63s %15s", type_of, type) != 2 || strcmp(type_of, help_of))
                snprintf(r->wrong, sizeof r->wrong, "not of the HELP before: %.200s", line);
            else if ((bad = prom_check_family(type_of, type)))
                snprintf(r->wrong, sizeof r->wrong, "%s: %.200s", bad, line);
        } else if (!prom_line(r, line, type_of, type)) {
            snprintf(r->wrong, sizeof r->wrong, "no sample: %.200s", line);
        }
    }
    return r;
}

/* NAN: there is none. label NULL: without labels. */
static inline double prom_get(const prom *r, const char *name, const char *label, const char *value)
{
    for (size_t i = 0; i < r->n; i++) {
        const prom_sample *s = &r->s[i];
        if (!strcmp(s->name, name) && !strcmp(s->label, label ? label : "") &&
            !strcmp(s->value_of_label, value ? value : ""))
            return s->value;
    }
    return NAN;
}

#endif
