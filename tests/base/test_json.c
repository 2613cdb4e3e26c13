/* What is refused and where the message points; how values are written. */
#include "src/base/json.h"
#include <criterion/criterion.h>
#include <float.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

static char *rewritten(const char *text, size_t n)
{
    pr_err e;
    json_t *v = json_parse(text, n, &e);
    char *line;

    cr_assert_not_null(v, "%s", e.msg);
    line = json_line(v);
    cr_assert_not_null(line);
    json_decref(v);
    return line;
}

static void expect_rewritten(const char *text, const char *expected)
{
    char *line = rewritten(text, strlen(text));

    cr_assert_str_eq(line, expected);
    free(line);
}

static void expect_refused(const char *text, size_t n, const char *message_has)
{
    pr_err e = {0};
    json_t *v = json_parse(text, n, &e);

    cr_assert_null(v, "accepted: %s", text);
    cr_assert_eq(e.code, PR_EUSAGE);
    cr_assert(strstr(e.msg, message_has), "%s: got \"%s\", expected it to contain \"%s\"", text, e.msg,
              message_has);
    cr_assert_null(json_parse(text, n, NULL));
}

Test(json, refuses_what_is_not_strict)
{
    static const char *const cases[][2] = {
        {"", "column 1"},
        {" ", "column"},
        {"{\"a\":1,\"a\":2}", "duplicate"},
        {"{\"x\":{\"a\":1,\"b\":2,\"a\":3}}", "duplicate"},
        {"1 2", "end of file expected"},
        {"{} x", "end of file expected"},
        {"[1,]", "column 4"},
        {"{\"a\":1,}", "column 8"},
        {"[1", "column"},
        {"{a:1}", "column 2"},
        {"'a'", "column"},
        {"[01]", "column"},
        {"[NaN]", "column"},
        {"[Infinity]", "column"},
        {"[-]", "column"},
        {"[1.]", "column"},
        {"[+1]", "column"},
        {"\"tab\there\"", "control character"},
        {"\"\\x41\"", "escape"},
        {"\"\\ud800\"", "invalid"},
        {"\"\\udc00\"", "invalid"},
        {"\"\xff\"", "column"},
        {"\"\xc0\xaf\"", "column"},     /* overlong */
        {"\"\xed\xa0\x80\"", "column"}, /* a surrogate in UTF-8 */
        {"\"\xf4\x90\x80\x80\"", "column"},
        {"\"\xe2\x82\"", "column"},
        {"\xef\xbb\xbf{}", "column"}, /* byte order mark */
        {"[9223372036854775808]", "too big"},
        {"[-9223372036854775809]", "too big"},
        {"[1e400]", "overflow"},
        {"/**/1", "column"},
        {"{\"a\":\n tru}", "line 2 column"},
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        expect_refused(cases[i][0], strlen(cases[i][0]), cases[i][1]);
    expect_refused("{}\0", 3, "column");
    expect_refused("\"a\0b\"", 5, "column"); /* a NUL byte must be written \u0000 */
    expect_refused("{\"a\\u0000\":1}", 12, "NUL");
}

Test(json, depth_is_64)
{
    char text[300];
    pr_err e;
    json_t *v;

    for (int depth = 63; depth <= 66; depth++) {
        memset(text, '[', (size_t)depth);
        memset(text + depth, ']', (size_t)depth);
        v = json_parse(text, 2 * (size_t)depth, &e);
        cr_assert_eq(v != NULL, depth <= 64, "depth %d", depth);
        if (!v) cr_assert_str_eq(e.msg, "column 65: nested deeper than 64 levels");
        json_decref(v);
    }
    /* Brackets in strings are no nesting, also behind an escaped quote. */
    text[0] = '"';
    text[1] = '\\';
    text[2] = '"';
    memset(text + 3, '[', 200);
    text[203] = '"';
    v = json_parse(text, 204, &e);
    cr_assert_not_null(v, "%s", e.msg);
    json_decref(v);
    /* A million brackets are refused, not recursed into. */
    char *many = malloc(1000000);
    cr_assert_not_null(many);
    memset(many, '{', 1000000);
    expect_refused(many, 1000000, "64 levels");
    free(many);
}

Test(json, keeps_order_and_integers)
{
    expect_rewritten(" { \"z\" : 1 , \"a\" : [ true , false , null , { } , [ ] ] } ",
                     "{\"z\":1,\"a\":[true,false,null,{},[]]}");
    expect_rewritten("[9223372036854775807,-9223372036854775808,0,-1]",
                     "[9223372036854775807,-9223372036854775808,0,-1]");
    expect_rewritten("\"x\"", "\"x\"");
}

Test(json, strings_are_utf8_with_controls_escaped)
{
    static const char input[] = "\"h\\u00e9 \xe4\xb8\xad \\ud83d\\ude00 \\\"q\\\" \\\\ \\/ "
                                "\\b\\f\\n\\r\\t\\u0001\\u001f\\u007f\\u0000end\"";
    static const char expected[] = "\"h\xc3\xa9 \xe4\xb8\xad \xf0\x9f\x98\x80 \\\"q\\\" \\\\ / "
                                   "\\b\\f\\n\\r\\t\\u0001\\u001f\\u007f\\u0000end\"";
    char *line = rewritten(input, sizeof input - 1);

    cr_assert_str_eq(line, expected);
    free(line);
    expect_rewritten("{\"\\n\\u00e9\":\"\"}", "{\"\\n\xc3\xa9\":\"\"}");
}

Test(json, reals_are_shortest_that_read_back)
{
    expect_rewritten("[0.1,12.345,1e3,-2.5e-7,100000000000000000000.0,0.30000000000000004]",
                     "[0.1,12.345,1000.0,-2.5e-07,1e+20,0.30000000000000004]");
    static const double extremes[] = {DBL_MAX,           DBL_MIN, 4.9e-324, 1.0 / 3, 0x1.fffffffffffffp-1,
                                      9007199254740993.0};
    for (size_t i = 0; i < sizeof extremes / sizeof *extremes; i++) {
        json_t *v = json_real(extremes[i]), *again;
        char *line = json_line(v);
        again = json_parse(line, strlen(line), NULL);
        cr_assert(json_is_real(again), "%s", line);
        cr_assert_eq(json_real_value(again), extremes[i], "%s", line);
        json_decref(v);
        json_decref(again);
        free(line);
    }
}

Test(json, fixed_prints_no_more_decimals)
{
    static const struct {
        double v;
        int decimals;
        const char *expected;
    } cases[] = {
        {12.345, 3, "12.345"},
        {12.3456, 3, "12.346"},
        {12.3, 3, "12.3"},
        {0.0005, 3, "0.001"},
        {-0.0005, 3, "-0.001"},
        {-0.0001, 3, "0.0"},
        {2.5, 0, "3.0"},
        {-2.5, 0, "-3.0"},
        {1e9 + 0.1234, 3, "1000000000.123"},
        {86400000.0 / 7, 3, "12342857.143"},
        {0, 3, "0.0"},
        {1e300, 3, "1e+300"},
    };
    unsigned long long state = 1;

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        json_t *v = json_fixed(cases[i].v, cases[i].decimals);
        char *line = json_line(v);
        cr_assert_str_eq(line, cases[i].expected);
        free(line);
        json_decref(v);
    }
    for (int i = 0; i < 20000; i++) { /* milliseconds up to 11 days */
        state = state * 6364136223846793005u + 1442695040888963407u;
        json_t *v = json_fixed((double)(state >> 11) / (double)(1ull << 53) * 1e9, 3);
        char *line = json_line(v), *point = strchr(line, '.');
        cr_assert(point && strlen(point) <= 4, "%s", line);
        free(line);
        json_decref(v);
    }
}
