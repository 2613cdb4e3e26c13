/* Running the prima of this build as a user would. */
#ifndef PRIMA_TESTS_PRIMA_H
#define PRIMA_TESTS_PRIMA_H
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

typedef struct {
    int status;      /* exit status; 128 + signal when killed */
    char err[16384]; /* the end of standard error, NUL-terminated */
    long rss_peak_kib;
} prima_result;

/* A fresh folder under the system's temporary one, removed by test_dir_remove. */
const char *test_dir_new(void);
void test_dir_remove(void);
/* "DIR/name" in one of 16 rotating buffers. */
const char *in_dir(const char *name);

/* Whether prima was built with AddressSanitizer, which keeps freed memory for a while: sizes then say
 * nothing. */
bool prima_is_sanitized(void);

/* The program beside this test. */
const char *prima_program(void);

/* argv after "prima", NULL at the end. Standard output goes to out_path, or nowhere when NULL. */
prima_result prima_run(const char *out_path, const char *const argv[]);
/* The same in two steps, for tests that send signals. */
pid_t prima_start(const char *out_path, const char *const argv[]);
prima_result prima_wait(pid_t pid);

void write_file(const char *path, const char *text);
char *read_file(const char *path); /* caller frees; fails the test when absent */
size_t count_lines(const char *path);

/* The JSON objects of a JSONL file, sorted by custom_id or id; with timings cut out when `strip`. Caller
 * decrefs. */
json_t *read_jsonl_sorted(const char *path, bool strip);

#endif
