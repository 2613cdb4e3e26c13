/* See blas.h. Each measurement is a process of its own: the library reads its number of threads and its kind
 * of CPU from the environment once, when it is loaded, and starts threads at that moment. So both are set
 * here first, and nothing of it stays in this process. */
#include "src/blas.h"
#include "kernels/kernels.h"
#include "src/base/clock.h"
#include "src/base/mem.h"
#include <dlfcn.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MAX_PROCESSES = 64 };
enum { ROW_MAJOR = 101, NO_TRANS = 111, TRANS = 112 }; /* of the CBLAS interface */
typedef void (*sgemm_fn)(int order, int trans_a, int trans_b, int m, int n, int k, float alpha,
                         const float *a, int lda, const float *b, int ldb, float beta, float *c, int ldc);

typedef struct {
    unsigned features;
    int n_tokens, n_rows, n_cols;
    double ms;
} request;

enum { MISSING = 1, NO_MEMORY }; /* exit statuses of the child */

static sgemm_fn load(unsigned features)
{
    static const char *const names[] = {"libopenblas.so.0", "libopenblas.so", "libopenblas.dylib"};
    void *lib = NULL, *found;
    sgemm_fn fn = NULL;

    setenv("OPENBLAS_NUM_THREADS", "1", 1);
    /* Its kernels of this instruction set, whatever it or the user's environment would choose. */
    if (features & CPU_AVX512) setenv("OPENBLAS_CORETYPE", "SkylakeX", 1);
    else if (features & CPU_AVX2) setenv("OPENBLAS_CORETYPE", "Haswell", 1);
    for (size_t i = 0; i < sizeof names / sizeof *names && !lib; i++)
        lib = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
    found = lib ? dlsym(lib, "cblas_sgemm") : NULL;
    if (found) *(void **)&fn = found;
    return fn;
}

static float *values(size_t n)
{
    float *x = mem_alloc_aligned(n * sizeof *x);

    for (size_t i = 0; x && i < n; i++) x[i] = (float)((i * 104729 + 7) % 2000) / 1000 - 1;
    return x;
}

static double best_rate(sgemm_fn sgemm, const request *r, const float *x, const float *w, float *out)
{
    double best_ms = INFINITY;
    uint64_t start = clock_ns();

    do {
        uint64_t begin = clock_ns();
        sgemm(ROW_MAJOR, NO_TRANS, TRANS, r->n_tokens, r->n_rows, r->n_cols, 1, x, r->n_cols, w, r->n_cols, 0,
              out, r->n_rows);
        best_ms = fmin(best_ms, clock_ms_since(begin));
    } while (clock_ms_since(start) < r->ms);
    return 2.0 * r->n_tokens * r->n_rows * r->n_cols / (best_ms * 1e6);
}

static void child_main(int fd, const request *r)
{
    sgemm_fn sgemm = load(r->features);
    size_t n_tokens = (size_t)r->n_tokens, n_rows = (size_t)r->n_rows, n_cols = (size_t)r->n_cols;
    float *x, *w, *out;
    double rate;

    if (!sgemm) _exit(MISSING);
    x = values(n_tokens * n_cols);
    w = values(n_rows * n_cols);
    out = values(n_tokens * n_rows);
    if (!x || !w || !out) _exit(NO_MEMORY);
    rate = best_rate(sgemm, r, x, w, out);
    _exit(write(fd, &rate, sizeof rate) == sizeof rate ? 0 : NO_MEMORY);
}

/* The status of a child that has ended; -1: killed by a signal. */
static int status_of(pid_t pid)
{
    int status;

    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR) return -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static int fail(int status, pr_err *err)
{
    if (status == MISSING)
        return pr_fail(err, PR_ERESOURCE, "OpenBLAS is not installed (Debian: apt install libopenblas0)");
    if (status == NO_MEMORY) return pr_fail(err, PR_ERESOURCE, "no memory to measure OpenBLAS");
    return pr_fail(err, PR_ERESOURCE, "OpenBLAS did not survive its measurement");
}

/* The rates that the children write, summed. A record is far below PIPE_BUF: each arrives whole. */
static double collect(int fd, const pid_t *pid, int n, pr_err *err)
{
    double sum = 0, rate;
    int bad = 0;

    for (ssize_t got; (got = read(fd, &rate, sizeof rate)) != 0;) {
        if (got == sizeof rate) sum += rate;
        else if (errno != EINTR) break;
    }
    for (int i = 0; i < n; i++) {
        int status = status_of(pid[i]);
        if (status) bad = status;
    }
    if (bad) fail(bad, err);
    return bad ? NAN : sum;
}

double blas_gop_per_s(unsigned features, int n_processes, size_t n_tokens, size_t n_rows, size_t n_cols,
                      double ms, pr_err *err)
{
    request r = {features, (int)n_tokens, (int)n_rows, (int)n_cols, ms};
    int fd[2], n = 0;
    pid_t pid[MAX_PROCESSES];
    double sum;

    if (n_processes > MAX_PROCESSES) n_processes = MAX_PROCESSES;
    if (pipe(fd)) {
        pr_fail_errno(err, PR_ERESOURCE, "no pipe to measure OpenBLAS");
        return NAN;
    }
    fflush(NULL);
    while (n < n_processes && (pid[n] = fork()) >= 0) {
        if (pid[n] == 0) child_main(fd[1], &r);
        n++;
    }
    if (n < n_processes) pr_fail_errno(err, PR_ERESOURCE, "no process to measure OpenBLAS");
    close(fd[1]);
    sum = collect(fd[0], pid, n, n < n_processes ? NULL : err);
    close(fd[0]);
    return n < n_processes ? NAN : sum;
}
