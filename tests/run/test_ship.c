/* Shipping: a worker without the model gets its layers from the head, over a real connection on loopback.
 * What arrives is compared with the head's file, and its bits with those computed from the whole file. */
#include "src/base/clock.h"
#include "src/run/ship.h"
#include "tests/common/data.h"
#include "tests/common/gguf_build.h"
#include "tests/common/prima.h"
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#ifdef __linux__
#include "tests/common/small_disk.h"
#endif

static const char demo[] = "datasets/demo/demo.gguf";
enum { DIGITS = 64 };

static void must(int rc, const pr_err *err)
{
    cr_assert_eq(rc, PR_OK, "%s", err->msg);
}

static void setup(void)
{
    test_dir_new();
    setenv("PRIMA_CACHE", in_dir("cache"), 1);
}
TestSuite(ship, .init = setup, .fini = test_dir_remove, .timeout = 60);

/* --- connections ------------------------------------------------------------------------------------------
 */
static const sock_options plain_options;
static const security plain;

static control *connect_to(const char *address)
{
    sock_addr at;
    sock s;
    channel *c;
    control *k;
    pr_err err = {0};

    must(sock_addr_parse(&at, address, false, &err), &err);
    must(sock_connect(&s, &at, &plain_options, false, sock_deadline(5), &err), &err);
    must(channel_open(&c, &s, CHANNEL_CLIENT, &plain, sock_deadline(5), &err), &err);
    must(control_new(&k, c, 10, &err), &err);
    return k;
}

static control *accept_from(const sock_listener *l)
{
    sock s;
    channel *c;
    control *k;
    pr_err err = {0};

    must(sock_accept(&s, l, sock_deadline(5), &err), &err);
    must(channel_open(&c, &s, CHANNEL_SERVER, &plain, sock_deadline(5), &err), &err);
    must(control_new(&k, c, 10, &err), &err);
    return k;
}

static void listen_here(sock_listener *l)
{
    sock_addr at = {.host = "127.0.0.1"};
    pr_err err = {0};

    must(sock_listen(l, &at, &plain_options, &err), &err);
}

/* --- a head ----------------------------------------------------------------------------------------------
 */
typedef struct head_side head_side;
struct head_side {
    ship_source *source;
    control *k;
    pthread_t thread, beats;
    /* Instead of ship_answer; false: answer as always. */
    bool (*answer)(head_side *h, const json_t *need);
    const char *script; /* for `answer` */
    atomic_size_t needs, tensors;
    atomic_bool over;
    int failed; /* what the worker says of itself */
    pr_err end;
};

static void *send_beats(void *arg)
{
    head_side *h = arg;

    while (!h->over) {
        control_send(h->k, json_pack("{s:s}", "type", "beat"), NULL);
        usleep(5000);
    }
    return NULL;
}

static void *be_head(void *arg)
{
    head_side *h = arg;
    json_t *message;
    int rc = 0;

    while (!rc && !(rc = control_recv(h->k, &message, &h->end))) {
        if (control_is(message, "need")) {
            h->needs++;
            h->tensors += json_array_size(json_object_get(message, "tensors"));
            if (!h->answer || !h->answer(h, message)) rc = ship_answer(h->source, h->k, message, &h->end);
        } else if (control_is(message, "fail")) {
            h->failed = (int)json_integer_value(json_object_get(message, "code"));
        }
        json_decref(message);
    }
    return NULL;
}

/* The worker's end of a connection to this head. */
static control *start_head(head_side *h, ship_source *source)
{
    sock_listener l;
    control *worker;

    h->source = source;
    listen_here(&l);
    worker = connect_to(l.address);
    h->k = accept_from(&l);
    sock_listener_close(&l);
    cr_assert_eq(pthread_create(&h->thread, NULL, be_head, h), 0);
    cr_assert_eq(pthread_create(&h->beats, NULL, send_beats, h), 0);
    return worker;
}

static void end_head(head_side *h, control *worker)
{
    h->over = true;
    pthread_join(h->beats, NULL);
    control_close(worker);
    pthread_join(h->thread, NULL);
    control_close(h->k);
}

/* --- a worker --------------------------------------------------------------------------------------------
 */
typedef struct {
    model m;
    ship_source *source;
} original;

static void open_original(original *o, const char *path)
{
    pr_err err = {0};

    must(model_open(&o->m, path, &err), &err);
    must(ship_source_new(&o->source, &o->m, &err), &err);
}

static void close_original(original *o)
{
    ship_source_free(o->source);
    model_close(&o->m);
}

static ship_wish wish_for(const original *o, const layer_range *layers, size_t n_windows)
{
    return (ship_wish){.header_sha256 = o->m.header_sha256,
                       .file_bytes = gguf_file_bytes(o->m.g),
                       .window = layers,
                       .n_windows = n_windows};
}

/* One start of a worker; *m is open when it returns PR_OK. */
static int ship(const original *o, const ship_wish *w, head_side *h, model *m, ship_counts *n, pr_err *err)
{
    control *k = start_head(h, o->source);
    int rc = ship_model(m, w, k, n, err);

    if (rc) control_send(k, json_pack("{s:s, s:i}", "type", "fail", "code", rc), NULL);
    end_head(h, k);
    return rc;
}

static ship_counts ship_well(const original *o, const ship_wish *w, model *m)
{
    head_side h = {0};
    ship_counts n;
    pr_err err = {0};

    must(ship(o, w, &h, m, &n, &err), &err);
    return n;
}

/* --- looking at what came ---------------------------------------------------------------------------------
 */
static bool is_of_layers(const char *name, const layer_range *layers, size_t n)
{
    unsigned layer;

    if (sscanf(name, "blk.%u.", &layer) != 1)
        return !strcmp(name, "rope_freqs.weight") || !strcmp(name, "large.weight");
    for (size_t i = 0; i < n; i++)
        if (layer >= layers[i].first && layer < layers[i].end) return true;
    return false;
}

static bool is_zero(const uint8_t *p, uint64_t n)
{
    for (uint64_t i = 0; i < n; i++)
        if (p[i]) return false;
    return true;
}

/* The tensors of the layers are there, the others are holes. Returns the bytes of those that are there. */
static uint64_t compare(const original *o, const model *m, const ship_wish *w)
{
    uint64_t total = 0;

    cr_assert_eq(gguf_n_tensors(m->g), gguf_n_tensors(o->m.g));
    for (size_t i = 0; i < gguf_n_tensors(m->g); i++) {
        const gguf_tensor *a = gguf_tensor_at(o->m.g, i), *b = gguf_tensor_at(m->g, i);
        cr_assert_str_eq(a->name, b->name);
        cr_assert_eq(a->n_bytes, b->n_bytes);
        if (is_of_layers(a->name, w->window, w->n_windows)) {
            cr_assert(memcmp(a->data, b->data, a->n_bytes) == 0, "%s differs", a->name);
            total += a->n_bytes;
        } else {
            cr_assert(is_zero(b->data, b->n_bytes), "%s is there", a->name);
        }
    }
    return total;
}

enum { TOKENS = 9, PAGES = 2 };

/* Hidden states of TOKENS tokens after all windows. Caller frees. */
static float *compute(const model *m, const layer_range *layers, size_t n_windows)
{
    engine_options eo = {.n_threads = 1,
                         .n_pages = PAGES,
                         .max_tokens = TOKENS,
                         .window = layers,
                         .n_windows = (uint32_t)n_windows,
                         .is_worker = true};
    static const int32_t token[TOKENS], pages[PAGES] = {0, 1};
    batch_run run = {0, TOKENS, 0, pages};
    batch b = {.n_tokens = TOKENS, .token = token, .n_runs = 1, .run = &run};
    size_t n = TOKENS * m->hp.n_embd;
    float *hidden = malloc(n * sizeof *hidden);
    engine *e;
    pr_err err = {0};

    for (size_t i = 0; i < n; i++) hidden[i] = (float)((i * 2654435761u) % 1000) / 500 - 1;
    must(engine_new(&e, m, &eo, &err), &err);
    for (size_t i = 0; i < n_windows; i++) cr_assert_eq(engine_window(e, i, &b, hidden, NULL), PR_OK);
    engine_free(e);
    return hidden;
}

static void same_bits(const original *o, const model *m, const ship_wish *w)
{
    float *want = compute(&o->m, w->window, w->n_windows), *got = compute(m, w->window, w->n_windows);
    size_t n = TOKENS * m->hp.n_embd;

    cr_assert(memcmp(want, got, n * sizeof *want) == 0);
    for (size_t i = 0; i < n; i++) cr_assert(want[i] == want[i] && want[i] - want[i] == 0, "not finite");
    free(want);
    free(got);
}

static const char *cached(const original *o, const char *name)
{
    static char path[4][1024];
    static unsigned next;
    char *p = path[next++ % 4];

    snprintf(p, sizeof path[0], "%s/models/%s/%s", getenv("PRIMA_CACHE"), o->m.header_sha256, name);
    return p;
}

/* Bytes on the disk. */
static uint64_t blocks(const char *path)
{
    struct stat st;

    cr_assert_eq(stat(path, &st), 0);
    return (uint64_t)st.st_blocks * 512;
}

static const gguf_tensor *tensor(const original *o, const char *name)
{
    const gguf_tensor *t = gguf_tensor_find(o->m.g, name);
    cr_assert_not_null(t);
    return t;
}

static void flip(const char *path, uint64_t at)
{
    int fd = open(path, O_RDWR);
    uint8_t c;

    cr_assert_eq(pread(fd, &c, 1, (off_t)at), 1);
    c ^= 0x10;
    cr_assert_eq(pwrite(fd, &c, 1, (off_t)at), 1);
    close(fd);
}

static void copy(const char *from, const char *to)
{
    char command[1200];

    snprintf(command, sizeof command, "cp '%s' '%s'", from, to);
    cr_assert_eq(system(command), 0);
}

static uint64_t header_bytes(const original *o)
{
    size_t n, total = 0;

    for (size_t i = 0; i < gguf_n_parts(o->m.g); i++) {
        gguf_header(o->m.g, i, &n);
        total += n;
    }
    return total;
}

/* --- it arrives ------------------------------------------------------------------------------------------
 */
static void arrives(const char *path, const layer_range *layers, size_t n_windows, uint64_t batch_bytes)
{
    original o;
    model m;

    open_original(&o, path);
    ship_wish w = wish_for(&o, layers, n_windows);
    w.batch_bytes = batch_bytes;

    ship_counts n = ship_well(&o, &w, &m);
    uint64_t there = compare(&o, &m, &w);
    same_bits(&o, &m, &w);
    cr_assert_eq(n.received_bytes, there + header_bytes(&o));
    cr_assert_eq(n.wanted_bytes, n.received_bytes);
    cr_assert_eq(n.here_bytes, 0);
    cr_assert(n.from_cache);
    cr_assert_eq(gguf_file_bytes(m.g), gguf_file_bytes(o.m.g));
    /* A tensor may share its first and last block with a hole. */
    cr_assert_leq(blocks(gguf_part_path(m.g, 0)), n.received_bytes + 8192 * (n.received + 1));
    model_close(&m);

    n = ship_well(&o, &w, &m); /* the second start */
    cr_assert_eq(n.received_bytes, 0);
    cr_assert_eq(n.received, 0);
    cr_assert_eq(n.here_bytes, n.wanted_bytes);
    compare(&o, &m, &w);
    model_close(&m);
    close_original(&o);
}

Test(ship, layers_arrive_and_stay)
{
    arrives(demo, (const layer_range[]){{1, 3}}, 1, 0);
}

Test(ship, several_windows_and_small_batches)
{
    arrives(demo, (const layer_range[]){{0, 1}, {1, 1}, {3, 4}}, 3, 1);
}

Test(ship, rope_freqs_come_along)
{
    arrives(test_data("models/llama-gqa-ropefreqs.gguf"), (const layer_range[]){{1, 2}}, 1, 0);
}

Test(ship, qwen2_with_biases)
{
    arrives(test_data("models/qwen2-q-Q4_K_M.gguf"), (const layer_range[]){{0, 1}}, 1, 100000);
}

Test(ship, other_layers_are_added)
{
    static const layer_range first = {0, 2}, second = {1, 3}, both = {0, 3};
    original o;
    model m;
    uint64_t layer;

    open_original(&o, demo);
    layer = hparams_layer_bytes(&o.m.hp, 0, 1);
    ship_wish w = wish_for(&o, &first, 1);
    cr_assert_eq(ship_well(&o, &w, &m).received_bytes, 2 * layer + header_bytes(&o));
    model_close(&m);
    w.window = &second;
    cr_assert_eq(ship_well(&o, &w, &m).received_bytes, layer);
    w.window = &both;
    compare(&o, &m, &w);
    same_bits(&o, &m, &w);
    model_close(&m);
    close_original(&o);
}

/* gb_tiny with what a vocabulary needs. */
static gguf_build *tiny_model(void)
{
    static const float scores[8];
    gguf_build *b = gb_tiny("llama");

    gb_str(b, "tokenizer.ggml.model", "llama");
    gb_array(b, "tokenizer.ggml.scores", GB_F32, scores, sizeof scores, 8);
    return b;
}

/* The tiny model with a tensor of n floats. */
static const char *write_large(size_t n)
{
    gguf_build *b = tiny_model();
    float *data = malloc(n * sizeof *data);

    for (size_t i = 0; i < n; i++) data[i] = (float)i;
    gb_tensor(b, "large.weight", 0, 1, (const uint64_t[]){n}, data, n * sizeof *data);
    gb_write(b, in_dir("large.gguf"));
    gb_free(b);
    free(data);
    return in_dir("large.gguf");
}

Test(ship, more_than_one_piece_of_bulk)
{
    static const layer_range layers = {0, 1};

    arrives(write_large(1000003), &layers, 1, 0);
}

/* It as two files, its weights not all zero. */
static void write_split(void)
{
    for (uint32_t no = 0; no < 2; no++) {
        gguf_build *b = tiny_model();
        char name[64];
        pr_err err = {0};
        gguf *g;
        gb_write(b, in_dir("whole.gguf"));
        must(gguf_open(&g, in_dir("whole.gguf"), &err), &err);
        for (size_t i = 0; i < gguf_n_tensors(g); i++)
            if ((i % 3 == 0) != (no == 0)) gb_drop_tensor(b, gguf_tensor_at(g, i)->name);
        gb_u32(b, "split.no", no);
        gb_u32(b, "split.count", 2);
        gb_u32(b, "split.tensors.count", (uint32_t)gguf_n_tensors(g));
        gguf_close(g);
        snprintf(name, sizeof name, "m-%05u-of-00002.gguf", no + 1);
        gb_write(b, in_dir(name));
        gb_free(b);
    }
}

static void fill_with_numbers(const char *first)
{
    pr_err err = {0};
    gguf *g;

    must(gguf_open(&g, first, &err), &err);
    for (size_t i = 0; i < gguf_n_tensors(g); i++) {
        const gguf_tensor *t = gguf_tensor_at(g, i);
        int fd = open(gguf_part_path(g, t->part), O_WRONLY);
        for (uint64_t at = 0; at + 4 <= t->n_bytes; at += 4) {
            float v = (float)((at + i * 77) % 101) / 100 - 0.5f;
            cr_assert_eq(pwrite(fd, &v, 4, (off_t)(t->file_offset + at)), 4);
        }
        close(fd);
    }
    gguf_close(g);
}

Test(ship, a_split_model)
{
    static const layer_range layers = {1, 2};
    original o;
    model m;

    write_split();
    fill_with_numbers(in_dir("m-00001-of-00002.gguf"));
    open_original(&o, in_dir("m-00001-of-00002.gguf"));
    ship_wish w = wish_for(&o, &layers, 1);
    ship_counts n = ship_well(&o, &w, &m);
    cr_assert_eq(gguf_n_parts(m.g), 2);
    cr_assert_eq(n.received_bytes, compare(&o, &m, &w) + header_bytes(&o));
    same_bits(&o, &m, &w);
    model_close(&m);
    cr_assert_eq(ship_well(&o, &w, &m).received_bytes, 0);
    model_close(&m);
    close_original(&o);
}

/* --- the device's own file --------------------------------------------------------------------------------
 */
Test(ship, own_file_moves_nothing)
{
    static const layer_range layers = {0, 2};
    original o;
    model m;

    open_original(&o, demo);
    copy(demo, in_dir("own.gguf"));
    ship_wish w = wish_for(&o, &layers, 1);
    w.path = in_dir("own.gguf");
    ship_counts n = ship_well(&o, &w, &m);
    cr_assert_eq(n.received_bytes, 0);
    cr_assert_not(n.from_cache);
    same_bits(&o, &m, &w);
    cr_assert_neq(access(in_dir("cache"), F_OK), 0, "a cache was made");
    model_close(&m);
    close_original(&o);
}

static void own_file_fails(const char *path, int code, const char *a, const char *b)
{
    static const layer_range layers = {0, 2};
    head_side h = {0};
    original o;
    model m;
    pr_err err = {0};

    open_original(&o, demo);
    ship_wish w = wish_for(&o, &layers, 1);
    w.path = path;
    cr_assert_eq(ship(&o, &w, &h, &m, NULL, &err), code, "%s", err.msg);
    cr_assert_not_null(strstr(err.msg, a), "%s", err.msg);
    cr_assert_not_null(strstr(err.msg, b ? b : o.m.header_sha256), "%s", err.msg);
    close_original(&o);
}

Test(ship, own_file_of_another_model)
{
    char digest[13];
    original o;
    gguf_build *b = tiny_model();

    gb_write(b, in_dir("other.gguf"));
    gb_free(b);
    open_original(&o, demo);
    snprintf(digest, sizeof digest, "%.12s", o.m.header_sha256);
    close_original(&o);
    own_file_fails(in_dir("other.gguf"), PR_EMISMATCH, "other.gguf", digest);
    open_original(&o, in_dir("other.gguf"));
    snprintf(digest, sizeof digest, "%.12s", o.m.header_sha256);
    close_original(&o);
    own_file_fails(in_dir("other.gguf"), PR_EMISMATCH, "other.gguf", digest);
    own_file_fails(in_dir("absent.gguf"), PR_ERESOURCE, "absent.gguf", "cannot open");
}

/* Another model with the same header: one byte in the middle of a tensor. */
static void write_sister(const char *path)
{
    original o;

    open_original(&o, demo);
    const gguf_tensor *t = tensor(&o, "blk.1.ffn_down.weight");
    copy(demo, path);
    flip(path, t->file_offset + t->n_bytes / 2);
    close_original(&o);
}

Test(ship, own_file_with_other_data)
{
    write_sister(in_dir("sister.gguf"));
    own_file_fails(in_dir("sister.gguf"), PR_EMISMATCH, "same header", "blk.1.ffn_down.weight");
}

Test(ship, a_cache_of_another_model_with_the_same_header_is_dropped)
{
    static const layer_range layers = {0, 2};
    original o, sister;
    model m, m2;

    write_sister(in_dir("sister.gguf"));
    open_original(&o, demo);
    open_original(&sister, in_dir("sister.gguf"));
    ship_wish w = wish_for(&o, &layers, 1);
    uint64_t whole = ship_well(&o, &w, &m).received_bytes;
    cr_assert_eq(ship_well(&sister, &w, &m2).received_bytes, whole);
    compare(&sister, &m2, &w);
    compare(&o, &m, &w); /* who has it open keeps what it had */
    model_close(&m2);
    model_close(&m);
    close_original(&sister);
    close_original(&o);
}

/* --- damage ------------------------------------------------------------------------------------------------
 */
/* A byte of the header that parses as well when it is another: in the model's name. */
static size_t name_at(const original *o)
{
    size_t n;
    const uint8_t *p = gguf_header(o->m.g, 0, &n), *name = memmem(p, n, "Prima Demo", 10);

    cr_assert_not_null(name);
    return (size_t)(name - p);
}

/* `have` with one byte of the bulk changed, as a bad network does. */
static void send_damaged(head_side *h, json_int_t index, const char *digest, const void *data, size_t n,
                         size_t at)
{
    uint8_t *bytes = malloc(n);

    memcpy(bytes, data, n);
    bytes[at] ^= 1;
    control_send_bulk(h->k,
                      json_pack("{s:s, s:I, s:I, s:s}", "type", "have", "tensor", index, "bytes",
                                (json_int_t)n, "sha256", digest),
                      bytes, n, NULL);
    control_send(h->k, json_pack("{s:s, s:[]}", "type", "had", "differs"), NULL);
    free(bytes);
}

static void sha256_of(const void *p, size_t n, char out[DIGITS + 1])
{
    FILE *f = fopen(in_dir("hashed"), "w");
    char command[800];

    fwrite(p, 1, n, f);
    fclose(f);
    snprintf(command, sizeof command, "sha256sum '%s'", in_dir("hashed"));
    f = popen(command, "r");
    cr_assert_eq(fread(out, 1, DIGITS, f), DIGITS);
    out[DIGITS] = 0;
    pclose(f);
}

static const original *damaged; /* what the head sends */

/* The header at the first need, the first tensor of the second, are damaged; `script` set: always. */
static bool damage(head_side *h, const json_t *need)
{
    json_int_t index = json_integer_value(json_array_get(json_object_get(need, "tensors"), 0));
    char digest[DIGITS + 1];
    size_t n;

    if (json_is_true(json_object_get(need, "header"))) {
        if (h->needs > 1) return false;
        const void *p = gguf_header(damaged->m.g, 0, &n);
        send_damaged(h, -1, damaged->m.header_sha256, p, n, name_at(damaged));
        return true;
    }
    if (h->needs > 3 && !h->script) return false;
    const gguf_tensor *t = gguf_tensor_at(damaged->m.g, (size_t)index);
    sha256_of(t->data, t->n_bytes, digest);
    send_damaged(h, index, digest, t->data, t->n_bytes, t->n_bytes / 3);
    return true;
}

Test(ship, damage_on_the_way_is_found_and_fetched_again)
{
    static const layer_range layers = {2, 3};
    head_side h = {.answer = damage}, always = {.answer = damage, .script = "always"};
    original o;
    model m;
    ship_counts n;
    pr_err err = {0};

    open_original(&o, demo);
    damaged = &o;
    ship_wish w = wish_for(&o, &layers, 1);
    cr_assert_eq(ship(&o, &w, &always, &m, NULL, &err), PR_EINTEGRITY, "%s", err.msg);
    must(ship(&o, &w, &h, &m, &n, &err), &err);
    compare(&o, &m, &w);
    same_bits(&o, &m, &w);
    model_close(&m);
    cr_assert_eq(ship_well(&o, &w, &m).received_bytes, 0);
    model_close(&m);
    close_original(&o);
}

Test(ship, damage_in_the_cache_is_found_and_fetched_again)
{
    static const layer_range layers = {0, 3}, less = {0, 1};
    original o;
    model m;

    open_original(&o, demo);
    const gguf_tensor *a = tensor(&o, "blk.0.attn_q.weight"), *b = tensor(&o, "blk.2.ffn_norm.weight");
    ship_wish w = wish_for(&o, &layers, 1);
    ship_well(&o, &w, &m);
    model_close(&m);

    flip(cached(&o, "model.gguf"), a->file_offset + 17);
    flip(cached(&o, "model.gguf"), b->file_offset + b->n_bytes - 1);
    w.window = &less; /* damage in what is not wanted now must not be forgotten */
    cr_assert_eq(ship_well(&o, &w, &m).received_bytes, a->n_bytes);
    model_close(&m);
    w.window = &layers;
    cr_assert_eq(ship_well(&o, &w, &m).received_bytes, b->n_bytes);
    compare(&o, &m, &w);
    model_close(&m);

    flip(cached(&o, "model.gguf"), name_at(&o));
    cr_assert_eq(ship_well(&o, &w, &m).received_bytes, compare(&o, &m, &w) + header_bytes(&o));
    model_close(&m);
    close_original(&o);
}

/* A disk that forgets changes no times: only verifying finds it. */
Test(ship, verify_finds_silent_damage)
{
    static const layer_range layers = {0, 3};
    struct stat st;
    original o;
    model m;

    open_original(&o, demo);
    const gguf_tensor *t = tensor(&o, "blk.1.ffn_up.weight");
    ship_wish w = wish_for(&o, &layers, 1);
    ship_well(&o, &w, &m);
    model_close(&m);
    cr_assert_eq(stat(cached(&o, "model.gguf"), &st), 0);
    flip(cached(&o, "model.gguf"), t->file_offset + 5);
    cr_assert_eq(
        utimensat(AT_FDCWD, cached(&o, "model.gguf"), (struct timespec[]){st.st_atim, st.st_mtim}, 0), 0);
    cr_assert_eq(ship_well(&o, &w, &m).received_bytes, 0, "times say that nothing has changed");
    model_close(&m);
    w.verify = true;
    cr_assert_eq(ship_well(&o, &w, &m).received_bytes, t->n_bytes);
    compare(&o, &m, &w);
    model_close(&m);
    close_original(&o);
}

Test(ship, a_torn_or_foreign_journal)
{
    static const layer_range layers = {0, 3};
    original o;
    model m;
    uint64_t all;
    struct stat st;

    open_original(&o, demo);
    ship_wish w = wish_for(&o, &layers, 1);
    ship_well(&o, &w, &m);
    all = compare(&o, &m, &w);
    model_close(&m);
    cr_assert_eq(stat(cached(&o, "parts"), &st), 0);
    /* Cut at any place: what is in it still counts, and what is written behind it is read. */
    for (off_t cut = st.st_size - 1; cut > 0; cut -= 97) {
        cr_assert_eq(truncate(cached(&o, "parts"), cut), 0);
        cr_assert_leq(ship_well(&o, &w, &m).received_bytes, all);
        compare(&o, &m, &w);
        model_close(&m);
        cr_assert_eq(ship_well(&o, &w, &m).received_bytes, 0);
        model_close(&m);
    }
    write_file(cached(&o, "parts"), "prima/parts/9 x\npart 0 y\n");
    cr_assert_eq(ship_well(&o, &w, &m).received_bytes, all);
    model_close(&m);
    close_original(&o);
}

/* --- killed
 * -------------------------------------------------------------------------------------------------
 */
/* Every tensor that the journal names is in the file as it is in the original. Returns how many. */
static size_t check_journal(const original *o)
{
    FILE *f = fopen(cached(o, "parts"), "r");
    int fd = open(cached(o, "model.gguf"), O_RDONLY);
    char line[256];
    size_t n = 0;
    unsigned i;

    while (f && fd >= 0 && fgets(line, sizeof line, f)) {
        if (sscanf(line, "part %u", &i) != 1 || !strchr(line, '\n')) continue;
        const gguf_tensor *t = gguf_tensor_at(o->m.g, i);
        uint8_t *data = malloc(t->n_bytes);
        cr_assert_eq(pread(fd, data, t->n_bytes, (off_t)t->file_offset), (ssize_t)t->n_bytes);
        cr_assert(memcmp(data, t->data, t->n_bytes) == 0, "%s is said to be there", t->name);
        free(data);
        n++;
    }
    if (f) fclose(f);
    if (fd >= 0) close(fd);
    return n;
}

static pid_t start_worker(const sock_listener *l, const ship_wish *w)
{
    pid_t pid = fork();

    if (pid) return pid;
    model m;
    pr_err err = {0};
    control *k = connect_to(l->address);
    int rc = ship_model(&m, w, k, NULL, &err);
    if (rc) fprintf(stderr, "worker: %s\n", err.msg);
    _exit(rc ? 1 : 0);
}

/* Answers a worker until it ends, or kills it after some microseconds. */
static int serve_process(original *o, const ship_wish *w, useconds_t kill_after_us)
{
    head_side h = {.source = o->source};
    sock_listener l;
    int status;

    listen_here(&l);
    pid_t pid = start_worker(&l, w);
    h.k = accept_from(&l);
    cr_assert_eq(pthread_create(&h.thread, NULL, be_head, &h), 0);
    if (kill_after_us) {
        usleep(kill_after_us);
        kill(pid, SIGKILL);
    }
    cr_assert_eq(waitpid(pid, &status, 0), pid);
    pthread_join(h.thread, NULL);
    control_close(h.k);
    sock_listener_close(&l);
    return status;
}

Test(ship, killed_at_any_moment)
{
    static const layer_range layers = {0, 4};
    original o;
    model m;
    size_t n, grown = 0, killed = 0, before = 0;

    open_original(&o, demo);
    ship_wish w = wish_for(&o, &layers, 1);
    w.batch_bytes = 1; /* a journal entry after every tensor */
    for (useconds_t us = 500; us < 60000; us = us * 5 / 4) {
        killed += WIFSIGNALED(serve_process(&o, &w, us));
        n = check_journal(&o);
        grown += n > before;
        before = n;
    }
    cr_assert_gt(killed, 5);
    cr_assert_gt(grown, 1, "no kill came in the middle");
    cr_assert_eq(serve_process(&o, &w, 0), 0);
    cr_assert_eq(ship_well(&o, &w, &m).received_bytes, 0);
    compare(&o, &m, &w);
    model_close(&m);
    close_original(&o);
}

/* --- no room -----------------------------------------------------------------------------------------------
 */
#ifdef __linux__
/* PRIMA_CACHE on a small disk. */
static pid_t small_cache(const char *options)
{
    char path[700];
    pid_t pid = small_disk(options, path);

    setenv("PRIMA_CACHE", path, 1);
    return pid;
}

Test(ship, too_small_a_disk_is_known_before)
{
    static const layer_range layers = {0, 4};
    head_side h = {0};
    original o;
    model m;
    ship_counts n;
    pr_err err = {0};

    pid_t disk = small_cache("size=16M");
    open_original(&o, demo);
    ship_wish w = wish_for(&o, &layers, 1);
    cr_assert_eq(ship(&o, &w, &h, &m, &n, &err), PR_ERESOURCE, "%s", err.msg);
    cr_assert_not_null(strstr(err.msg, "bytes are missing"), "%s", err.msg);
    cr_assert_eq(h.tensors, 0);
    close_original(&o);
    end_disk(disk);
}

/* Somebody else fills the disk after it was looked at. */
static bool fill_disk(head_side *h, const json_t *need)
{
    static char zeros[65536];
    char path[700];
    int fd;

    (void)h;
    snprintf(path, sizeof path, "%s/filler", getenv("PRIMA_CACHE"));
    if (!json_array_size(json_object_get(need, "tensors"))) return false;
    fd = open(path, O_WRONLY | O_CREAT, 0644);
    while (write(fd, zeros, sizeof zeros) > 0) {}
    while (write(fd, zeros, 1) > 0) {}
    close(fd);
    return false;
}

Test(ship, disk_full_on_the_way)
{
    static const layer_range layers = {0, 2};
    head_side h = {.answer = fill_disk};
    char filler[700];
    original o;
    model m;
    ship_counts n;
    pr_err err = {0};

    pid_t disk = small_cache("size=64M");
    open_original(&o, write_large(8 << 20)); /* more than sockets hold */
    ship_wish w = wish_for(&o, &layers, 1);
    cr_assert_eq(ship(&o, &w, &h, &m, &n, &err), PR_ERESOURCE, "%s", err.msg);
    cr_assert_not_null(strstr(err.msg, "still to come"), "%s", err.msg);
    cr_assert_not_null(strstr(err.msg, "No space left"), "%s", err.msg);
    cr_assert_eq(h.failed, PR_ERESOURCE, "the head was not told: %s", h.end.msg);
    snprintf(filler, sizeof filler, "%s/filler", getenv("PRIMA_CACHE"));
    cr_assert_eq(unlink(filler), 0);
    ship_well(&o, &w, &m);
    compare(&o, &m, &w);
    model_close(&m);
    close_original(&o);
    end_disk(disk);
}
#endif

Test(ship, a_file_system_without_room_for_the_whole_length)
{
    static const layer_range layers = {0, 4};
    const struct rlimit limit = {1 << 20, 1 << 20};
    head_side h = {0};
    original o;
    model m;
    pr_err err = {0};

    open_original(&o, demo);
    ship_wish w = wish_for(&o, &layers, 1);
    cr_assert_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
    cr_assert_eq(ship(&o, &w, &h, &m, NULL, &err), PR_ERESOURCE, "%s", err.msg);
    cr_assert_not_null(strstr(err.msg, "sparse file"), "%s", err.msg);
    close_original(&o);
}

/* --- two at once
 * --------------------------------------------------------------------------------------------
 */
typedef struct {
    const original *o;
    const ship_wish *w;
    ship_counts n;
    int rc;
    pr_err err;
} start;

static void *start_one(void *arg)
{
    start *s = arg;
    head_side h = {0};
    model m;

    s->rc = ship(s->o, s->w, &h, &m, &s->n, &s->err);
    if (!s->rc) {
        compare(s->o, &m, s->w);
        model_close(&m);
    }
    return NULL;
}

Test(ship, two_workers_of_one_machine_fetch_once)
{
    static const layer_range layers = {0, 4};
    pthread_t thread[3];
    start s[3];
    original o;
    uint64_t total = 0;

    open_original(&o, demo);
    ship_wish w = wish_for(&o, &layers, 1);
    w.batch_bytes = 1;
    for (size_t i = 0; i < 3; i++) {
        s[i] = (start){.o = &o, .w = &w};
        cr_assert_eq(pthread_create(&thread[i], NULL, start_one, &s[i]), 0);
    }
    for (size_t i = 0; i < 3; i++) {
        pthread_join(thread[i], NULL);
        cr_assert_eq(s[i].rc, PR_OK, "%s", s[i].err.msg);
        total += s[i].n.received_bytes;
    }
    cr_assert_eq(total, hparams_layer_bytes(&o.m.hp, 0, 4) + header_bytes(&o));
    close_original(&o);
}

/* --- hostile peers
 * ------------------------------------------------------------------------------------------
 */
/* Sends `script` instead of an answer: the text of a message, "|" and the number of bulk bytes behind it. */
static bool play(head_side *h, const json_t *need)
{
    const char *bar = strchr(h->script, '|');
    size_t n = bar ? strtoul(bar + 1, NULL, 10) : 0;
    pr_err err = {0};
    json_t *message = json_parse(h->script, bar ? (size_t)(bar - h->script) : strlen(h->script), &err);
    void *bulk = calloc(1, n + 1);

    /* '+': the header is given properly, the tensors are not. */
    if (h->needs == 1 && json_is_true(json_object_get(need, "header")) &&
        json_is_true(json_object_get(message, "later"))) {
        json_decref(message);
        free(bulk);
        return false;
    }
    cr_assert_not_null(message, "%s", err.msg);
    control_send_bulk(h->k, message, bulk, n, NULL);
    free(bulk);
    return true;
}

#define Z16 "0000000000000000"
#define Z64 Z16 Z16 Z16 Z16
static const struct {
    const char *script;
    int code;
} hostile_heads[] = {
    {"{\"type\":\"have\"}", PR_EPEER},
    {"{\"type\":\"what\"}", PR_EPEER},
    {"{\"type\":\"have\",\"tensor\":-1,\"bytes\":-5,\"sha256\":\"" Z64 "\"}", PR_EPEER},
    {"{\"type\":\"have\",\"tensor\":-1,\"bytes\":9223372036854775807,\"sha256\":\"" Z64 "\"}", PR_EPEER},
    {"{\"type\":\"have\",\"tensor\":-1,\"bytes\":100,\"sha256\":\"../../../etc\"}", PR_EPEER},
    {"{\"type\":\"have\",\"tensor\":0,\"bytes\":100,\"sha256\":\"" Z64 "\"}|100", PR_EPEER},
    {"{\"type\":\"have\",\"tensor\":-1,\"bytes\":100,\"sha256\":\"" Z64 "\"}|200", PR_EPEER},
    {"{\"type\":\"stop\"}", PR_EINTERRUPTED},
    {"{\"later\":true,\"type\":\"had\"}", PR_EPEER},
    {"{\"later\":true,\"type\":\"had\",\"differs\":[-1]}", PR_EPEER},
    {"{\"later\":true,\"type\":\"had\",\"differs\":[999999]}", PR_EPEER},
    {"{\"later\":true,\"type\":\"had\",\"differs\":[\"x\"]}", PR_EPEER},
    {"{\"later\":true,\"type\":\"had\",\"differs\":[0]}", PR_EPEER},
    {"{\"later\":true,\"type\":\"had\",\"differs\":[]}", PR_EINTEGRITY},
    {"{\"later\":true,\"type\":\"have\",\"tensor\":-1,\"bytes\":8,\"sha256\":\"" Z64 "\"}|8", PR_EPEER},
    {"{\"later\":true,\"type\":\"have\",\"tensor\":0,\"bytes\":8,\"sha256\":\"" Z64 "\"}|8", PR_EPEER},
    {"{\"later\":true,\"type\":\"have\",\"tensor\":99999,\"bytes\":8,\"sha256\":\"" Z64 "\"}|8", PR_EPEER},
    {"{\"later\":true,\"type\":\"have\",\"tensor\":-9223372036854775808,\"bytes\":8,\"sha256\":\"" Z64
     "\"}|8",
     PR_EPEER},
    {"{\"later\":true,\"type\":\"job\"}", PR_EPEER},
};

Test(ship, hostile_heads)
{
    static const layer_range layers = {1, 2};
    original o;
    model m;

    open_original(&o, demo);
    ship_wish w = wish_for(&o, &layers, 1);
    for (size_t i = 0; i < sizeof hostile_heads / sizeof *hostile_heads; i++) {
        head_side h = {.answer = play, .script = hostile_heads[i].script};
        pr_err err = {0};
        cr_assert_eq(ship(&o, &w, &h, &m, NULL, &err), hostile_heads[i].code, "%s: %s",
                     hostile_heads[i].script, err.msg);
    }
    ship_well(&o, &w, &m);
    compare(&o, &m, &w);
    model_close(&m);
    w.header_sha256 = "../../../../tmp/x";
    head_side h = {0};
    cr_assert_eq(ship(&o, &w, &h, &m, NULL, NULL), PR_EMISMATCH);
    close_original(&o);
}

/* Tensors that look right but for one thing, named by `script`. */
static bool offer(head_side *h, const json_t *need)
{
    json_int_t asked = json_integer_value(json_array_get(json_object_get(need, "tensors"), 0)), index = asked;
    const gguf *g = damaged->m.g;

    if (json_is_true(json_object_get(need, "header"))) return false;
    if (!strcmp(h->script, "unasked")) index = damaged->m.hp.token_embd - gguf_tensor_at(g, 0);
    const gguf_tensor *t = gguf_tensor_at(g, (size_t)index);
    size_t n = t->n_bytes - !strcmp(h->script, "short") + !strcmp(h->script, "long");
    uint8_t *data = calloc(1, n);
    for (int i = 0; i < 2; i++)
        control_send_bulk(h->k,
                          json_pack("{s:s, s:I, s:I, s:s}", "type", "have", "tensor", index, "bytes",
                                    (json_int_t)n, "sha256", Z64),
                          data, n, NULL);
    free(data);
    return true;
}

Test(ship, hostile_tensors)
{
    static const char *const kinds[] = {"unasked", "short", "long", "twice"};
    static const char *const says[] = {"not asked for", "not as many", "not as many", "not asked for"};
    static const layer_range layers = {1, 2};
    original o;
    model m;

    open_original(&o, demo);
    damaged = &o;
    ship_wish w = wish_for(&o, &layers, 1);
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        head_side h = {.answer = offer, .script = kinds[i]};
        pr_err err = {0};
        cr_assert_eq(ship(&o, &w, &h, &m, NULL, &err), PR_EPEER, "%s: %s", kinds[i], err.msg);
        cr_assert_not_null(strstr(err.msg, says[i]), "%s: %s", kinds[i], err.msg);
    }
    ship_well(&o, &w, &m);
    compare(&o, &m, &w);
    model_close(&m);
    close_original(&o);
}

static const char *const bad_needs[] = {
    "{\"type\":\"need\"}",
    "{\"type\":\"need\",\"header\":1,\"tensors\":[],\"held\":[]}",
    "{\"type\":\"need\",\"header\":false,\"tensors\":{},\"held\":[]}",
    "{\"type\":\"need\",\"header\":true,\"tensors\":[-1],\"held\":[]}",
    "{\"type\":\"need\",\"header\":true,\"tensors\":[0,1,99999],\"held\":[]}",
    "{\"type\":\"need\",\"header\":true,\"tensors\":[3,3],\"held\":[]}",
    "{\"type\":\"need\",\"header\":true,\"tensors\":[0.5],\"held\":[]}",
    "{\"type\":\"need\",\"header\":true,\"tensors\":[null],\"held\":[]}",
    "{\"type\":\"need\",\"header\":true,\"tensors\":[],\"held\":[1]}",
    "{\"type\":\"need\",\"header\":true,\"tensors\":[],\"held\":[[0]]}",
    "{\"type\":\"need\",\"header\":true,\"tensors\":[],\"held\":[[0,5]]}",
    "{\"type\":\"need\",\"header\":true,\"tensors\":[],\"held\":[[-1,\"0000000000000000\"]]}",
};

Test(ship, hostile_needs)
{
    original o;
    pr_err err = {0};

    open_original(&o, demo);
    for (size_t i = 0; i < sizeof bad_needs / sizeof *bad_needs; i++) {
        head_side h = {0};
        control *k = start_head(&h, o.source);
        json_t *need = json_parse(bad_needs[i], strlen(bad_needs[i]), &err), *answer;
        cr_assert_not_null(need, "%s", err.msg);
        must(control_send(k, need, &err), &err);
        pthread_join(h.thread, NULL);
        cr_assert_eq(h.end.code, PR_EPEER, "%s: %s", bad_needs[i], h.end.msg);
        h.over = true;
        pthread_join(h.beats, NULL);
        control_shutdown(h.k);
        while (!control_recv(k, &answer, &err)) {
            cr_assert(control_is(answer, "beat"), "something was sent");
            json_decref(answer);
        }
        control_close(k);
        control_close(h.k);
    }
    close_original(&o);
}
