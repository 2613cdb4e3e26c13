/* What the subset refuses and where it points; values with their units and limits. */
#include "planner/yaml.h"
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void expect_refused_n(const char *text, size_t n, const char *message_begins)
{
    pr_err e = {0};
    yaml_tree *t = NULL;

    cr_assert_eq(yaml_parse(&t, text, n, "f", &e), PR_EUSAGE, "accepted: %s", text);
    cr_assert_null(t);
    cr_assert(!strncmp(e.msg, message_begins, strlen(message_begins)), "got \"%s\", expected \"%s\"", e.msg,
              message_begins);
}

static void expect_refused(const char *text, const char *message_begins)
{
    expect_refused_n(text, strlen(text), message_begins);
}

static yaml_tree *parsed(const char *text)
{
    pr_err e = {0};
    yaml_tree *t = NULL;

    cr_assert_eq(yaml_parse(&t, text, strlen(text), "f", &e), PR_OK, "%s", e.msg);
    return t;
}

Test(yaml, tree_in_order_with_places)
{
    yaml_tree *t =
        parsed("# comment\nname: x\nlist:\n  - 1\n  - {k: 'two'}\nempty: []\n\"quoted\": |\n  block\n");
    const yaml_item *root = yaml_root(t), *list = yaml_get(root, "list"), *two = list->first->next;

    cr_assert_eq(root->kind, YAML_MAP);
    cr_assert_eq(root->n, 4);
    cr_assert_str_eq(root->first->key, "name");
    cr_assert_str_eq(root->first->text, "x");
    cr_assert_eq(root->first->line, 2);
    cr_assert_eq(root->first->column, 7);
    cr_assert_eq(root->first->key_column, 1);
    cr_assert_eq(list->n, 2);
    cr_assert_str_eq(list->first->text, "1");
    cr_assert_str_eq(list->first->key, "list");
    cr_assert_eq(two->line, 5);
    cr_assert_eq(two->column, 5);
    cr_assert_str_eq(yaml_get(two, "k")->text, "two");
    cr_assert(yaml_get(two, "k")->quoted);
    cr_assert_null(two->next);
    cr_assert_eq(yaml_get(root, "empty")->kind, YAML_LIST);
    cr_assert_null(yaml_get(root, "empty")->first);
    cr_assert_str_eq(yaml_get(root, "quoted")->text, "block\n");
    cr_assert_null(yaml_get(root, "absent"));
    yaml_free(t);
    yaml_free(NULL);
}

Test(yaml, columns_count_characters)
{
    yaml_tree *t = parsed("{\"\xC3\xA4\xC3\xB6\": 5}");
    cr_assert_eq(yaml_root(t)->first->column, 8);
    yaml_free(t);
}

Test(yaml, refuses_with_line_and_column)
{
    expect_refused("a: 1\nb: 2\na: 3\n", "f:3:1: duplicate key 'a': it stands in line 1 already");
    expect_refused("x: {a: 1, a: 2}", "f:1:11: duplicate key 'a'");
    expect_refused("a: 1\nb: &here 2\n", "f:2:4: anchor '&here'");
    expect_refused("a: &m {x: 1}\n", "f:1:4: anchor '&m'");
    expect_refused("a: &l [1]\n", "f:1:4: anchor '&l'");
    expect_refused("a: *here\n", "f:1:4: alias '*here'");
    expect_refused("a: !!int 5\n", "f:1:4: tag 'tag:yaml.org,2002:int'");
    expect_refused("a: ! 5\n", "f:1:4: tag '!'");
    expect_refused("a: !x [1]\n", "f:1:4: tag '!x'");
    expect_refused("a: !x {b: 1}\n", "f:1:4: tag '!x'");
    expect_refused("a: 1\n---\nb: 2\n", "f:2:1: a second document");
    expect_refused("%YAML 1.1\n---\nb: 2\n", "f:1:1: %YAML and %TAG lines");
    expect_refused("%TAG ! x:\n---\nb: 2\n", "f:1:1: %YAML and %TAG lines");
    expect_refused("a: [1\n", "f:2:1: ");
    expect_refused("a: 1\n b: 2\n", "f:2:");
    expect_refused("a:\n\t- 1\n", "f:2:1: ");
    expect_refused("[1, 2]: 3\n", "f:1:1: a key of a map must be plain text");
    expect_refused("{a: \"x\\0y\"}", "f:1:5: a NUL character");
    expect_refused("", "f: the file is empty");
    expect_refused("# nothing\n", "f: the file is empty");
}

Test(yaml, refuses_what_is_not_utf8)
{
    expect_refused("a: 1\nb: x\xFFy\n", "f:2:5: ");
    expect_refused("a: \xC3(\n", "f:1:5: ");
    expect_refused("\xC3\xA4: \xFF\n", "f:1:4: ");
    expect_refused("a: \xED\xA0\x80\n", "f:1:4: ");
    expect_refused_n("a: x\0y\n", 7, "f:1:5: ");
    expect_refused_n("\xFF\xFE"
                     "a\0:\0 \0b\0",
                     10, "f:1:1: ");
}

Test(yaml, depth)
{
    char text[2 * YAML_MAX_DEPTH + 4] = "";
    yaml_tree *t;

    memset(text, '[', YAML_MAX_DEPTH);
    memset(text + YAML_MAX_DEPTH, ']', YAML_MAX_DEPTH);
    t = parsed(text);
    yaml_free(t);
    memset(text, '[', YAML_MAX_DEPTH + 1);
    memset(text + YAML_MAX_DEPTH + 1, ']', YAML_MAX_DEPTH + 1);
    expect_refused(text, "f:1:65: nested deeper than 64 levels");
}

Test(yaml, too_many_keys)
{
    char *text = malloc(16 * YAML_MAX_KEYS), *end = text;

    for (int i = 0; i <= YAML_MAX_KEYS; i++) end += sprintf(end, "k%d: 1\n", i);
    expect_refused(text, "f:1001:1: more than 1000 keys");
    free(text);
}

/* --- values --------------------------------------------------------------------------------------------- */
typedef enum { UINT, NUMBER, BOOLEAN, SIZE, SECONDS } value_kind;

/* The value behind "v: " as a double; -1 and a message when it is refused. */
static double value_of(value_kind kind, const char *spelled, pr_err *e)
{
    char text[256];
    yaml_tree *t;
    const yaml_item *v;
    double got = -2;

    snprintf(text, sizeof text, "v: %s\n", spelled);
    t = parsed(text);
    v = yaml_get(yaml_root(t), "v");
    switch (kind) {
    case UINT: got = (double)yaml_uint(t, v, 1, 65535, 7); break;
    case NUMBER: got = yaml_number(t, v, 0, 1000, 7); break;
    case BOOLEAN: got = yaml_bool(t, v, false); break;
    case SIZE: got = (double)yaml_size(t, v, 1, (uint64_t)1 << 46, 7); break;
    case SECONDS: got = yaml_seconds(t, v, 0.1, 3600, 7); break;
    }
    e->msg[0] = 0;
    if (yaml_error(t, e)) got = -1;
    yaml_free(t);
    return got;
}

static void expect_value(value_kind kind, const char *spelled, double expected)
{
    pr_err e;
    double got = value_of(kind, spelled, &e);

    cr_assert(fabs(got - expected) <= 1e-12 * expected, "%s: got %.17g, expected %.17g; %s", spelled, got,
              expected, e.msg);
}

static void expect_no_value(value_kind kind, const char *spelled, const char *message)
{
    pr_err e;
    double got = value_of(kind, spelled, &e);

    cr_assert_eq(got, -1, "%s: accepted as %.17g", spelled, got);
    cr_assert(strstr(e.msg, message), "%s: got \"%s\", expected \"%s\"", spelled, e.msg, message);
}

Test(yaml, whole_numbers)
{
    expect_value(UINT, "1", 1);
    expect_value(UINT, "65535", 65535);
    expect_value(UINT, "'9700'", 9700);
    expect_no_value(UINT, "0", "f:1:4: v: 0 is outside 1..65535");
    expect_no_value(UINT, "65536", "outside 1..65535");
    expect_no_value(UINT, "-1", "expected a whole number, found '-1'");
    expect_no_value(UINT, "99999999999999999999999", "expected a whole number");
    expect_no_value(UINT, "1.5", "expected a whole number");
    expect_no_value(UINT, "0x10", "expected a whole number");
    expect_no_value(UINT, "1_000", "expected a whole number");
    expect_no_value(UINT, "", "v: no value, expected a whole number");
    expect_no_value(UINT, "~", "no value");
    expect_no_value(UINT, "null", "no value");
    expect_no_value(UINT, "[1]", "expected a whole number, found a list");
    expect_no_value(UINT, "{a: 1}", "expected a whole number, found a map");
}

Test(yaml, numbers)
{
    expect_value(NUMBER, "940", 940);
    expect_value(NUMBER, "0.4", 0.4);
    expect_value(NUMBER, "1e2", 100);
    expect_value(NUMBER, "2.5E-1", 0.25);
    expect_no_value(NUMBER, "1000.5", "f:1:4: v: 1000.5 is outside 0..1000");
    expect_no_value(NUMBER, "-0.1", "outside");
    expect_no_value(NUMBER, "1e999", "outside");
    expect_no_value(NUMBER, "nan", "expected a number, found 'nan'");
    expect_no_value(NUMBER, ".inf", "expected a number");
    expect_no_value(NUMBER, "1,5", "expected a number");
    expect_no_value(NUMBER, "1.", "expected a number");
    expect_no_value(NUMBER, "0x1p3", "expected a number");
}

Test(yaml, booleans)
{
    expect_value(BOOLEAN, "true", 1);
    expect_value(BOOLEAN, "false", 0);
    expect_no_value(BOOLEAN, "yes", "f:1:4: v: expected true or false, found 'yes'");
    expect_no_value(BOOLEAN, "1", "expected true or false");
}

Test(yaml, sizes)
{
    expect_value(SIZE, "8GiB", 8589934592.0);
    expect_value(SIZE, "512MiB", 536870912.0);
    expect_value(SIZE, "500MB", 5e8);
    expect_value(SIZE, "1.5GiB", 1610612736.0);
    expect_value(SIZE, "9.7GiB", 10415295692.0); /* rounded down to whole bytes */
    expect_value(SIZE, "4KiB", 4096);
    expect_value(SIZE, "4kB", 4000);
    expect_value(SIZE, "2TiB", 2199023255552.0);
    expect_value(SIZE, "1TB", 1e12);
    expect_value(SIZE, "123456789", 123456789.0);
    expect_no_value(SIZE, "8G",
                    "f:1:4: v: '8G' is no size: write 8GiB (powers of 1024) or 8GB (powers of 1000)");
    expect_no_value(SIZE, "1.5g", "write 1.5GiB");
    expect_no_value(SIZE, "512m", "write 512MiB");
    expect_no_value(SIZE, "8 GiB", "write 8GiB");
    expect_no_value(SIZE, "8Gb", "write 8GiB");
    expect_no_value(SIZE, "8Gi", "write 8GiB");
    expect_no_value(SIZE, "1.5", "expected a size");
    expect_no_value(SIZE, "1.2345GiB", "expected a size");
    expect_no_value(SIZE, "GiB", "expected a size");
    expect_no_value(SIZE, "-1GiB", "expected a size");
    expect_no_value(SIZE, "0", "0 is outside 1..70368744177664 bytes");
    expect_no_value(SIZE, "65TiB", "outside");
    expect_no_value(SIZE, "9000000000000TiB", "outside");
    expect_no_value(SIZE, "99999999999999999999", "expected a size");
}

Test(yaml, durations)
{
    expect_value(SECONDS, "500ms", 0.5);
    expect_value(SECONDS, "10s", 10);
    expect_value(SECONDS, "5m", 300);
    expect_value(SECONDS, "1.5s", 1.5);
    expect_no_value(SECONDS, "10", "f:1:4: v: '10' has no unit: write 10s");
    expect_no_value(SECONDS, "1h", "expected a duration");
    expect_no_value(SECONDS, "61m", "61m is outside 0.1s..3600s");
    expect_no_value(SECONDS, "1ms", "outside");
    expect_no_value(SECONDS, "fast", "expected a duration");
}

Test(yaml, texts_and_choices)
{
    static const char *const modes[] = {"psk", "none", NULL};
    yaml_tree *t = parsed("a: hello\nb: none\n");
    const yaml_item *root = yaml_root(t);
    char text[6] = "";

    cr_assert(yaml_text(t, yaml_get(root, "a"), text, sizeof text));
    cr_assert_str_eq(text, "hello");
    cr_assert_not(yaml_text(t, yaml_get(root, "c"), text, sizeof text));
    cr_assert_str_eq(text, "hello");
    cr_assert_eq(yaml_choice(t, yaml_get(root, "b"), modes, 0), 1);
    cr_assert_eq(yaml_choice(t, yaml_get(root, "c"), modes, 0), 0);
    cr_assert_eq(yaml_uint(t, NULL, 1, 2, 77), 77);
    cr_assert_not(yaml_failed(t));
    cr_assert_not(yaml_text(t, yaml_get(root, "a"), text, 5));
    cr_assert(yaml_failed(t));
    yaml_free(t);
}

static void expect_failure(const char *text, void (*ask)(yaml_tree *t, const yaml_item *root),
                           const char *message)
{
    yaml_tree *t = parsed(text);
    pr_err e = {0};

    ask(t, yaml_root(t));
    cr_assert_eq(yaml_error(t, &e), PR_EUSAGE, "accepted: %s", text);
    cr_assert(strstr(e.msg, message), "got \"%s\", expected \"%s\"", e.msg, message);
    yaml_free(t);
}

static void ask_keys(yaml_tree *t, const yaml_item *root)
{
    yaml_keys(t, root, (const char *const[]){"reserve", "model_dir", "port", NULL});
}

static void ask_schema(yaml_tree *t, const yaml_item *root)
{
    yaml_schema(t, root, "cluster");
}

static void ask_port(yaml_tree *t, const yaml_item *root)
{
    yaml_need(t, root, "port");
}

static void ask_text(yaml_tree *t, const yaml_item *root)
{
    char text[64];
    yaml_text(t, yaml_get(root, "a"), text, sizeof text);
}

static void ask_two_things(yaml_tree *t, const yaml_item *root)
{
    yaml_uint(t, yaml_get(root, "a"), 0, 9, 0);
    yaml_uint(t, yaml_get(root, "b"), 0, 9, 0);
}

Test(yaml, keys_and_schema)
{
    expect_failure("port: 1\nreserv: 2\n", ask_keys, "f:2:1: unknown key 'reserv': did you mean 'reserve'?");
    expect_failure("{port: 1, modeldir: 2}", ask_keys,
                   "f:1:11: unknown key 'modeldir': did you mean 'model_dir'?");
    expect_failure("colour: 2\n", ask_keys,
                   "f:1:1: unknown key 'colour': known here are reserve, model_dir, port");
    expect_failure("<<: {port: 1}\n", ask_keys, "f:1:1: unknown key '<<'");
    expect_failure("[1]", ask_keys, "f:1:1: the file: expected a map (key: value), found a list");
    expect_failure("a: 1\n", ask_port, "f:1:1: the file: the key 'port' is missing");
    expect_failure("a: 1\n", ask_schema,
                   "f:1:1: the key 'schema' is missing: the file must say 'schema: "
                   "prima/cluster/1'");
    expect_failure("schema: prima/cluster/2\n", ask_schema,
                   "f:1:9: schema: 'prima/cluster/2' is another version");
    expect_failure("schema: prima/plan/1\n", ask_schema,
                   "f:1:9: schema: expected 'prima/cluster/1', found "
                   "'prima/plan/1'");
    expect_failure("schema: [x]\n", ask_schema, "f:1:9: schema: expected prima/cluster/1, found a list");
    expect_failure("a: \"x\\ty\"\n", ask_text, "f:1:4: a: a control character");
    expect_failure("a: ''\n", ask_text, "f:1:4: a: a text of 1..63 bytes is expected, found 0");
    expect_failure("a: x\nb: y\n", ask_two_things, "f:1:4: a: expected a whole number, found 'x'");
}
