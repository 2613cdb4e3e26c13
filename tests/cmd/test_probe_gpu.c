/* What a profile says of GPUs, and that the program starts without one. Figures are checked for sense only.
 */
#include "kernels/cuda/device.h"
#include "src/probe_gpu.h"
#include "tests/common/prima.h"
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

const char *const prima_version = "test-build"; /* main.c is not linked */

static void setup(void)
{
    test_dir_new();
    setenv("PRIMA_LOG", "error", 1);
}

TestSuite(probe_gpu, .init = setup, .fini = test_dir_remove, .timeout = 120);

static profile *listed(void)
{
    profile *p = calloc(1, sizeof *p);

    cr_assert_not_null(p);
    p->n_gpus = 3; /* an old count does not stay */
    probe_gpu_list(p);
    return p;
}

Test(probe_gpu, list)
{
    profile *p = listed();
    int n = gpu_count(NULL);

    cr_expect_eq(p->n_gpus, (size_t)(n < PROFILE_MAX_GPUS ? n : PROFILE_MAX_GPUS));
    for (size_t i = 0; i < p->n_gpus; i++) {
        cr_expect_gt(strlen(p->gpu[i].name), 0u);
        cr_expect_leq(p->gpu[i].vram_free_bytes, p->gpu[i].vram_total_bytes);
        cr_expect_float_eq(p->gpu[i].mem_bytes_per_s, 0, 0, "nothing has been timed yet");
    }
    probe_gpu_rates(p);
    cr_expect_eq(n == 0, p->n_gpus == 0);
    profile_free(p);
}

static void expect_rate(const char *what, double rate)
{
    cr_expect(rate >= 1e9 && rate <= 1e13, "%s: %.3g bytes/s", what, rate);
}

/* Between 1 and 10,000 GB/s: the slowest link and the fastest memory there are, with room. */
Test(probe_gpu, rates)
{
    pr_err why = {0};
    profile *p;

    if (!gpu_count(&why)) cr_skip_test("%s", why.msg);
    p = listed();
    probe_gpu_rates(p);
    for (size_t i = 0; i < p->n_gpus; i++) {
        const profile_gpu *g = &p->gpu[i];
        expect_rate("device memory", g->mem_bytes_per_s);
        expect_rate("copies to the GPU", g->h2d_bytes_per_s);
        expect_rate("copies from the GPU", g->d2h_bytes_per_s);
        cr_expect(g->copy_latency_us > 0.5 && g->copy_latency_us < 10000, "%g us", g->copy_latency_us);
        cr_expect(g->spread_pct >= 0 && g->spread_pct < 1000, "%g %%", g->spread_pct);
        cr_expect_gt(g->mem_bytes_per_s, g->h2d_bytes_per_s, "slower than the link to it");
    }
    profile_free(p);
}

/* The figures survive the file. */
Test(probe_gpu, in_a_profile)
{
    pr_err err = {0};
    profile *p = listed(), *back = NULL;

    probe_gpu_rates(p);
    strcpy(p->device, "desk");
    p->threads = 1;
    p->ram_total_bytes = 1;
    cr_assert_eq(profile_write(p, in_dir("p.json"), &err), PR_OK, "%s", err.msg);
    cr_assert_eq(profile_read(&back, in_dir("p.json"), &err), PR_OK, "%s", err.msg);
    cr_expect_eq(back->n_gpus, p->n_gpus);
    for (size_t i = 0; i < p->n_gpus; i++) {
        cr_expect_str_eq(back->gpu[i].name, p->gpu[i].name);
        cr_expect_float_eq(back->gpu[i].h2d_bytes_per_s, p->gpu[i].h2d_bytes_per_s, 0);
        cr_expect_float_eq(back->gpu[i].copy_latency_us, p->gpu[i].copy_latency_us, 0);
    }
    profile_free(back);
    profile_free(p);
}

/* With or without a driver: the program starts and says what it was built with. */
Test(probe_gpu, version)
{
    const char *argv[] = {"--version", NULL};
    char *text;

    cr_assert_eq(prima_run(in_dir("out"), argv).status, 0);
    text = read_file(in_dir("out"));
    cr_expect_not_null(strstr(text, gpu_support()), "%s", text);
    free(text);
}
