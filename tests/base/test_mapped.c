/* A file that becomes shorter while it is mapped: in a process of its own, what it says and how it ends. */
#include "src/base/mapped.h"
#include "tests/common/prima.h"
#include <criterion/criterion.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum { BYTES = 1 << 20 };

static void open_dir(void)
{
    test_dir_new();
}

TestSuite(mapped, .init = open_dir, .fini = test_dir_remove, .timeout = 60);

static volatile unsigned char *map_file(const char *path)
{
    int fd = open(path, O_RDWR | O_CREAT, 0644);
    void *p;

    if (fd < 0 || ftruncate(fd, BYTES)) return NULL;
    p = mmap(NULL, BYTES, PROT_READ, MAP_SHARED, fd, 0);
    close(fd);
    return p == MAP_FAILED ? NULL : p;
}

/* Runs fn in a process and returns its exit status (128 + signal) and what it said. */
static int run(void (*fn)(const char *path), char *said)
{
    const char *path = in_dir("m\xC3\xB6"
                              "del.gguf"),
               *err = in_dir("err");
    pid_t pid = fork();
    int status;
    char *text;

    if (!pid) {
        dup2(open(err, O_WRONLY | O_CREAT | O_TRUNC, 0644), 2);
        signal(SIGBUS, SIG_DFL); /* whatever the test's frame does */
        fn(path);
        _exit(0);
    }
    cr_assert_eq(waitpid(pid, &status, 0), pid);
    text = read_file(err);
    snprintf(said, 4096, "%s", text);
    free(text);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static void read_behind_the_end(const char *path)
{
    volatile unsigned char *p = map_file(path);

    mapped_watch((const void *)p, BYTES, path);
    if (truncate(path, BYTES / 2)) _exit(1);
    if (p[BYTES / 2 - 1]) _exit(2); /* still there */
    if (p[BYTES - 1]) _exit(3);
}

Test(mapped, a_file_that_becomes_shorter)
{
    char said[4096];

    cr_expect_eq(run(read_behind_the_end, said), 8);
    cr_expect(strstr(said, "m\xC3\xB6"
                           "del.gguf: the file has become shorter"),
              "%s", said);
}

/* As long as before when it is looked at: the disk's fault, as far as can be told. */
static void read_what_cannot_be_read(const char *path)
{
    volatile unsigned char *p = map_file(path);

    mapped_watch((const void *)p, BYTES / 2, path);
    if (truncate(path, 0) || truncate(in_dir("other"), 0) != -1) _exit(1);
    unlink(path);
    if (!map_file(path)) _exit(2); /* another one in its place */
    if (p[0]) _exit(3);
}

Test(mapped, a_file_that_cannot_be_read)
{
    char said[4096];

    cr_expect_eq(run(read_what_cannot_be_read, said), 9);
    cr_expect(strstr(said, "del.gguf: its disk"), "%s", said);
}

/* Not one of those that are watched: as without us. */
static void read_another(const char *path)
{
    volatile unsigned char *p = map_file(path), *q = map_file(in_dir("other"));

    mapped_watch((const void *)p, BYTES, path);
    mapped_watch((const void *)q, BYTES, in_dir("other"));
    mapped_forget((const void *)q);
    if (truncate(in_dir("other"), 0)) _exit(1);
    if (q[0]) _exit(3);
}

Test(mapped, other_maps_are_not_ours)
{
    char said[4096];

    cr_expect_eq(run(read_another, said), 128 + SIGBUS);
    cr_expect_str_eq(said, "");
}
