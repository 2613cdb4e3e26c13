/* Where the cache folder is, and that it is made. */
#include "src/base/cache.h"
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char root[] = "/tmp/prima-test-XXXXXX";

static void setup(void)
{
    cr_assert_not_null(mkdtemp(root));
    unsetenv("PRIMA_CACHE");
    unsetenv("XDG_CACHE_HOME");
    unsetenv("HOME");
}

static void teardown(void)
{
    char command[64];

    snprintf(command, sizeof command, "rm -rf '%s'", root);
    if (system(command)) fprintf(stderr, "cannot remove %s\n", root);
}
TestSuite(cache, .init = setup, .fini = teardown);

/* With `variable` at root/`folder`, the cache is root/`inside`. */
static void expect(const char *variable, const char *folder, const char *inside)
{
    char value[256], want[300], path[300];
    struct stat st;
    pr_err err = {0};

    snprintf(value, sizeof value, "%s/%s", root, folder);
    setenv(variable, value, 1);
    snprintf(want, sizeof want, "%s/%s/a/b/file", root, inside);
    cr_assert_eq(cache_path(path, sizeof path, "a/b/file", &err), PR_OK, "%s", err.msg);
    cr_assert_str_eq(path, want);
    *strrchr(path, '/') = 0;
    cr_assert_eq(stat(path, &st), 0);
    cr_assert(S_ISDIR(st.st_mode));
}

Test(cache, the_nearest_variable_counts)
{
    expect("HOME", "me", "me/.cache/prima");
    expect("XDG_CACHE_HOME", "xdg", "xdg/prima");
    expect("PRIMA_CACHE", "own", "own");
    setenv("PRIMA_CACHE", "", 1); /* empty is not set */
    expect("XDG_CACHE_HOME", "xdg", "xdg/prima");
}

Test(cache, no_place)
{
    char path[300];
    pr_err err = {0};

    cr_assert_eq(cache_path(path, sizeof path, "x", &err), PR_EUSAGE);
    cr_assert_not_null(strstr(err.msg, "PRIMA_CACHE"));
    setenv("PRIMA_CACHE", root, 1);
    cr_assert_eq(cache_path(path, 10, "x", &err), PR_EUSAGE);
    setenv("PRIMA_CACHE", "/dev/null", 1);
    cr_assert_eq(cache_path(path, sizeof path, "a/x", &err), PR_ERESOURCE);
    cr_assert_not_null(strstr(err.msg, "/dev/null"), "%s", err.msg);
}
