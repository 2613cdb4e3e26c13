/* Rows of timings.devices.csv: what a device has done between two of them, also when a window takes longer
 * than an interval. */
#include "src/run/ring_report.h"
#include "tests/common/ring_plan.h"
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char path[] = "build/ring-rows-XXXXXX";

/* Windows finished and bytes read so far. */
static int report(timings *t, const plan *p, report_mark *mark, uint64_t passes, uint64_t disk_bytes)
{
    const device_counts now = {.stage = {.since_ns = 1, .passes = passes, .disk_bytes = disk_bytes}};
    pr_err err;

    return report_device(t, p, 1, &now, NULL, mark, 0, &err);
}

/* Of the named column in the n-th row behind the header, as a number. */
static double cell(const char *file, const char *column, int n)
{
    char line[2048], *rest = line, *field;
    double v = -1;
    int at = -1;
    FILE *f = fopen(file, "r");

    cr_assert_not_null(f);
    cr_assert_not_null(fgets(line, sizeof line, f));
    for (int i = 0; (field = strsep(&rest, ",\r\n")); i++) {
        if (!strcmp(field, column)) at = i;
    }
    cr_assert_geq(at, 0);
    while (n-- >= 0 && (rest = fgets(line, sizeof line, f))) {}
    for (int i = 0; rest && (field = strsep(&rest, ",\r\n")); i++) {
        if (i == at) v = strtod(field, NULL);
    }
    fclose(f);
    return v;
}

Test(ring_rows, nothing_is_lost_between_them, .timeout = 10)
{
    static const uint16_t port[] = {1, 2};
    static const uint64_t passes[] = {0, 1, 1, 1, 2}, disk_bytes[] = {100, 250, 400, 700, 900};
    char file[64];
    report_mark mark = {.counts.stage.since_ns = 1};
    plan *p = ring_plan_new(2, 1, 8, "", port);
    timings *t;
    pr_err err;

    close(mkstemp(path));
    cr_assert_eq(timings_open(&t, path, "run", false, &err), PR_OK, "%s", err.msg);
    for (int i = 0; i < 5; i++) cr_assert_eq(report(t, p, &mark, passes[i], disk_bytes[i]), PR_OK);
    cr_assert_eq(timings_close(t, NULL, 0, 0, 0, 0, &err), PR_OK);
    snprintf(file, sizeof file, "%s.devices.csv", path);
    cr_expect_eq(cell(file, "disk_read_bytes", 0), 250);
    cr_expect_eq(cell(file, "disk_read_bytes", 1), 650, "three intervals in one row");
    cr_expect_eq(cell(file, "passes", 1), 1);
    cr_expect_eq(cell(file, "passes", 2), -1, "two rows");
    unlink(file);
    for (const char *const *end = (const char *const[]){"", ".csv", ".run.csv", NULL}; *end; end++) {
        snprintf(file, sizeof file, "%s%s", path, *end);
        unlink(file);
    }
    plan_free(p);
}
