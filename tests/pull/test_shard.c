/* A device's part of the demo model: which bytes, what is read and refused before they come, and the list
 * that is written when they have come. Here the test itself is the server (fetch_bytes below); with a real
 * one see tests/cmd/test_shard.c. What belongs to whom is decided by tensor names and layers written out
 * here. */
#include "src/model/tensor_list.h"
#include "src/pull/shard.h"
#include "tests/common/gguf_build.h"
#include "tests/common/prima.h"
#include "tests/common/ring_plan.h"
#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char demo[] = "datasets/demo/demo.gguf";
enum { LAYERS = 8, DEVICES = 3, MAX_PARTS = 3 };

static void setup(void)
{
    test_dir_new();
}
TestSuite(shard, .init = setup, .fini = test_dir_remove, .timeout = 60);

static void must(int rc, const pr_err *err)
{
    cr_assert_eq(rc, PR_OK, "%s", err->msg);
}

/* --- a server: urls are paths ----------------------------------------------------------------------------
 */
static size_t n_asked;
static uint64_t n_served;

int fetch_bytes(fetch *f, const fetch_facts *x, uint64_t first, size_t n, void *dst, pr_err *err)
{
    int fd = open(x->url, O_RDONLY);

    (void)f;
    cr_assert_leq(first + n, x->bytes, "asked for what is behind the end");
    if (fd < 0 || pread(fd, dst, n, (off_t)first) != (ssize_t)n)
        return pr_fail(err, PR_ENETWORK, "%s: not to be had", x->url);
    close(fd);
    n_asked++;
    n_served += n;
    return PR_OK;
}

static fetch_facts facts_of(const char *path)
{
    struct stat st;

    cr_assert_eq(stat(path, &st), 0, "%s", path);
    return (fetch_facts){
        .url = (char *)path, .bytes = (uint64_t)st.st_size, .has_bytes = true, .has_ranges = true};
}

/* --- plans -------------------------------------------------------------------------------------------------
 */
static gguf *open_model(const char *path)
{
    gguf *g;
    pr_err err = {0};

    must(gguf_open(&g, path, &err), &err);
    return g;
}

static plan *plan_for(const gguf *g, uint32_t rounds, uint32_t n_layers)
{
    static const uint16_t ports[DEVICES] = {1, 2, 3};
    char sha[65];
    plan *p;

    gguf_header_sha256(g, sha);
    p = ring_plan_new(DEVICES, rounds, n_layers, sha, ports);
    cr_assert_not_null(p);
    p->model.file_bytes = gguf_file_bytes(g);
    return p;
}

static bool owns(const plan_device *d, const char *name)
{
    unsigned layer;

    if (sscanf(name, "blk.%u.", &layer) != 1) return d->rank == 0 || !strncmp(name, "rope", 4);
    for (size_t i = 0; i < d->n_windows; i++)
        if (layer >= d->window[i].first_layer && layer <= d->window[i].last_layer) return true;
    return false;
}

/* --- ranges
 * -------------------------------------------------------------------------------------------------- */
/* Byte by byte: what a device owns is in a range, what it does not own is in none unless it fills a gap. */
static void check_ranges(const plan *p, size_t device, const gguf *g, uint64_t gap)
{
    uint64_t n_bytes = gguf_file_bytes(g), run = 0, total = 0;
    uint8_t *owned = calloc(1, n_bytes + 1), *there = calloc(1, n_bytes + 1);
    fetch_range *r;
    size_t n, n_header;
    pr_err err = {0};

    gguf_header(g, 0, &n_header);
    memset(owned, 1, n_header);
    for (size_t i = 0; i < gguf_n_tensors(g); i++) {
        const gguf_tensor *t = gguf_tensor_at(g, i);
        cr_assert_eq(shard_wants(&p->device[device], g, i), owns(&p->device[device], t->name), "%s", t->name);
        if (owns(&p->device[device], t->name)) memset(owned + t->file_offset, 1, t->n_bytes);
    }
    must(shard_ranges(&r, &n, &p->device[device], g, 0, gap, &err), &err);
    for (size_t i = 0; i < n; i++) {
        cr_assert(r[i].first < r[i].end && r[i].end <= n_bytes);
        if (i) cr_assert(r[i].first > r[i - 1].end && r[i].first - r[i - 1].end >= gap);
        memset(there + r[i].first, 1, r[i].end - r[i].first);
        total += r[i].end - r[i].first;
    }
    cr_assert_eq(r[0].first, 0);
    cr_assert(owned[r[n - 1].end - 1], "nothing is fetched behind the last one");
    for (uint64_t i = 0; i < n_bytes; i++) {
        if (owned[i]) cr_assert(there[i], "byte %llu is missing", (unsigned long long)i);
        run = owned[i] ? 0 : run + 1;
        if (there[i]) cr_assert(run < (gap ? gap : 1), "byte %llu was not asked for", (unsigned long long)i);
    }
    cr_assert_lt(total, n_bytes);
    free(owned);
    free(there);
    free(r);
}

Test(shard, ranges_byte_by_byte)
{
    gguf *g = open_model(demo);

    for (uint32_t rounds = 1; rounds <= 2; rounds++) {
        plan *p = plan_for(g, rounds, LAYERS);
        for (size_t i = 0; i < DEVICES; i++) {
            check_ranges(p, i, g, 0);
            check_ranges(p, i, g, 1);
            check_ranges(p, i, g, 100000);
        }
        plan_free(p);
    }
    gguf_close(g);
}

/* Offsets as `prima inspect -v` and other readers list them: layers 2..4 are one run of bytes. */
Test(shard, ranges_in_numbers)
{
    gguf *g = open_model(demo);
    plan *p = plan_for(g, 1, LAYERS);
    fetch_range *r;
    size_t n;
    pr_err err = {0};

    must(shard_ranges(&r, &n, &p->device[1], g, 0, 4096, &err), &err);
    cr_assert_eq(n, 2);
    cr_expect_eq(r[0].first, 0);
    cr_expect_leq(r[0].end, 27360);
    cr_expect_eq(r[1].first, 586464);
    cr_expect_eq(r[1].end, 1216224);
    free(r);
    must(shard_ranges(&r, &n, &p->device[1], g, 0, 1 << 20, &err), &err);
    cr_expect_eq(n, 1);
    cr_expect_eq(r[0].end, 1216224);
    free(r);
    plan_free(p);
    gguf_close(g);
}

Test(shard, a_tied_model_gives_its_output_owner_the_embedding)
{
    gguf *g = open_model(demo); /* has no output.weight */
    plan *p = plan_for(g, 1, LAYERS);
    const gguf_tensor *t = gguf_tensor_find(g, "token_embd.weight");
    size_t i = (size_t)(t - gguf_tensor_at(g, 0));

    p->device[1].owns_output = true;
    cr_expect(shard_wants(&p->device[1], g, i));
    p->device[1].owns_output = false;
    cr_expect_not(shard_wants(&p->device[1], g, i));
    plan_free(p);
    gguf_close(g);
}

Test(shard, devices_by_name)
{
    gguf *g = open_model(demo);
    plan *p = plan_for(g, 1, LAYERS);
    pr_err err = {0};
    size_t i = 9;

    must(shard_device(&i, p, "d2", &err), &err);
    cr_expect_eq(i, 2);
    cr_expect_eq(shard_device(&i, p, "d", &err), PR_EUSAGE);
    cr_expect(strstr(err.msg, "d0, d1, d2"), "%s", err.msg);
    p->n_unused = 1;
    p->unused[0] = (plan_unused){"tablet", "too slow"};
    cr_expect_eq(shard_device(&i, p, "tablet", &err), PR_EUSAGE);
    cr_expect(strstr(err.msg, "too slow"), "%s", err.msg);
    plan_free(p);
    gguf_close(g);
}

/* --- choosing and checking, as pull_model calls them ---------------------------------------------------- */
typedef struct {
    size_t n;
    fetch_facts x[MAX_PARTS];
    const char *url[MAX_PARTS];
    char path[MAX_PARTS][512], now[MAX_PARTS][520];
    pull_ranges r[MAX_PARTS];
} pulling;

static void pulling_of(pulling *q, size_t n, const char *const *url)
{
    memset(q, 0, sizeof *q);
    q->n = n;
    for (size_t i = 0; i < n; i++) {
        const char *name = strrchr(url[i], '/') + 1;
        q->url[i] = url[i];
        q->x[i] = facts_of(url[i]);
        snprintf(q->path[i], sizeof q->path[i], "%s", in_dir("pulled"));
        mkdir(q->path[i], 0700);
        snprintf(q->path[i], sizeof q->path[i], "%s/%s", in_dir("pulled"), name);
        snprintf(q->now[i], sizeof q->now[i], "%s.part", q->path[i]);
    }
}

static void pulling_clear(pulling *q)
{
    for (size_t i = 0; i < q->n; i++) {
        free(q->r[i].range);
        q->r[i] = (pull_ranges){0};
    }
}

static int choose(pulling *q, const pull_selection *sel, pr_err *err)
{
    const char *path[MAX_PARTS] = {q->path[0], q->path[1], q->path[2]};

    pulling_clear(q);
    return sel->choose(sel->arg, NULL, q->x, path, q->n, q->r, err);
}

/* The bytes of the ranges come into now[i]. */
static void receive(pulling *q)
{
    for (size_t i = 0; i < q->n; i++) {
        char *data = malloc(q->x[i].bytes);
        int in = open(q->url[i], O_RDONLY), out;
        if (q->r[i].is_there) {
            snprintf(q->now[i], sizeof q->now[i], "%s", q->path[i]);
        } else {
            out = open(q->now[i], O_RDWR | O_CREAT | O_TRUNC, 0600);
            cr_assert(in >= 0 && out >= 0 && ftruncate(out, (off_t)q->x[i].bytes) == 0);
            cr_assert_eq(pread(in, data, q->x[i].bytes, 0), (ssize_t)q->x[i].bytes);
            for (size_t k = 0; k < q->r[i].n; k++) {
                fetch_range r = q->r[i].range[k];
                cr_assert_eq(pwrite(out, data + r.first, r.end - r.first, (off_t)r.first),
                             (ssize_t)(r.end - r.first));
            }
            close(out);
        }
        close(in);
        free(data);
    }
}

static int finish(pulling *q, const pull_selection *sel, pr_err *err)
{
    const char *path[MAX_PARTS] = {q->path[0], q->path[1], q->path[2]},
               *now[MAX_PARTS] = {q->now[0], q->now[1], q->now[2]};
    int rc = sel->check(sel->arg, now, path, q->n, err);

    for (size_t i = 0; i < q->n && !rc; i++)
        if (!q->r[i].is_there) cr_assert_eq(rename(q->now[i], q->path[i]), 0);
    return rc;
}

static void pull_all(pulling *q, const plan *p, const char *device)
{
    pull_selection sel;
    shard *s;
    pr_err err = {0};

    must(shard_new(&s, p, device, &err), &err);
    sel = shard_selection(s);
    must(choose(q, &sel, &err), &err);
    receive(q);
    must(finish(q, &sel, &err), &err);
    shard_free(s);
}

static int try_choose(pulling *q, const plan *p, const char *device, pr_err *err)
{
    pull_selection sel;
    shard *s;
    int rc;

    *err = (pr_err){0};
    must(shard_new(&s, p, device, err), err);
    sel = shard_selection(s);
    rc = choose(q, &sel, err);
    shard_free(s);
    return rc;
}

/* The shard has the original's bytes where it should, and its list says so with digests made here. */
static void check_shard(const pulling *q, const plan *p, size_t device, const gguf *whole)
{
    gguf *g = open_model(q->path[0]);
    tensor_list l;
    bool found;
    pr_err err = {0};
    char sha[HASH_HEX_BYTES];

    must(tensor_list_read(&l, &found, g, &err), &err);
    cr_assert(found);
    cr_assert(shard_is(q->path[0]));
    for (size_t i = 0; i < gguf_n_tensors(whole); i++) {
        const gguf_tensor *a = gguf_tensor_at(whole, i), *b = gguf_tensor_at(g, i);
        if (owns(&p->device[device], a->name)) cr_assert(*l.sha256[i], "%s is not in the list", a->name);
        if (!*l.sha256[i]) continue;
        hash_sha256_hex(a->data, a->n_bytes, sha);
        cr_assert_str_eq(l.sha256[i], sha);
        cr_assert(memcmp(a->data, b->data, a->n_bytes) == 0, "%s", a->name);
    }
    must(shard_verify(q->path[0], &err), &err);
    tensor_list_clear(&l);
    gguf_close(g);
}

Test(shard, pulled_checked_and_verified)
{
    const char *url[] = {demo};
    gguf *g = open_model(demo);
    plan *p = plan_for(g, 1, LAYERS);
    pulling q;
    pr_err err = {0};

    pulling_of(&q, 1, url);
    pull_all(&q, p, "d2"); /* layers 5..7 */
    check_shard(&q, p, 2, g);
    cr_expect_lt(n_served, 2 << 20, "the header costs no more than its first read");

    /* Again: nothing to do. Another device's part, or another model under this name: refused. */
    cr_expect_eq(try_choose(&q, p, "d2", &err), PR_OK);
    cr_expect(q.r[0].is_there);
    cr_expect_eq(try_choose(&q, p, "d1", &err), PR_EMISMATCH);
    cr_expect(strstr(err.msg, "lacks layers"), "%s", err.msg);
    pulling_clear(&q);

    /* A flipped bit is found, in the matrix and in a bias-sized vector. */
    static const char *const damaged[] = {"blk.6.ffn_up.weight", "blk.7.attn_norm.weight"};
    for (int i = 0; i < 2; i++) {
        const gguf_tensor *t = gguf_tensor_find(g, damaged[i]);
        uint8_t c;
        int fd = open(q.path[0], O_RDWR);
        cr_assert_eq(pread(fd, &c, 1, (off_t)(t->file_offset + t->n_bytes / 2)), 1);
        c ^= 4;
        cr_assert_eq(pwrite(fd, &c, 1, (off_t)(t->file_offset + t->n_bytes / 2)), 1);
        cr_expect_eq(shard_verify(q.path[0], &err), PR_EINTEGRITY);
        cr_expect(strstr(err.msg, damaged[i]) && strstr(err.msg, "1 of 27"), "%s", err.msg);
        c ^= 4;
        cr_assert_eq(pwrite(fd, &c, 1, (off_t)(t->file_offset + t->n_bytes / 2)), 1);
        close(fd);
    }
    must(shard_verify(q.path[0], &err), &err);
    plan_free(p);
    gguf_close(g);
}

Test(shard, a_whole_model_is_left_alone)
{
    const char *url[] = {demo};
    gguf *g = open_model(demo);
    plan *p = plan_for(g, 1, LAYERS);
    char command[1200];
    pulling q;
    pr_err err = {0};

    pulling_of(&q, 1, url);
    snprintf(command, sizeof command, "cp %s %s", demo, q.path[0]);
    cr_assert_eq(system(command), 0);
    cr_expect_eq(try_choose(&q, p, "d1", &err), PR_OK, "%s", err.msg);
    cr_expect(q.r[0].is_there);
    pulling_clear(&q);
    /* The same with a layer of this device punched out, and with another header. */
    const gguf_tensor *t = gguf_tensor_find(g, "blk.3.ffn_up.weight");
    char *zeros = calloc(1, t->n_bytes);
    int fd = open(q.path[0], O_RDWR);
    cr_assert_eq(pwrite(fd, zeros, t->n_bytes, (off_t)t->file_offset), (ssize_t)t->n_bytes);
    cr_expect_eq(try_choose(&q, p, "d1", &err), PR_EMISMATCH);
    cr_assert_eq(pwrite(fd, "x", 1, 200), 1);
    cr_expect_eq(try_choose(&q, p, "d1", &err), PR_EMISMATCH);
    cr_expect(strstr(err.msg, "is another model"), "%s", err.msg);
    close(fd);
    free(zeros);
    pulling_clear(&q);
    plan_free(p);
    gguf_close(g);
}

/* Nothing is fetched for a plan of another model, from a server without ranges, or for a file that is none.
 */
Test(shard, refused_before_a_byte_comes)
{
    const char *url[] = {demo}, *other[] = {in_dir("text.gguf")};
    gguf *g = open_model(demo);
    plan *p = plan_for(g, 1, LAYERS);
    pulling q;
    pr_err err = {0};
    char sha[65];

    pulling_of(&q, 1, url);
    snprintf(sha, sizeof sha, "%s", p->model.header_sha256);
    memset(p->model.header_sha256, 'a', 64);
    cr_expect_eq(try_choose(&q, p, "d1", &err), PR_EMISMATCH);
    cr_expect(strstr(err.msg, "aaaaaaaaaaaa") && memmem(err.msg, strlen(err.msg), sha, 12), "names both: %s",
              err.msg);
    snprintf(p->model.header_sha256, sizeof sha, "%s", sha);
    p->model.file_bytes++;
    cr_expect_eq(try_choose(&q, p, "d1", &err), PR_EMISMATCH, "%s", err.msg);
    p->model.file_bytes--;
    q.x[0].has_ranges = false;
    cr_expect_eq(try_choose(&q, p, "d1", &err), PR_ENETWORK);
    q.x[0].has_ranges = true;
    q.x[0].bytes = 500000;
    cr_expect_eq(try_choose(&q, p, "d1", &err), PR_EINTEGRITY, "%s", err.msg);
    pulling_clear(&q);

    char text[5000];
    memset(text, 'x', sizeof text);
    text[sizeof text - 1] = 0;
    write_file(other[0], text);
    pulling_of(&q, 1, other);
    cr_expect_eq(try_choose(&q, p, "d1", &err), PR_EINTEGRITY, "%s", err.msg);
    pulling_clear(&q);
    plan_free(p);
    gguf_close(g);
}

/* --- large and hostile headers ----------------------------------------------------------------------------
 */
/* A header of some megabytes is read in steps that grow, and not much more of the file. */
Test(shard, a_long_header)
{
    enum { KEY_BYTES = 5000000 };
    const char *url[] = {in_dir("long.gguf")};
    gguf_build *b = gb_new(3);
    char *zeros = calloc(1, KEY_BYTES);
    pulling q;
    gguf *g;
    plan *p;

    gb_array(b, "tokens", GB_U8, zeros, KEY_BYTES, KEY_BYTES);
    memset(zeros, 'w', KEY_BYTES);
    for (int i = 0; i < DEVICES; i++) {
        char name[32];
        snprintf(name, sizeof name, "blk.%d.attn_q.weight", i);
        gb_tensor(b, name, 0, 2, (uint64_t[]){1024, 500}, zeros, 1024 * 500 * 4);
    }
    gb_write(b, url[0]);
    gb_free(b);
    free(zeros);
    g = open_model(url[0]);
    p = plan_for(g, 1, DEVICES);
    pulling_of(&q, 1, url);
    pull_all(&q, p, "d1");
    check_shard(&q, p, 1, g);
    cr_expect_eq(n_asked, 3); /* up to 1, 4 and 11 MB */
    cr_expect_leq(n_served, gguf_file_bytes(g));
    pulling_clear(&q);
    plan_free(p);
    gguf_close(g);
}

/* A header that goes on for ever is given up after 64 MiB; one that lies about counts at once or then too. */
Test(shard, a_header_without_end)
{
    const char *url[] = {in_dir("endless.gguf")};
    static const uint8_t start[] = {'G', 'G', 'U', 'F', 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
                                    1,   0,   0,   0,   0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0,
                                    'k', 9,   0,   0,   0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1};
    FILE *f = fopen(url[0], "wb");
    gguf *g = open_model(demo);
    plan *p = plan_for(g, 1, LAYERS);
    pulling q;
    pr_err err = {0};

    cr_assert_eq(fwrite(start, 1, sizeof start, f), sizeof start);
    fclose(f);
    cr_assert_eq(truncate(url[0], 1 << 30), 0);
    pulling_of(&q, 1, url);
    cr_expect_eq(try_choose(&q, p, "d1", &err), PR_EINTEGRITY);
    cr_expect_eq(n_served, 64 << 20);
    pulling_clear(&q);
    plan_free(p);
    gguf_close(g);
}

/* --- split models
 * ------------------------------------------------------------------------------------------- */
static const char *write_part(int no, int count)
{
    gguf_build *b = gb_new(3);
    char name[64];
    const char *path;
    float *w = malloc(64 * 32 * sizeof *w);

    for (int i = 0; i < 64 * 32; i++) w[i] = (float)(i + no);
    gb_u32(b, "split.no", (uint32_t)no);
    gb_u32(b, "split.count", (uint32_t)count);
    gb_u32(b, "split.tensors.count", (uint32_t)count * 2);
    snprintf(name, sizeof name, "blk.%d.attn_q.weight", no);
    gb_tensor(b, name, 0, 2, (uint64_t[]){64, 32}, w, 64 * 32 * sizeof *w);
    snprintf(name, sizeof name, "blk.%d.attn_norm.weight", no);
    gb_tensor(b, name, 0, 1, (uint64_t[]){64}, w, 64 * sizeof *w);
    snprintf(name, sizeof name, "m-%05d-of-%05d.gguf", no + 1, count);
    gb_write(b, path = in_dir(name));
    gb_free(b);
    free(w);
    return path;
}

/* All parts come, those without a tensor of this device with their header alone; one list for all. */
Test(shard, all_parts_of_a_split_model)
{
    const char *url[MAX_PARTS];
    plan *p;
    gguf *g;
    pulling q;
    pr_err err = {0};

    for (int i = 0; i < MAX_PARTS; i++) url[i] = write_part(i, MAX_PARTS);
    g = open_model(url[0]);
    p = plan_for(g, 1, MAX_PARTS);
    pulling_of(&q, MAX_PARTS, url);
    pull_all(&q, p, "d1");
    check_shard(&q, p, 1, g);
    cr_expect_eq(q.r[0].n, 1);
    cr_expect_lt(q.r[0].range[0].end, 1000);
    cr_expect_eq(access(in_dir("pulled/m-00002-of-00003.gguf.tensors"), F_OK), -1);

    /* One of three was renamed when the power went: the other two come, the list is whole again. */
    cr_assert_eq(unlink(q.path[0]) | unlink(q.path[2]), 0);
    snprintf(q.now[1], sizeof q.now[1], "%s.part", q.path[1]);
    pull_all(&q, p, "d1");
    cr_expect(q.r[1].is_there && !q.r[0].is_there && !q.r[2].is_there);
    check_shard(&q, p, 1, g);
    cr_expect_eq(try_choose(&q, p, "d2", &err), PR_EMISMATCH);
    /* Parts in the wrong order are not those of one model. */
    const char *turned[] = {url[1], url[0], url[2]};
    pulling_clear(&q);
    pulling_of(&q, MAX_PARTS, turned);
    cr_expect_eq(try_choose(&q, p, "d1", &err), PR_EINTEGRITY, "%s", err.msg);
    pulling_clear(&q);
    plan_free(p);
    gguf_close(g);
}

/* For planning: no layer, but the small tensors that the shape depends on. */
Test(shard, the_header_alone)
{
    const char *url[] = {in_dir("freqs.gguf")};
    gguf_build *b = gb_tiny("llama");
    static const float freqs[4] = {1, 2, 3, 4};
    pull_selection sel;
    tensor_list l;
    bool found;
    pulling q;
    shard *s;
    gguf *g;
    pr_err err = {0};

    gb_tensor(b, "rope_freqs.weight", 0, 1, (uint64_t[]){4}, freqs, sizeof freqs);
    gb_write(b, url[0]);
    gb_free(b);
    pulling_of(&q, 1, url);
    must(shard_header_new(&s, &err), &err);
    sel = shard_selection(s);
    must(choose(&q, &sel, &err), &err);
    receive(&q);
    must(finish(&q, &sel, &err), &err);
    g = open_model(q.path[0]);
    must(tensor_list_read(&l, &found, g, &err), &err);
    const gguf_tensor *t = gguf_tensor_find(g, "rope_freqs.weight");
    cr_expect(found && *l.sha256[t - gguf_tensor_at(g, 0)]);
    cr_expect(memcmp(t->data, freqs, sizeof freqs) == 0);
    tensor_list_clear(&l);
    gguf_close(g);
    must(choose(&q, &sel, &err), &err);
    cr_expect(q.r[0].is_there);
    pulling_clear(&q);
    shard_free(s);
}

/* A list is not believed when it is of another file. */
Test(shard, verify_without_or_with_a_wrong_list)
{
    const char *url[] = {demo};
    gguf *g = open_model(demo);
    plan *p = plan_for(g, 1, LAYERS);
    char text[128];
    pulling q;
    pr_err err = {0};

    cr_expect_not(shard_is(demo));
    cr_expect_eq(shard_verify(demo, &err), PR_EUSAGE);
    pulling_of(&q, 1, url);
    pull_all(&q, p, "d0");
    check_shard(&q, p, 0, g);
    snprintf(text, sizeof text, "prima/tensors/1 %064d\nend 0\n", 0);
    write_file(in_dir("pulled/demo.gguf.tensors"), text);
    cr_expect_eq(shard_verify(q.path[0], &err), PR_EINTEGRITY);
    cr_expect(strstr(err.msg, "header"), "%s", err.msg);
    write_file(in_dir("pulled/demo.gguf.tensors"), "nonsense");
    cr_expect_eq(shard_verify(q.path[0], &err), PR_EINTEGRITY);
    pulling_clear(&q);
    plan_free(p);
    gguf_close(g);
}
