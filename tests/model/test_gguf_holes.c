/* Which tensors are really there: parts of the demo model as files with holes, as copies whose holes were
 * filled with zeros, and with a list beside them. What is in them is decided here, tensor by tensor. */
#include "src/base/hash.h"
#include "src/model/gguf_holes.h"
#include "src/model/tensor_list.h"
#include "src/model/tensor_use.h"
#include "tests/common/gguf_build.h"
#include "tests/common/prima.h"
#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char demo[] = "datasets/demo/demo.gguf";
enum { LAYERS = 8 }; /* of the demo model */

static void setup(void)
{
    test_dir_new();
}
TestSuite(gguf_holes, .init = setup, .fini = test_dir_remove, .timeout = 30);

static void must(int rc, const pr_err *err)
{
    cr_assert_eq(rc, PR_OK, "%s", err->msg);
}

static gguf *open_model(const char *path)
{
    gguf *g;
    pr_err err = {0};

    must(gguf_open(&g, path, &err), &err);
    return g;
}

static gguf_holes *open_holes(const gguf *g)
{
    gguf_holes *h;
    pr_err err = {0};

    must(gguf_holes_open(&h, g, &err), &err);
    return h;
}

static size_t index_of(const gguf *g, const char *name)
{
    const gguf_tensor *t = gguf_tensor_find(g, name);

    cr_assert_not_null(t, "%s", name);
    return (size_t)(t - gguf_tensor_at(g, 0));
}

/* --- making parts -------------------------------------------------------------------------------- */
typedef struct {
    unsigned first, end; /* layers */
    bool ends;           /* embedding and output */
} share;

static bool is_of(const share *s, const char *name)
{
    unsigned layer;

    if (sscanf(name, "blk.%u.", &layer) == 1) return layer >= s->first && layer < s->end;
    return s->ends || !strncmp(name, "rope", 4);
}

static void put(int fd, const void *p, size_t n, uint64_t at)
{
    cr_assert_eq(pwrite(fd, p, n, (off_t)at), (ssize_t)n);
}

/* Header and these tensors at their places; the rest holes, or zeros that are written. */
static void write_share(const char *path, const gguf *g, const share *s, bool filled)
{
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
    uint64_t n = gguf_file_bytes(g);
    size_t n_header;
    const void *header = gguf_header(g, 0, &n_header);

    cr_assert_geq(fd, 0);
    cr_assert_eq(ftruncate(fd, (off_t)n), 0);
    if (filled) {
        void *zeros = calloc(1, n);
        put(fd, zeros, n, 0);
        free(zeros);
    }
    put(fd, header, n_header, 0);
    for (size_t i = 0; i < gguf_n_tensors(g); i++) {
        const gguf_tensor *t = gguf_tensor_at(g, i);
        if (is_of(s, t->name)) put(fd, t->data, t->n_bytes, t->file_offset);
    }
    cr_assert_eq(fsync(fd), 0);
    close(fd);
}

/* What a puller would write beside it. */
static void write_list(const char *path, const gguf *g, const share *s)
{
    tensor_list l;
    char *list_path = tensor_list_path(path);
    pr_err err = {0};

    must(tensor_list_init(&l, g, &err), &err);
    for (size_t i = 0; i < l.n; i++) {
        const gguf_tensor *t = gguf_tensor_at(g, i);
        if (is_of(s, t->name)) hash_sha256_hex(t->data, t->n_bytes, l.sha256[i]);
    }
    must(tensor_list_write(&l, g, list_path, &err), &err);
    tensor_list_clear(&l);
    free(list_path);
}

static bool has_holes(const char *path)
{
    struct stat st;

    cr_assert_eq(stat(path, &st), 0);
    return (uint64_t)st.st_blocks * 512 < (uint64_t)st.st_size;
}

/* --- shares --------------------------------------------------------------------------------------- */
static void check_share(const gguf *whole, const char *path, const share *s, bool listed)
{
    gguf *g = open_model(path);
    gguf_holes *h = open_holes(g);
    char *layers = gguf_holes_layers(h), want[16];
    pr_err err = {0};

    cr_assert_eq(gguf_holes_is_listed(h), listed);
    for (size_t i = 0; i < gguf_n_tensors(whole); i++) {
        const gguf_tensor *t = gguf_tensor_at(whole, i);
        bool judged = listed || t->n_dims > 1; /* vectors are judged by the list alone */
        if (judged) cr_expect_eq(gguf_holes_has(h, i), is_of(s, t->name), "%s", t->name);
        else cr_expect(gguf_holes_has(h, i));
    }
    snprintf(want, sizeof want, "%u..%u", s->first, s->end - 1);
    cr_expect_str_eq(layers, want);
    for (unsigned il = 0; il < LAYERS; il++) {
        int rc = gguf_holes_need(h, il, il + 1, false, &err);
        cr_expect_eq(rc, il >= s->first && il < s->end ? PR_OK : PR_EINTEGRITY, "layer %u: %s", il, err.msg);
        if (!rc) continue;
        snprintf(want, sizeof want, "blk.%u.", il);
        cr_expect(strstr(err.msg, path) && strstr(err.msg, want) && strstr(err.msg, layers), "%s", err.msg);
        cr_expect_eq(strstr(err.msg, "prima pull --plan") != NULL, listed, "%s", err.msg);
    }
    cr_expect_eq(gguf_holes_need(h, s->first, s->end, true, &err), s->ends ? PR_OK : PR_EINTEGRITY);
    free(layers);
    gguf_holes_close(h);
    gguf_close(g);
}

static void try_shares(bool filled, bool listed)
{
    static const share shares[] = {{0, 3, true}, {3, 6, false}, {6, 8, false}, {2, 4, true}};
    gguf *g = open_model(demo);
    const char *path = in_dir("part.gguf");

    for (size_t i = 0; i < sizeof shares / sizeof *shares; i++) {
        write_share(path, g, &shares[i], filled);
        if (listed) write_list(path, g, &shares[i]);
        if (!filled && !has_holes(path)) cr_skip_test("no holes: this file system makes none");
        check_share(g, path, &shares[i], listed);
    }
    gguf_close(g);
}

Test(gguf_holes, files_with_holes)
{
    try_shares(false, false);
}

Test(gguf_holes, holes_that_a_copy_has_filled)
{
    try_shares(true, false);
}

Test(gguf_holes, files_with_a_list)
{
    try_shares(false, true);
    try_shares(true, true);
}

/* The test data and every other whole model must not be refused. */
Test(gguf_holes, a_whole_model_is_whole)
{
    gguf *g = open_model(demo);
    gguf_holes *h = open_holes(g);
    char *layers = gguf_holes_layers(h);
    pr_err err = {0};

    must(gguf_holes_need(h, 0, LAYERS, true, &err), &err);
    for (size_t i = 0; i < gguf_n_tensors(g); i++) cr_assert(gguf_holes_has(h, i));
    cr_assert_str_eq(layers, "0..7");
    free(layers);
    gguf_holes_close(h);
    gguf_close(g);
}

/* --- single bytes, halves, and zeros that are meant --------------------------------------------------- */
static void punch(const char *path, uint64_t at, uint64_t n)
{
#ifdef FALLOC_FL_PUNCH_HOLE
    int fd = open(path, O_RDWR);

    if (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)at, (off_t)n))
        cr_skip_test("no holes: this file system punches none");
    close(fd);
#else
    (void)path, (void)at, (void)n;
    cr_skip_test("no holes: this system punches none");
#endif
}

static bool has_after(const char *path, const char *name)
{
    gguf *g = open_model(path);
    gguf_holes *h = open_holes(g);
    bool has = gguf_holes_has(h, index_of(g, name));

    gguf_holes_close(h);
    gguf_close(g);
    return has;
}

/* A layer's matrix with a hole anywhere is none; a vocabulary's rows of zeros are. */
Test(gguf_holes, a_hole_in_the_middle)
{
    static const share all = {0, LAYERS, true};
    gguf *g = open_model(demo);
    const gguf_tensor *down = gguf_tensor_find(g, "blk.3.ffn_down.weight"),
                      *embd = gguf_tensor_find(g, "token_embd.weight");
    const char *path = in_dir("holed.gguf");

    write_share(path, g, &all, false);
    cr_assert(has_after(path, down->name) && has_after(path, embd->name));
    punch(path, (down->file_offset / 4096 + 5) * 4096, 4096);
    punch(path, (embd->file_offset / 4096 + 20) * 4096, 4 * 4096);
    cr_expect_not(has_after(path, down->name));
    cr_expect(has_after(path, embd->name));
    punch(path, embd->file_offset + 1, embd->n_bytes - 1000);
    cr_expect_not(has_after(path, embd->name));
    gguf_close(g);
}

/* One byte in a sea of zeros is content; none is not. With a digest that says so, zeros are content too. */
static void write_zeros(const char *path, const char *name, int64_t byte_at)
{
    gguf_build *b = gb_new(3);
    uint64_t ne[2] = {64, 32};
    float *data = calloc(64 * 32, sizeof *data);

    if (byte_at >= 0) ((uint8_t *)data)[byte_at] = 1;
    gb_tensor(b, name, 0, 2, ne, data, 64 * 32 * sizeof *data);
    gb_tensor(b, "blk.0.attn_q.bias", 0, 1, (uint64_t[]){2048}, NULL, 8192);
    gb_write(b, path);
    gb_free(b);
    free(data);
}

Test(gguf_holes, zeros)
{
    static const share all = {0, 1, true};
    static const int64_t at[] = {0, 1, 4095, 4096, 5000, 8191};
    const char *path = in_dir("zeros.gguf"), *name = "blk.0.attn_q.weight";

    for (size_t i = 0; i < sizeof at / sizeof *at; i++) {
        write_zeros(path, name, at[i]);
        cr_expect(has_after(path, name), "byte %d", (int)at[i]);
    }
    write_zeros(path, name, -1);
    cr_expect_not(has_after(path, name));
    cr_expect(has_after(path, "blk.0.attn_q.bias"), "a bias may be zero");
    gguf *g = open_model(path);
    write_list(path, g, &all);
    gguf_close(g);
    cr_expect(has_after(path, name), "its digest is in the list");
}

/* Zeroed after it was pulled. */
Test(gguf_holes, a_listed_tensor_that_was_zeroed)
{
    static const share mine = {2, 4, false};
    const char *path = in_dir("part.gguf");
    gguf *g = open_model(demo), *part;
    const gguf_tensor *t = gguf_tensor_find(g, "blk.2.attn_k.weight");
    uint8_t *zeros = calloc(1, t->n_bytes);
    gguf_holes *h;
    pr_err err = {0};

    write_share(path, g, &mine, false);
    write_list(path, g, &mine);
    int fd = open(path, O_RDWR);
    put(fd, zeros, t->n_bytes, t->file_offset);
    close(fd);
    h = open_holes(part = open_model(path));
    cr_expect_eq(gguf_holes_need(h, 2, 4, false, &err), PR_EINTEGRITY);
    cr_expect(strstr(err.msg, t->name) && strstr(err.msg, "pull it again"), "%s", err.msg);
    gguf_holes_close(h);
    gguf_close(part);
    gguf_close(g);
    free(zeros);
}

/* --- lists ---------------------------------------------------------------------------------------- */
/* Lists are refused for a reason that is said; one of another model is not looked at. */
Test(gguf_holes, lists_that_do_not_fit)
{
    static const struct {
        const char *text; /* %s: the header's digest */
        const char *why;
    } bad[] = {
        {"", "line 1"},
        {"prima/tensors/2 %s\nend 0\n", "line 1"},
        {"prima/tensors/1 %s", "line 1"},
        {"prima/tensors/1 %s\n", "cut off after line 1"},
        {"prima/tensors/1 %s\nend 1\n", "line 2"},
        {"prima/tensors/1 %s\nend 0", "cut off"},
        {"prima/tensors/1 %s\nend 0\nend 0\n", "behind the end"},
        {"prima/tensors/1 %s\ntensor 0 abc token_embd.weight\nend 1\n", "line 2"},
        {"prima/tensors/1 %1$s\ntensor 0 %1$s token_embd\nend 1\n", "line 2"},
        {"prima/tensors/1 %1$s\ntensor 74 %1$s token_embd.weight\nend 1\n", "line 2"},
        {"prima/tensors/1 %1$s\ntensor 99999999999999999999 %1$s token_embd.weight\nend 1\n", "line 2"},
        {"prima/tensors/1 %1$s\ntensor 0 %1$s token_embd.weight\ntensor 0 %1$s token_embd.weight\nend 2\n",
         "line 3"},
        {"prima/tensors/1 %1$s\ntensor 0 %1$s token_embd.weight\n", "cut off after line 2"},
    };
    gguf *g = open_model(demo);
    char sha[HASH_HEX_BYTES], text[1024];
    tensor_list l;
    pr_err err = {0};

    gguf_header_sha256(g, sha);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
        snprintf(text, sizeof text, bad[i].text, sha);
#pragma GCC diagnostic pop
        err = (pr_err){0};
        cr_expect_eq(tensor_list_parse(&l, text, strlen(text), g, &err), PR_EINTEGRITY, "%s", text);
        cr_expect(strstr(err.msg, bad[i].why), "%s for %s", err.msg, text);
        cr_expect_null(l.sha256);
    }
    snprintf(text, sizeof text, "prima/tensors/1 %064d\nend 0\n", 0);
    cr_expect_eq(tensor_list_parse(&l, text, strlen(text), g, &err), PR_EMISMATCH);
    gguf_close(g);
}

Test(gguf_holes, a_list_of_another_model_is_not_looked_at)
{
    static const share all = {0, LAYERS, true};
    const char *path = in_dir("whole.gguf");
    char text[128];
    gguf *g = open_model(demo);

    write_share(path, g, &all, false);
    gguf_close(g);
    snprintf(text, sizeof text, "prima/tensors/1 %064d\nend 0\n", 0);
    write_file(in_dir("whole.gguf.tensors"), text);
    cr_expect(has_after(path, "token_embd.weight"));
}

Test(gguf_holes, a_damaged_list_is_refused)
{
    static const share mine = {2, 4, false};
    const char *path = in_dir("part.gguf");
    gguf *g = open_model(demo);
    gguf_holes *h;
    pr_err err = {0};

    write_share(path, g, &mine, false);
    gguf_close(g);
    write_file(in_dir("part.gguf.tensors"), "prima/tensors/1 cut");
    g = open_model(path);
    cr_expect_eq(gguf_holes_open(&h, g, &err), PR_EINTEGRITY);
    cr_expect(strstr(err.msg, "part.gguf.tensors"), "%s", err.msg);
    gguf_close(g);
}

/* --- names ---------------------------------------------------------------------------------------- */
Test(gguf_holes, who_needs_a_tensor)
{
    static const struct {
        const char *name;
        tensor_use use;
        uint32_t layer;
    } cases[] = {{"blk.0.attn_q.weight", USE_LAYER, 0},
                 {"blk.79.ffn_norm.weight", USE_LAYER, 79},
                 {"blk.4294967295.x", USE_LAYER, UINT32_MAX},
                 {"blk.99999999999999999999999.x", USE_LAYER, UINT32_MAX},
                 {"token_embd.weight", USE_EMBEDDING, 7},
                 {"output.weight", USE_OUTPUT, 7},
                 {"output.bias", USE_OUTPUT, 7},
                 {"output_norm.weight", USE_OUTPUT, 7},
                 {"output_norms.weight", USE_EVERYWHERE, 7},
                 {"rope_freqs.weight", USE_EVERYWHERE, 7},
                 {"blk", USE_EVERYWHERE, 7}};

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint32_t layer = 7;
        cr_expect_eq(tensor_use_of(cases[i].name, &layer), cases[i].use, "%s", cases[i].name);
        cr_expect_eq(layer, cases[i].layer, "%s", cases[i].name);
    }
}

/* --- headers alone --------------------------------------------------------------------------------- */
static const char split_name[] = "model-%05d-of-00002.gguf";

/* Part no of two, one tensor each. */
static unsigned char *split_part(uint16_t no, size_t *n)
{
    gguf_build *b = gb_new(3);
    char name[32];
    unsigned char *p;

    gb_u32(b, "split.no", no);
    gb_u32(b, "split.count", 2);
    gb_u32(b, "split.tensors.count", 2);
    snprintf(name, sizeof name, "blk.%d.attn_q.weight", no);
    gb_tensor(b, name, 0, 2, (uint64_t[]){64, 32}, NULL, 8192);
    p = gb_bytes(b, n);
    gb_free(b);
    return p;
}

/* The directory that two headers give is that of the two files. */
Test(gguf_holes, headers_alone)
{
    char path[2][512], sha[2][HASH_HEX_BYTES];
    gguf_header_bytes part[2];
    gguf *files, *g;
    pr_err err = {0};

    for (int i = 0; i < 2; i++) {
        size_t n;
        unsigned char *p = split_part((uint16_t)i, &n);
        char name[64];
        snprintf(name, sizeof name, split_name, i + 1);
        snprintf(path[i], sizeof path[i], "%s", in_dir(name));
        FILE *f = fopen(path[i], "wb");
        cr_assert_eq(fwrite(p, 1, n, f), n);
        fclose(f);
        part[i] = (gguf_header_bytes){path[i], p, n - 8192};
    }
    files = open_model(path[1]);
    must(gguf_open_headers(&g, part, 2, &err), &err);
    gguf_header_sha256(files, sha[0]);
    gguf_header_sha256(g, sha[1]);
    cr_expect_str_eq(sha[0], sha[1]);
    cr_expect_eq(gguf_n_tensors(g), 2);
    for (size_t i = 0; i < 2; i++) {
        const gguf_tensor *a = gguf_tensor_at(files, i), *b = gguf_tensor_at(g, i);
        cr_expect(!strcmp(a->name, b->name) && a->file_offset == b->file_offset && a->part == b->part);
        cr_expect_null(b->data);
    }
    gguf_close(g);
    gguf_close(files);
    gguf_header_bytes turned[2] = {part[1], part[0]};
    cr_expect_eq(gguf_open_headers(&g, turned, 2, &err), PR_EINTEGRITY);
    cr_expect_eq(gguf_open_headers(&g, part, 1, &err), PR_EINTEGRITY);
    cr_expect(strstr(err.msg, "part 1 of 2"), "%s", err.msg);
    part[0].n = 60;
    cr_expect_eq(gguf_open_headers(&g, part, 2, &err), PR_EINTEGRITY);
    for (int i = 0; i < 2; i++) free((void *)part[i].p);
}
