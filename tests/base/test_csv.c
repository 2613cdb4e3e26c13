/* Quoting, numbers, appending to what is there, cutting a torn end. */
#include "src/base/csv.h"
#include "src/base/file.h"
#include <criterion/criterion.h>
#include <limits.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char path[64];

static void setup(void)
{
    strcpy(path, "/tmp/prima_csv_XXXXXX");
    int fd = mkstemp(path);
    cr_assert_geq(fd, 0);
    close(fd);
}

static void teardown(void)
{
    unlink(path);
}

TestSuite(csv, .init = setup, .fini = teardown);

static void write_text(const char *text)
{
    cr_assert_eq(file_write_atomic(path, text, strlen(text), NULL), 0);
}

static void expect_text(const char *expected)
{
    char *text;
    size_t n;

    cr_assert_eq(file_slurp(&text, &n, path, 1 << 20, NULL), 0);
    cr_assert_str_eq(text, expected);
    free(text);
}

static void write_row(csv *c, const char *s, int64_t v)
{
    csv_str(c, s);
    csv_int(c, v);
    cr_assert_eq(csv_row(c, NULL), 0);
}

Test(csv, quotes_only_where_needed)
{
    csv *c;

    cr_assert_eq(csv_open(&c, path, "text,n", false, NULL), 0);
    write_row(c, "plain words; 'x'", 1);
    write_row(c, "a,b", 2);
    write_row(c, "say \"hi\"", 3);
    write_row(c, "two\nlines", 4);
    write_row(c, "cr\r", 5);
    write_row(c, "", INT64_MIN);
    write_row(c, NULL, INT64_MAX);
    cr_assert_eq(csv_close(c, NULL), 0);
    expect_text("text,n\nplain words; 'x',1\n\"a,b\",2\n\"say \"\"hi\"\"\",3\n\"two\nlines\",4\n\"cr\r\",5\n"
                ",-9223372036854775808\n,9223372036854775807\n");
}

Test(csv, numbers)
{
    csv *c;

    cr_assert_eq(csv_open(&c, path, "a,b,c,d,e", false, NULL), 0);
    csv_num(c, 12.3456, 3);
    csv_num(c, NAN, 3);
    csv_num(c, INFINITY, 3);
    csv_num(c, -1e300, 0);
    csv_num(c, 2, 1);
    cr_assert_eq(csv_row(c, NULL), 0);
    cr_assert_eq(csv_close(c, NULL), 0);

    char *text, expected[512];
    size_t n;
    snprintf(expected, sizeof expected, "a,b,c,d,e\n12.346,,,%.0f,2.0\n", -1e300);
    cr_assert_eq(file_slurp(&text, &n, path, 1 << 20, NULL), 0);
    cr_assert_str_eq(text, expected);
    free(text);
}

Test(csv, a_row_is_in_the_file_when_csv_row_returns)
{
    csv *c;

    cr_assert_eq(csv_open(&c, path, "s,n", false, NULL), 0);
    expect_text("s,n\n");
    write_row(c, "x", 1);
    expect_text("s,n\nx,1\n");
    csv_close(c, NULL);
}

static void append_row(const char *before, const char *after)
{
    csv *c;

    write_text(before);
    cr_assert_eq(csv_open(&c, path, "s,n", true, NULL), 0, "%s", before);
    write_row(c, "new", 9);
    cr_assert_eq(csv_close(c, NULL), 0);
    expect_text(after);
}

Test(csv, append_continues_and_cuts_a_torn_end)
{
    append_row("", "s,n\nnew,9\n");
    append_row("s,n\n", "s,n\nnew,9\n");
    append_row("s,n\nold,1\n", "s,n\nold,1\nnew,9\n");
    append_row("s,n\nold,1\nto", "s,n\nold,1\nnew,9\n");
    append_row("s,n\nold,1\n\"torn\nin quotes\nhere", "s,n\nold,1\nnew,9\n");
    append_row("s,n\n\"two\nlines\",1\n", "s,n\n\"two\nlines\",1\nnew,9\n");
    append_row("s,", "s,n\nnew,9\n"); /* the header itself is torn */
}

Test(csv, append_refuses_other_columns)
{
    static const char *const others[] = {"s,m\nx,1\n", "s,n,o\n", "s\n", "\n", "other text"};

    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        csv *c;
        pr_err e;
        write_text(others[i]);
        cr_assert_eq(csv_open(&c, path, "s,n", true, &e), PR_EMISMATCH, "%s", others[i]);
        cr_assert(strstr(e.msg, path) && strstr(e.msg, "s,n"), "%s", e.msg);
        expect_text(others[i]);
    }
}

Test(csv, append_to_a_large_file)
{
    size_t n_rows = 20000;
    char *text = malloc(n_rows * 16 + 64), *p = text;
    csv *c;

    cr_assert_not_null(text);
    p += sprintf(p, "s,n\n");
    for (size_t i = 0; i < n_rows; i++) p += sprintf(p, "\"a\nb\",%zu\n", i);
    size_t whole = (size_t)(p - text);
    sprintf(p, "\"torn");
    write_text(text);
    cr_assert_eq(csv_open(&c, path, "s,n", true, NULL), 0);
    write_row(c, "new", 9);
    csv_close(c, NULL);
    strcpy(text + whole, "new,9\n");
    expect_text(text);
    free(text);
}

Test(csv, too_few_fields_is_our_bug, .signal = SIGABRT)
{
    csv *c;

    cr_assert_eq(csv_open(&c, path, "s,n", false, NULL), 0);
    csv_int(c, 1);
    csv_row(c, NULL);
}

Test(csv, disk_full_is_reported)
{
    csv *c;
    pr_err e;

    if (access("/dev/full", W_OK)) cr_skip_test("no /dev/full here");
    cr_assert_eq(csv_open(&c, "/dev/full", "s,n", false, &e), PR_ERESOURCE);
    cr_assert(strstr(e.msg, "/dev/full"), "%s", e.msg);
    cr_assert_eq(csv_open(&c, "/nonexistent/x.csv", "s,n", false, &e), PR_ERESOURCE);
}
