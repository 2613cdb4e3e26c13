/* The main program of a fuzz entry when it is not fuzzed: run it on every file of its corpus,
 * tests/fuzz/corpus/NAME/ for a program called fuzz_NAME, or on the files named on the command line. Prints
 * TAP: one test, because an input that breaks the entry ends the process; the last file named on stderr is
 * the guilty one. */
#include "src/base/file.h"
#include <dirent.h>
#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void replay(const char *path)
{
    char *text, *exact;
    size_t n;
    pr_err err;

    fprintf(stderr, "%s\n", path);
    if (file_slurp(&text, &n, path, (size_t)1 << 26, &err)) {
        printf("Bail out! %s\n", err.msg);
        exit(1);
    }
    /* A block of exactly n bytes, so that a sanitizer sees a read behind the end. */
    exact = malloc(n ? n : 1);
    if (!exact) abort();
    memcpy(exact, text, n);
    free(text);
    LLVMFuzzerTestOneInput((const uint8_t *)exact, n);
    free(exact);
}

static bool is_hidden(const char *name)
{
    return name[0] == '.';
}

static unsigned replay_folder(const char *dir)
{
    struct dirent **files;
    int n = scandir(dir, &files, NULL, alphasort);
    unsigned done = 0;

    for (int i = 0; i < n; i++) {
        char path[2 * PATH_MAX];
        if (!is_hidden(files[i]->d_name)) {
            snprintf(path, sizeof path, "%s/%s", dir, files[i]->d_name);
            replay(path);
            done++;
        }
        free(files[i]);
    }
    if (n >= 0) free(files);
    return done;
}

int main(int argc, char **argv)
{
    const char *name = strstr(argv[0], "fuzz_");
    char dir[PATH_MAX];
    unsigned n = 0;

    printf("1..1\n");
    fflush(stdout);
    for (int i = 1; i < argc; i++, n++) replay(argv[i]);
    if (argc == 1 && name) {
        snprintf(dir, sizeof dir, "tests/fuzz/corpus/%s", name + strlen("fuzz_"));
        n = replay_folder(dir);
    }
    printf("%s 1 - %u inputs\n", n ? "ok" : "not ok", n);
    return n ? 0 : 1;
}
