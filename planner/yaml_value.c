/* What readers ask of an item of yaml.h: is it a map with these keys, is it a number in this range. All
 * messages name the key, what was found and what is expected. Numbers are read by hand from their digits, so
 * that the locale has no say and nothing like "0x10", "1_000" or "nan" gets through. */
#include "planner/yaml.h"
#include "src/base/units.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- maps and lists ------------------------------------------------------------------------------------- */
static const char *name_of(const yaml_item *item)
{
    return *item->key ? item->key : "the file";
}

static const char *kind_of(const yaml_item *item)
{
    return item->kind == YAML_MAP ? "a map" : item->kind == YAML_LIST ? "a list" : "a single value";
}

static size_t smallest(size_t a, size_t b, size_t c)
{
    return a < b ? (a < c ? a : c) : (b < c ? b : c);
}

/* Letters to change, drop or add to make b of a; names longer than the table count as far away. */
static size_t distance(const char *a, const char *b)
{
    size_t row[40], n = strlen(b);

    if (n + 1 > sizeof row / sizeof *row || strlen(a) > n + 4) return SIZE_MAX;
    for (size_t j = 0; j <= n; j++) row[j] = j;
    for (size_t i = 0; a[i]; i++) {
        size_t diagonal = row[0];
        row[0] = i + 1;
        for (size_t j = 0; j < n; j++) {
            size_t replace = diagonal + (a[i] != b[j]);
            diagonal = row[j + 1];
            row[j + 1] = smallest(replace, row[j] + 1, row[j + 1] + 1);
        }
    }
    return row[n];
}

/* The name that was probably meant, NULL when none is near. */
static const char *nearest(const char *text, const char *const names[])
{
    const char *best = NULL;
    size_t limit = strlen(text) < 4 ? 2 : 3;

    for (size_t i = 0; names[i]; i++) {
        size_t d = distance(text, names[i]);
        if (d < limit) {
            best = names[i];
            limit = d;
        }
    }
    return best;
}

/* "a, b, c" for a message. */
static const char *listed(const char *const names[], char *buf, size_t cap)
{
    size_t at = 0;

    buf[0] = 0;
    for (size_t i = 0; names[i] && at < cap; i++)
        at += (size_t)snprintf(buf + at, cap - at, "%s%s", i ? ", " : "", names[i]);
    return buf;
}

bool yaml_is_map(yaml_tree *t, const yaml_item *item)
{
    if (!item) return false;
    if (item->kind != YAML_MAP)
        yaml_fail(t, item, "%s: expected a map (key: value), found %s", name_of(item), kind_of(item));
    return item->kind == YAML_MAP;
}

bool yaml_is_list(yaml_tree *t, const yaml_item *item)
{
    if (!item) return false;
    if (item->kind != YAML_LIST)
        yaml_fail(t, item, "%s: expected a list, found %s", name_of(item), kind_of(item));
    return item->kind == YAML_LIST;
}

static bool is_one_of(const char *key, const char *const keys[])
{
    for (size_t i = 0; keys[i]; i++) {
        if (!strcmp(key, keys[i])) return true;
    }
    return false;
}

bool yaml_keys(yaml_tree *t, const yaml_item *map, const char *const keys[])
{
    char known[240];

    if (!yaml_is_map(t, map)) return false;
    for (const yaml_item *i = map->first; i; i = i->next) {
        yaml_item at_key = *i;
        const char *meant;
        if (is_one_of(i->key, keys)) continue;
        at_key.line = i->key_line;
        at_key.column = i->key_column;
        meant = nearest(i->key, keys);
        if (meant) yaml_fail(t, &at_key, "unknown key '%.64s': did you mean '%s'?", i->key, meant);
        else
            yaml_fail(t, &at_key, "unknown key '%.64s': known here are %s", i->key,
                      listed(keys, known, sizeof known));
        return false;
    }
    return true;
}

const yaml_item *yaml_get(const yaml_item *map, const char *key)
{
    if (!map || map->kind != YAML_MAP) return NULL;
    for (const yaml_item *i = map->first; i; i = i->next) {
        if (!strcmp(i->key, key)) return i;
    }
    return NULL;
}

const yaml_item *yaml_need(yaml_tree *t, const yaml_item *map, const char *key)
{
    const yaml_item *item = yaml_get(map, key);

    if (!item && map) yaml_fail(t, map, "%s: the key '%s' is missing", name_of(map), key);
    return item;
}

/* A scalar with something in it. */
static bool has_value(yaml_tree *t, const yaml_item *item, const char *expected)
{
    if (item->kind != YAML_TEXT) {
        yaml_fail(t, item, "%s: expected %s, found %s", name_of(item), expected, kind_of(item));
        return false;
    }
    if (!item->quoted && (!*item->text || !strcmp(item->text, "~") || !strcmp(item->text, "null"))) {
        yaml_fail(t, item, "%s: no value, expected %s; leave the key out to get its default", name_of(item),
                  expected);
        return false;
    }
    return true;
}

void yaml_schema(yaml_tree *t, const yaml_item *root, const char *kind)
{
    char expected[64];
    const yaml_item *item;
    size_t stem;

    if (!yaml_is_map(t, root)) return;
    stem = (size_t)snprintf(expected, sizeof expected, "prima/%s/1", kind) - 1;
    item = yaml_get(root, "schema");
    if (!item) {
        yaml_fail(t, root, "the key 'schema' is missing: the file must say 'schema: %s'", expected);
        return;
    }
    if (!has_value(t, item, expected) || !strcmp(item->text, expected)) return;
    if (!strncmp(item->text, expected, stem))
        yaml_fail(t, item,
                  "schema: '%.64s' is another version of this format; this prima reads '%s': make the "
                  "file anew with it, or use the prima that wrote it",
                  item->text, expected);
    else yaml_fail(t, item, "schema: expected '%s', found '%.64s'", expected, item->text);
}

/* --- numbers -------------------------------------------------------------------------------------------- */
uint64_t yaml_uint(yaml_tree *t, const yaml_item *item, uint64_t min, uint64_t max, uint64_t absent)
{
    uint64_t v;
    const char *end;

    if (!item || !has_value(t, item, "a whole number")) return absent;
    if (!units_fixed(item->text, 0, &v, &end) || *end) {
        yaml_fail(t, item, "%s: expected a whole number, found '%.64s'", name_of(item), item->text);
        return absent;
    }
    if (v < min || v > max) {
        yaml_fail(t, item, "%s: %.64s is outside %llu..%llu", name_of(item), item->text,
                  (unsigned long long)min, (unsigned long long)max);
        return absent;
    }
    return v;
}

/* [-]digits[.digits][e[+-]digits], and nothing else that strtod takes. */
static bool looks_like_number(const char *s)
{
    s += *s == '-';
    if (*s < '0' || *s > '9') return false;
    s += strspn(s, "0123456789");
    if (*s == '.') {
        if (!strspn(++s, "0123456789")) return false;
        s += strspn(s, "0123456789");
    }
    if (*s == 'e' || *s == 'E') {
        s++;
        s += *s == '-' || *s == '+';
        if (!strspn(s, "0123456789")) return false;
        s += strspn(s, "0123456789");
    }
    return !*s;
}

double yaml_number(yaml_tree *t, const yaml_item *item, double min, double max, double absent)
{
    double v;

    if (!item || !has_value(t, item, "a number")) return absent;
    if (strlen(item->text) > 64 || !looks_like_number(item->text)) {
        yaml_fail(t, item, "%s: expected a number, found '%.64s'", name_of(item), item->text);
        return absent;
    }
    v = strtod(item->text, NULL);
    if (!(v >= min && v <= max)) {
        yaml_fail(t, item, "%s: %.64s is outside %.15g..%.15g", name_of(item), item->text, min, max);
        return absent;
    }
    return v;
}

bool yaml_bool(yaml_tree *t, const yaml_item *item, bool absent)
{
    if (!item || !has_value(t, item, "true or false")) return absent;
    if (!strcmp(item->text, "true")) return true;
    if (!strcmp(item->text, "false")) return false;
    yaml_fail(t, item, "%s: expected true or false, found '%.64s'", name_of(item), item->text);
    return absent;
}

/* --- numbers with units --------------------------------------------------------------------------------- */
uint64_t yaml_size(yaml_tree *t, const yaml_item *item, uint64_t min, uint64_t max, uint64_t absent)
{
    uint64_t v;
    char hint[UNITS_HINT_BYTES];

    if (!item || !has_value(t, item, "a size such as 8GiB, 500MB or bytes")) return absent;
    if (!units_size(item->text, &v, hint)) {
        if (*hint) yaml_fail(t, item, "%s: '%.64s' is no size: %s", name_of(item), item->text, hint);
        else
            yaml_fail(t, item,
                      "%s: expected a size such as 8GiB, 512MiB, 500MB or plain bytes, found '%.64s'",
                      name_of(item), item->text);
        return absent;
    }
    if (v < min || v > max) {
        yaml_fail(t, item, "%s: %.64s is outside %llu..%llu bytes", name_of(item), item->text,
                  (unsigned long long)min, (unsigned long long)max);
        return absent;
    }
    return v;
}

double yaml_seconds(yaml_tree *t, const yaml_item *item, double min, double max, double absent)
{
    uint64_t milli;
    const char *end = "?";
    double v;

    if (!item || !has_value(t, item, "a duration such as 500ms, 10s or 5m")) return absent;
    if (!units_fixed(item->text, 3, &milli, &end)) end = "?";
    if (!strcmp(end, "ms")) v = (double)milli / 1e6;
    else if (!strcmp(end, "s")) v = (double)milli / 1e3;
    else if (!strcmp(end, "m")) v = (double)milli / 1e3 * 60;
    else {
        if (!*end)
            yaml_fail(t, item, "%s: '%.64s' has no unit: write %.64ss for seconds, or ms or m", name_of(item),
                      item->text, item->text);
        else
            yaml_fail(t, item, "%s: expected a duration such as 500ms, 10s or 5m, found '%.64s'",
                      name_of(item), item->text);
        return absent;
    }
    if (v < min || v > max) {
        yaml_fail(t, item, "%s: %.64s is outside %.15gs..%.15gs", name_of(item), item->text, min, max);
        return absent;
    }
    return v;
}

/* --- text ----------------------------------------------------------------------------------------------- */
size_t yaml_choice(yaml_tree *t, const yaml_item *item, const char *const names[], size_t absent)
{
    char known[240];

    if (!item || !has_value(t, item, listed(names, known, sizeof known))) return absent;
    for (size_t i = 0; names[i]; i++) {
        if (!strcmp(item->text, names[i])) return i;
    }
    yaml_fail(t, item, "%s: expected one of %s, found '%.64s'", name_of(item),
              listed(names, known, sizeof known), item->text);
    return absent;
}

bool yaml_text(yaml_tree *t, const yaml_item *item, char *dst, size_t cap)
{
    size_t n;

    if (!item || !has_value(t, item, "a text")) return false;
    n = strlen(item->text);
    if (!n || n >= cap) {
        yaml_fail(t, item, "%s: a text of 1..%zu bytes is expected, found %zu", name_of(item), cap - 1, n);
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        if ((unsigned char)item->text[i] < 0x20 || item->text[i] == 0x7F) {
            yaml_fail(t, item, "%s: a control character in the text", name_of(item));
            return false;
        }
    }
    memcpy(dst, item->text, n + 1);
    return true;
}
