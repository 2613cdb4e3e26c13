/* Whole files in, whole files out: limits, modes, links, and what is left when something fails. */
#include "src/base/file.h"
#include <criterion/criterion.h>
#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

static char dir[64], path[128];

static void setup(void)
{
    strcpy(dir, "/tmp/prima_file_XXXXXX");
    cr_assert_not_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/f", dir);
}

static void teardown(void)
{
    char command[128];

    snprintf(command, sizeof command, "rm -rf %s", dir);
    cr_assert_eq(system(command), 0);
}

TestSuite(file, .init = setup, .fini = teardown);

static int n_entries(void)
{
    DIR *d = opendir(dir);
    int n = 0;

    cr_assert_not_null(d);
    while (readdir(d)) n++;
    closedir(d);
    return n - 2;
}

static void expect_content(const char *file, const char *expected, size_t n_expected)
{
    char *text;
    size_t n;
    pr_err e;

    cr_assert_eq(file_slurp(&text, &n, file, 1 << 24, &e), 0, "%s", e.msg);
    cr_assert_eq(n, n_expected);
    cr_assert_arr_eq(text, expected, n);
    cr_assert_eq(text[n], 0);
    free(text);
}

Test(file, slurp_limits)
{
    char *text;
    size_t n;
    pr_err e;

    cr_assert_eq(file_write_atomic(path, "12345", 5, NULL), 0);
    cr_assert_eq(file_slurp(&text, &n, path, 5, NULL), 0);
    cr_assert(n == 5 && !strcmp(text, "12345"));
    free(text);
    cr_assert_eq(file_slurp(&text, &n, path, 4, &e), PR_EUSAGE);
    cr_assert(strstr(e.msg, path) && strstr(e.msg, "4 bytes"), "%s", e.msg);
    cr_assert_eq(file_slurp(&text, &n, path, SIZE_MAX, NULL), 0);
    free(text);
    cr_assert_eq(file_write_atomic(path, "", 0, NULL), 0);
    expect_content(path, "", 0);
    cr_assert_eq(file_slurp(&text, &n, path, 0, NULL), 0);
    cr_assert_eq(n, 0);
    free(text);
}

Test(file, slurp_errors_name_the_file)
{
    char *text;
    size_t n;
    pr_err e;

    cr_assert_eq(file_slurp(&text, &n, path, 10, &e), PR_ERESOURCE);
    cr_assert(strstr(e.msg, path) && strstr(e.msg, "No such file"), "%s", e.msg);
    cr_assert_eq(file_slurp(&text, &n, dir, 10, &e), PR_ERESOURCE);
    cr_assert(strstr(e.msg, dir), "%s", e.msg);
    cr_assert_eq(file_slurp(&text, &n, "/dev/zero", 100000, &e), PR_EUSAGE);
}

Test(file, slurp_reads_standard_input)
{
    int fd;

    cr_assert_eq(file_write_atomic(path, "from\0stdin", 10, NULL), 0);
    fd = open(path, O_RDONLY);
    cr_assert_geq(dup2(fd, 0), 0);
    close(fd);
    expect_content("-", "from\0stdin", 10);
}

Test(file, write_replaces_and_leaves_nothing_else)
{
    size_t n = 3 << 20;
    char *large = malloc(n);
    struct stat st;

    cr_assert_not_null(large);
    for (size_t i = 0; i < n; i++) large[i] = (char)(i * 7 / 3);
    umask(022);
    cr_assert_eq(file_write_atomic(path, "old", 3, NULL), 0);
    cr_assert_eq(stat(path, &st), 0);
    cr_assert_eq(st.st_mode & 0777, 0644, "a new file has the mode of the umask");
    cr_assert_eq(chmod(path, 0600), 0);
    cr_assert_eq(file_write_atomic(path, large, n, NULL), 0);
    expect_content(path, large, n);
    cr_assert_eq(stat(path, &st), 0);
    cr_assert_eq(st.st_mode & 0777, 0600, "an existing file keeps its mode");
    cr_assert_eq(n_entries(), 1);
    free(large);
}

Test(file, write_goes_through_a_symbolic_link)
{
    char link[128];
    struct stat st;

    snprintf(link, sizeof link, "%s/link", dir);
    cr_assert_eq(file_write_atomic(path, "old", 3, NULL), 0);
    cr_assert_eq(symlink("f", link), 0);
    cr_assert_eq(file_write_atomic(link, "new", 3, NULL), 0);
    cr_assert_eq(lstat(link, &st), 0);
    cr_assert(S_ISLNK(st.st_mode));
    expect_content(path, "new", 3);
}

Test(file, write_relative_to_the_working_directory)
{
    cr_assert_eq(chdir(dir), 0);
    cr_assert_eq(file_write_atomic("f", "x", 1, NULL), 0);
    expect_content(path, "x", 1);
}

Test(file, devices_are_written_not_replaced)
{
    struct stat st;

    cr_assert_eq(file_write_atomic("/dev/null", "x", 1, NULL), 0);
    cr_assert_eq(stat("/dev/null", &st), 0);
    cr_assert(S_ISCHR(st.st_mode));
}

/* The old content survives a write that fails half-way, and no temporary file stays. */
Test(file, a_failed_write_changes_nothing)
{
    static char large[100000];
    struct rlimit limit = {.rlim_cur = 50000, .rlim_max = RLIM_INFINITY};
    pr_err e;

    cr_assert_eq(file_write_atomic(path, "precious", 8, NULL), 0);
    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &limit);
    limit.rlim_cur = 50000;
    cr_assert_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
    cr_assert_eq(file_write_atomic(path, large, sizeof large, &e), PR_ERESOURCE);
    cr_assert(strstr(e.msg, "File too large"), "%s", e.msg);
    expect_content(path, "precious", 8);
    cr_assert_eq(n_entries(), 1);
}

Test(file, write_into_a_missing_folder)
{
    pr_err e;

    cr_assert_eq(file_write_atomic("/nonexistent/dir/f", "x", 1, &e), PR_ERESOURCE);
    cr_assert(strstr(e.msg, "/nonexistent/dir/f") && strstr(e.msg, "No such file"), "%s", e.msg);
}
