/* See prima.h. */
#include "tests/common/prima.h"
#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

static char dir[256];
static char err_path[300];

const char *test_dir_new(void)
{
    const char *tmp = getenv("TMPDIR");

    snprintf(dir, sizeof dir, "%s/prima-test-XXXXXX", tmp ? tmp : "/tmp");
    cr_assert_not_null(mkdtemp(dir));
    snprintf(err_path, sizeof err_path, "%s/stderr", dir);
    return dir;
}

void test_dir_remove(void)
{
    char command[300];

    if (!*dir) return;
    snprintf(command, sizeof command, "rm -rf '%s'", dir);
    if (system(command)) fprintf(stderr, "cannot remove %s\n", dir);
    *dir = 0;
}

const char *in_dir(const char *name)
{
    static char place[16][512];
    static unsigned next;
    char *p = place[next++ % 16];

    snprintf(p, sizeof place[0], "%s/%s", dir, name);
    return p;
}

/* build/MODE/tests/LAYER/test_x -> build/MODE/prima. */
const char *prima_program(void)
{
    static char path[4096];
    ssize_t n = readlink("/proc/self/exe", path, sizeof path - 32);

    cr_assert_gt(n, 0);
    path[n] = 0;
    for (int up = 0; up < 3; up++) *strrchr(path, '/') = 0;
    strcat(path, "/prima");
    return path;
}

bool prima_is_sanitized(void)
{
    return strstr(prima_program(), "/asan/") != NULL;
}

pid_t prima_start(const char *out_path, const char *const argv[])
{
    const char *full[64] = {prima_program()};
    pid_t pid;

    for (int i = 0; argv[i]; i++) {
        cr_assert_lt(i, 62);
        full[i + 1] = argv[i];
    }
    fflush(NULL);
    pid = fork();
    cr_assert_geq(pid, 0);
    if (pid == 0) {
        int out = open(out_path ? out_path : "/dev/null", O_WRONLY | O_CREAT | O_TRUNC, 0644);
        int err = open(err_path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
        dup2(open("/dev/null", O_RDONLY), 0);
        dup2(out, 1);
        dup2(err, 2);
        execv(full[0], (char *const *)full);
        _exit(127);
    }
    return pid;
}

prima_result prima_wait(pid_t pid)
{
    prima_result r = {0};
    struct rusage u;
    int status;
    FILE *f;

    cr_assert_eq(wait4(pid, &status, 0, &u), pid);
    r.status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    r.rss_peak_kib = u.ru_maxrss;
    f = fopen(err_path, "r");
    cr_assert_not_null(f);
    if (fseek(f, -(long)(sizeof r.err - 1), SEEK_END)) rewind(f);
    r.err[fread(r.err, 1, sizeof r.err - 1, f)] = 0;
    fclose(f);
    return r;
}

prima_result prima_run(const char *out_path, const char *const argv[])
{
    return prima_wait(prima_start(out_path, argv));
}

void write_file(const char *path, const char *text)
{
    FILE *f = fopen(path, "w");

    cr_assert_not_null(f, "%s", path);
    cr_assert_geq(fputs(text, f), 0);
    fclose(f);
}

char *read_file(const char *path)
{
    FILE *f = fopen(path, "r");
    char *text = NULL;
    size_t n = 0, got;

    cr_assert_not_null(f, "%s is not there", path);
    do {
        text = realloc(text, n + 65537);
        cr_assert_not_null(text);
        n += got = fread(text + n, 1, 65536, f);
    } while (got);
    text[n] = 0;
    fclose(f);
    return text;
}

size_t count_lines(const char *path)
{
    char *text = read_file(path);
    size_t n = 0;

    for (const char *c = text; *c; c++) n += *c == '\n';
    free(text);
    return n;
}

static const char *id_of(const json_t *v)
{
    const char *id = json_string_value(json_object_get(v, "custom_id"));
    if (!id) id = json_string_value(json_object_get(v, "id"));
    cr_assert_not_null(id);
    return id;
}

static int by_id(const void *a, const void *b)
{
    return strcmp(id_of(*(json_t *const *)a), id_of(*(json_t *const *)b));
}

json_t *read_jsonl_sorted(const char *path, bool strip)
{
    char *text = read_file(path), *at = text, *end;
    json_t **line = NULL, *all = json_array();
    size_t n = 0;

    for (; (end = strchr(at, '\n')); at = end + 1) {
        json_error_t e;
        *end = 0;
        line = realloc(line, (n + 1) * sizeof(json_t *));
        line[n] = json_loads(at, JSON_ALLOW_NUL, &e);
        cr_assert_not_null(line[n], "%s: line %zu: %s", path, n + 1, e.text);
        if (strip) {
            json_object_del(line[n], "timings");
            json_object_del(json_object_get(line[n], "prima"), "timings");
        }
        n++;
    }
    cr_assert_eq(*at, 0, "%s does not end with a newline", path);
    qsort(line, n, sizeof(json_t *), by_id);
    for (size_t i = 0; i < n; i++) json_array_append_new(all, line[i]);
    free(line);
    free(text);
    return all;
}
