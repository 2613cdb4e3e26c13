/* The monotonic clock runs, dates have the right form, SOURCE_DATE_EPOCH pins them. */
#include "src/base/clock.h"
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

Test(clock, monotonic)
{
    uint64_t a = clock_ns();
    struct timespec nap = {.tv_nsec = 5000000};

    nanosleep(&nap, NULL);
    cr_assert_geq(clock_ns() - a, 5000000u);
    cr_assert_geq(clock_ms_since(a), 5.0);
    cr_assert_lt(clock_ms_since(a), 60000.0);
}

static void expect_date(const char *epoch, const char *expected)
{
    char now[CLOCK_RFC3339_BYTES];

    setenv("SOURCE_DATE_EPOCH", epoch, 1);
    clock_rfc3339(now);
    cr_assert_str_eq(now, expected);
}

Test(clock, dates)
{
    char now[CLOCK_RFC3339_BYTES];

    expect_date("0", "1970-01-01T00:00:00Z");
    expect_date("951782400", "2000-02-29T00:00:00Z");
    expect_date("1795164379", "2026-11-20T08:46:19Z");
    expect_date("9223372036854775807", "9999-12-31T23:59:59Z");
    cr_assert_eq(clock_unix_s(), INT64_MAX);
    setenv("SOURCE_DATE_EPOCH", "12x", 1); /* not a number: the real time */
    cr_assert_geq(clock_unix_s(), 1700000000);
    unsetenv("SOURCE_DATE_EPOCH");
    cr_assert_leq(llabs(clock_unix_s() - (int64_t)time(NULL)), 1);
    clock_rfc3339(now);
    cr_assert(strlen(now) == 20 && now[0] == '2' && now[10] == 'T' && now[19] == 'Z', "%s", now);
}
