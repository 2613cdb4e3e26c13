/* What the tests of packs share: a model, its pack in a folder of the test's own, and looking into the pack's
 * files as anybody could. Prefix pr_ is taken: rig_. */
#ifndef PRIMA_TESTS_PACK_RIG_H
#define PRIMA_TESTS_PACK_RIG_H
#include "src/base/hash.h"
#include "src/model/pack_file.h"
#include "tests/model/pack_model.h"
#include <fcntl.h>
#include <inttypes.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { RIG_SEED = 1, RIG_THREADS = 2 };

static model rig_model;
static pool *rig_pool;

static inline void rig_setup(void)
{
    pr_err err = {0};

    test_dir_new();
    pm_write(in_dir("m.gguf"), RIG_SEED);
    cr_assert_eq(model_open(&rig_model, in_dir("m.gguf"), &err), PR_OK, "%s", err.msg);
    cr_assert_eq(pool_new(&rig_pool, RIG_THREADS, &err), PR_OK, "%s", err.msg);
}

static inline void rig_teardown(void)
{
    pool_free(rig_pool);
    model_close(&rig_model);
    test_dir_remove();
}

/* Layers [first, end) into DIR/packs, or the folder `dir`. */
static inline int rig_try(pack_file **f, const char *dir, uint32_t first, uint32_t end, bool verify,
                          pr_err *err)
{
    pack_file_options o = {.dir = dir ? dir : in_dir("packs"), .verify = verify};

    *err = (pr_err){0};
    return pack_file_open(f, &rig_model, &first, &end, 1, &o, rig_pool, NULL, err);
}

static inline pack_file *rig_open(uint32_t first, uint32_t end)
{
    pack_file *f = NULL;
    pr_err err;

    cr_assert_eq(rig_try(&f, NULL, first, end, false, &err), PR_OK, "%s", err.msg);
    return f;
}

static inline void rig_open_close(uint32_t first, uint32_t end)
{
    pack_file_close(rig_open(first, end));
}

/* The folder of the model's pack, and its files. */
static inline const char *rig_path(const char *name)
{
    static char path[4][1024];
    static unsigned next;
    char *p = path[next++ % 4];

    snprintf(p, sizeof path[0], "%s/%s-1/%s", in_dir("packs"), rig_model.header_sha256, name);
    return p;
}

static inline uint64_t rig_size(const char *path)
{
    struct stat st;

    cr_assert_eq(stat(path, &st), 0, "%s", path);
    return (uint64_t)st.st_size;
}

/* Where a layer is: behind those before it. */
static inline uint64_t rig_at(uint32_t layer)
{
    uint64_t at = 0;
    size_t n;

    for (uint32_t i = 0; i < layer; i++) {
        free(pm_record(i, RIG_SEED, &n));
        at += n;
    }
    return at;
}

static inline bool rig_has_layer(const char *path, uint32_t layer, uint32_t seed)
{
    size_t n;
    uint8_t *expected = pm_record(layer, seed, &n), *got = malloc(n);
    int fd = open(path, O_RDONLY);

    cr_assert_geq(fd, 0, "%s", path);
    bool same = pread(fd, got, n, (off_t)rig_at(layer)) == (ssize_t)n && !memcmp(got, expected, n);
    close(fd);
    free(got);
    free(expected);
    return same;
}

static inline void rig_expect_layers(uint32_t first, uint32_t end)
{
    for (uint32_t i = first; i < end; i++)
        cr_expect(rig_has_layer(rig_path("layers.pack"), i, RIG_SEED), "layer %u", i);
}

/* How many lines of the journal begin so. */
static inline size_t rig_count(const char *start)
{
    char *text = read_file(rig_path("layers"));
    size_t n = 0;

    for (char *line = text; line && *line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL)
        n += !strncmp(line, start, strlen(start));
    free(text);
    return n;
}

static inline void rig_flip(uint64_t at, bool keep_time)
{
    int fd = open(rig_path("layers.pack"), O_RDWR);
    struct stat st;
    uint8_t x;

    cr_assert_eq(fstat(fd, &st), 0);
    cr_assert_eq(pread(fd, &x, 1, (off_t)at), 1);
    x ^= 0x10;
    cr_assert_eq(pwrite(fd, &x, 1, (off_t)at), 1);
    if (keep_time) cr_assert_eq(futimens(fd, (struct timespec[2]){st.st_atim, st.st_mtim}), 0);
    close(fd);
}

#endif
