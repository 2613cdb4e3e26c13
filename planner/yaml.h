/* YAML files of ours (cluster, shape, plan) -> a small checked tree that knows line and column of everything.
 *
 * The subset: one document in UTF-8, maps, lists and scalars at most 64 deep; duplicate keys, anchors,
 * aliases, tags, directives and NUL characters are refused. Scalars stay text: what a value must be is said
 * by the reader that asks for it. Errors are "file:line:col: ..."; the first one sticks, so a reader asks for
 * all it wants and looks once at the end:
 *
 *     yaml_tree *t;
 *     if ((rc = yaml_parse(&t, text, n, "cluster.yaml", err))) return rc;
 *     const yaml_item *root = yaml_root(t);
 *     yaml_schema(t, root, "cluster");
 *     yaml_keys(t, root, (const char *const[]){"schema", "cluster", "port", NULL});
 *     port = (uint16_t)yaml_uint(t, yaml_get(root, "port"), 1, 65535, 9700);
 *     yaml_text(t, yaml_need(t, root, "cluster"), name, sizeof name);
 *     rc = yaml_error(t, err);
 *     yaml_free(t); */
#ifndef PRIMA_PLANNER_YAML_H
#define PRIMA_PLANNER_YAML_H
#include "src/base/err.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { YAML_MAX_DEPTH = 64, YAML_MAX_KEYS = 1000, YAML_MAX_BYTES = 1 << 24 };

typedef enum { YAML_TEXT, YAML_LIST, YAML_MAP } yaml_kind;

typedef struct yaml_item yaml_item;
struct yaml_item {
    yaml_kind kind;
    bool quoted;            /* text in quotes or a block: never "no value" */
    const char *key;        /* its key in the map above it; in a list the list's key; "" at the top */
    const char *text;       /* of YAML_TEXT, NUL-terminated UTF-8 */
    size_t n;               /* entries of a list or map */
    const yaml_item *first; /* entries in the order of the file; NULL when there are none */
    const yaml_item *next;  /* the entry behind this one; NULL at the end */
    unsigned line,
        column; /* from 1, in characters; of the value (of a key without value: where it would be) */
    unsigned key_line, key_column; /* of the key in a map, else as above */
};

typedef struct yaml_tree yaml_tree;

/* libyaml has, and calls, a function that the linker knows as yaml_free: ours needs another name there. */
#define yaml_free prima_yaml_free

/* `file` is the name for errors. PR_EUSAGE, or PR_ERESOURCE when out of memory. yaml_free accepts NULL. */
int yaml_parse(yaml_tree **out, const char *text, size_t n, const char *file, pr_err *err);
const yaml_item *yaml_root(const yaml_tree *t);
void yaml_free(yaml_tree *t);

/* Record "file:line:col: ..." at an item (NULL: "file: ..."), unless there is an error already. */
void yaml_fail(yaml_tree *t, const yaml_item *at, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* Whether an error was recorded; the first one. */
bool yaml_failed(const yaml_tree *t);
int yaml_error(const yaml_tree *t, pr_err *err);

/* The top must be a map with "schema: prima/KIND/1"; other kinds and major versions are refused. */
void yaml_schema(yaml_tree *t, const yaml_item *root, const char *kind);
/* The item must be a map (a list) and, if a map, have no other keys than these (NULL at the end); an unknown
 * one is answered with the nearest of them. False when it is not: the caller may go on. NULL is false
 * without an error. */
bool yaml_keys(yaml_tree *t, const yaml_item *map, const char *const keys[]);
bool yaml_is_map(yaml_tree *t, const yaml_item *item);
bool yaml_is_list(yaml_tree *t, const yaml_item *item);

/* The value of a key; NULL when it is not there or `map` is NULL or no map. yaml_need records that it is
 * missing. */
const yaml_item *yaml_get(const yaml_item *map, const char *key);
const yaml_item *yaml_need(yaml_tree *t, const yaml_item *map, const char *key);

/* Values. A NULL item gives `absent` without an error, a wrong value gives it with one; limits are inclusive.
 */
uint64_t yaml_uint(yaml_tree *t, const yaml_item *item, uint64_t min, uint64_t max, uint64_t absent);
double yaml_number(yaml_tree *t, const yaml_item *item, double min, double max, double absent);
bool yaml_bool(yaml_tree *t, const yaml_item *item, bool absent);
/* "8GiB", "512MiB", "500MB", "1.5GiB" or plain bytes; "8G" is refused with a hint. Bytes. */
uint64_t yaml_size(yaml_tree *t, const yaml_item *item, uint64_t min, uint64_t max, uint64_t absent);
/* "500ms", "10s", "5m". Seconds. */
double yaml_seconds(yaml_tree *t, const yaml_item *item, double min, double max, double absent);
/* Index of the text in `names` (NULL at the end). */
size_t yaml_choice(yaml_tree *t, const yaml_item *item, const char *const names[], size_t absent);
/* Copies 1..cap-1 bytes of UTF-8 without control characters below U+0080; a NULL item leaves dst as it is.
 * False after an error or for NULL. */
bool yaml_text(yaml_tree *t, const yaml_item *item, char *dst, size_t cap);

#endif
