/* The tree behind yaml.h and the checks on it.
 *
 * libyaml gives events; a stack of open maps and lists turns them into items, which live in one list of
 * blocks and go together. What an event brings and the subset does not know (anchor, tag, alias, second
 * document) is refused where it stands. Values are converted in yaml_value.c. */
#include "planner/yaml.h"
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

/* One item with the texts it owns behind it; `all` chains them for yaml_free. */
typedef struct block block;
struct block {
    block *all;
    yaml_item item;
};

struct yaml_tree {
    char file[1024];
    block *blocks;
    const yaml_item *root;
    pr_err error;
};

typedef struct {
    yaml_item *container;
    yaml_item *last; /* its newest entry */
    char *key;       /* of the next value, once read */
    unsigned key_line, key_column;
} level;

typedef struct {
    yaml_tree *t;
    level stack[YAML_MAX_DEPTH];
    size_t depth;
    bool out_of_memory;
} builder;

static unsigned short_of(size_t n)
{
    return n < 0xFFFFFFFEu ? (unsigned)n + 1 : 0xFFFFFFFFu;
}

static void fail_at(yaml_tree *t, unsigned line, unsigned column, const char *fmt, va_list ap)
{
    char what[PR_MSG_BYTES];

    if (t->error.code) return;
    vsnprintf(what, sizeof what, fmt, ap);
    if (line) pr_fail(&t->error, PR_EUSAGE, "%s:%u:%u: %s", t->file, line, column, what);
    else pr_fail(&t->error, PR_EUSAGE, "%s: %s", t->file, what);
}

__attribute__((format(printf, 3, 4))) static void fail_mark(yaml_tree *t, yaml_mark_t m, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    fail_at(t, short_of(m.line), short_of(m.column), fmt, ap);
    va_end(ap);
}

void yaml_fail(yaml_tree *t, const yaml_item *at, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    fail_at(t, at ? at->line : 0, at ? at->column : 0, fmt, ap);
    va_end(ap);
}

bool yaml_failed(const yaml_tree *t)
{
    return t->error.code != PR_OK;
}

int yaml_error(const yaml_tree *t, pr_err *err)
{
    return t->error.code ? pr_fail(err, t->error.code, "%s", t->error.msg) : PR_OK;
}

const yaml_item *yaml_root(const yaml_tree *t)
{
    return t->root;
}

/* --- events -> items ------------------------------------------------------------------------------------ */
static void no_memory(builder *b)
{
    b->out_of_memory = true;
}

/* An item with room for `n` bytes of text behind it. */
static yaml_item *new_item(builder *b, yaml_kind kind, const char *text, size_t n, yaml_mark_t at)
{
    block *k = calloc(1, sizeof *k + n + 1);
    char *copy;

    if (!k) {
        no_memory(b);
        return NULL;
    }
    k->all = b->t->blocks;
    b->t->blocks = k;
    copy = (char *)(k + 1);
    if (n) memcpy(copy, text, n);
    k->item = (yaml_item){.kind = kind,
                          .key = "",
                          .text = kind == YAML_TEXT ? copy : NULL,
                          .line = short_of(at.line),
                          .column = short_of(at.column)};
    k->item.key_line = k->item.line;
    k->item.key_column = k->item.column;
    return &k->item;
}

/* A scalar where a map expects a key. The text is an item of its own so that it lives as long as the tree. */
static void take_key(builder *b, const char *text, size_t n, yaml_mark_t at)
{
    level *l = &b->stack[b->depth - 1];
    yaml_item *holder;

    for (const yaml_item *i = l->container->first; i; i = i->next) {
        if (!strcmp(i->key, text)) {
            fail_mark(b->t, at, "duplicate key '%.64s': it stands in line %u already", text, i->key_line);
            return;
        }
    }
    if (l->container->n == YAML_MAX_KEYS) {
        fail_mark(b->t, at, "more than %d keys in one map", YAML_MAX_KEYS);
        return;
    }
    if (!(holder = new_item(b, YAML_TEXT, text, n, at))) return;
    l->key = (char *)(uintptr_t)holder->text;
    l->key_line = holder->line;
    l->key_column = holder->column;
}

/* A new value finds its place: the top, the next list entry, or the value of the key read before. */
static void place(builder *b, yaml_item *item, yaml_mark_t at)
{
    level *l;

    if (!b->depth) {
        b->t->root = item;
        return;
    }
    l = &b->stack[b->depth - 1];
    if (l->container->kind == YAML_MAP) {
        if (!l->key) {
            fail_mark(b->t, at, "a key of a map must be plain text");
            return;
        }
        item->key = l->key;
        item->key_line = l->key_line;
        item->key_column = l->key_column;
        l->key = NULL;
    } else {
        item->key = l->container->key;
    }
    if (l->last) l->last->next = item;
    else l->container->first = item;
    l->last = item;
    l->container->n++;
}

static void take_scalar(builder *b, const yaml_event_t *e)
{
    const char *text = (const char *)e->data.scalar.value;
    size_t n = e->data.scalar.length;
    yaml_item *item;

    if (memchr(text, 0, n)) {
        fail_mark(b->t, e->start_mark, "a NUL character in a text");
        return;
    }
    if (b->depth && b->stack[b->depth - 1].container->kind == YAML_MAP && !b->stack[b->depth - 1].key) {
        take_key(b, text, n, e->start_mark);
        return;
    }
    if (!(item = new_item(b, YAML_TEXT, text, n, e->start_mark))) return;
    item->quoted = e->data.scalar.style != YAML_PLAIN_SCALAR_STYLE;
    place(b, item, e->start_mark);
}

static void open_container(builder *b, yaml_kind kind, yaml_mark_t at)
{
    yaml_item *item;

    if (b->depth == YAML_MAX_DEPTH) {
        fail_mark(b->t, at, "nested deeper than %d levels", YAML_MAX_DEPTH);
        return;
    }
    if (!(item = new_item(b, kind, NULL, 0, at))) return;
    place(b, item, at);
    b->stack[b->depth++] = (level){.container = item};
}

static void refuse_extras(builder *b, const yaml_event_t *e, const yaml_char_t *anchor,
                          const yaml_char_t *tag)
{
    if (anchor)
        fail_mark(b->t, e->start_mark, "anchor '&%.64s': anchors are not allowed, write the value out",
                  (const char *)anchor);
    if (tag)
        fail_mark(b->t, e->start_mark, "tag '%.64s': tags are not allowed, the key decides the type",
                  (const char *)tag);
}

static void begin_document(builder *b, const yaml_event_t *e)
{
    if (b->t->root) fail_mark(b->t, e->start_mark, "a second document: one file holds one");
    if (e->data.document_start.version_directive ||
        e->data.document_start.tag_directives.start != e->data.document_start.tag_directives.end)
        fail_mark(b->t, e->start_mark, "%%YAML and %%TAG lines are not allowed");
}

static void take_event(builder *b, const yaml_event_t *e)
{
    switch (e->type) {
    case YAML_DOCUMENT_START_EVENT: begin_document(b, e); break;
    case YAML_ALIAS_EVENT:
        fail_mark(b->t, e->start_mark, "alias '*%.64s': aliases are not allowed, write the value out",
                  (const char *)e->data.alias.anchor);
        break;
    case YAML_SCALAR_EVENT:
        refuse_extras(b, e, e->data.scalar.anchor, e->data.scalar.tag);
        take_scalar(b, e);
        break;
    case YAML_SEQUENCE_START_EVENT:
        refuse_extras(b, e, e->data.sequence_start.anchor, e->data.sequence_start.tag);
        open_container(b, YAML_LIST, e->start_mark);
        break;
    case YAML_MAPPING_START_EVENT:
        refuse_extras(b, e, e->data.mapping_start.anchor, e->data.mapping_start.tag);
        open_container(b, YAML_MAP, e->start_mark);
        break;
    case YAML_SEQUENCE_END_EVENT:
    case YAML_MAPPING_END_EVENT: b->depth--; break;
    default: break;
    }
}

/* --- the parser around it ------------------------------------------------------------------------------- */
/* libyaml names bytes that are not UTF-8 (or control characters) by their offset only. */
static void fail_offset(yaml_tree *t, const char *text, size_t n, size_t offset, const char *what)
{
    yaml_mark_t at = {0};

    for (size_t i = 0; i < n && i < offset; i++) {
        if (text[i] == '\n') {
            at.line++;
            at.column = 0;
        } else if (((unsigned char)text[i] & 0xC0) != 0x80) {
            at.column++;
        }
    }
    fail_mark(t, at, "%s", what);
}

static void take_parser_error(builder *b, const yaml_parser_t *p, const char *text, size_t n)
{
    const char *what = p->problem ? p->problem : "not YAML";

    switch (p->error) {
    case YAML_MEMORY_ERROR: no_memory(b); break;
    case YAML_READER_ERROR: fail_offset(b->t, text, n, p->problem_offset, what); break;
    default:
        if (p->context) fail_mark(b->t, p->problem_mark, "%s, %s", p->context, what);
        else fail_mark(b->t, p->problem_mark, "%s", what);
    }
}

static void run_parser(builder *b, const char *text, size_t n)
{
    yaml_parser_t parser;
    bool done = false;

    if (!yaml_parser_initialize(&parser)) {
        no_memory(b);
        return;
    }
    yaml_parser_set_encoding(&parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&parser, (const unsigned char *)text, n);
    while (!done && !b->t->error.code && !b->out_of_memory) {
        yaml_event_t e;
        if (!yaml_parser_parse(&parser, &e)) {
            take_parser_error(b, &parser, text, n);
            break;
        }
        done = e.type == YAML_STREAM_END_EVENT;
        take_event(b, &e);
        yaml_event_delete(&e);
    }
    yaml_parser_delete(&parser);
}

int yaml_parse(yaml_tree **out, const char *text, size_t n, const char *file, pr_err *err)
{
    builder b = {.t = calloc(1, sizeof *b.t)};
    int rc;

    if (!b.t) return pr_fail(err, PR_ERESOURCE, "%s: out of memory", file);
    snprintf(b.t->file, sizeof b.t->file, "%s", file);
    if (n > YAML_MAX_BYTES) yaml_fail(b.t, NULL, "larger than the %d bytes allowed", YAML_MAX_BYTES);
    else run_parser(&b, text, n);
    if (!b.out_of_memory && !b.t->root) yaml_fail(b.t, NULL, "the file is empty");
    rc = b.out_of_memory ? pr_fail(err, PR_ERESOURCE, "%s: out of memory", file) : yaml_error(b.t, err);
    if (rc) yaml_free(b.t);
    else *out = b.t;
    return rc;
}

void yaml_free(yaml_tree *t)
{
    if (!t) return;
    while (t->blocks) {
        block *next = t->blocks->all;
        free(t->blocks);
        t->blocks = next;
    }
    free(t);
}
