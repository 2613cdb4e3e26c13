/* Devices that have only their part of the model, as a user makes and runs them: `prima pull --plan
 * --device`, `prima run`, `inspect`, `pull --verify`. What must come out is what the whole file gives; what
 * must never happen is an answer that was computed with a hole. (Over HTTP: tests/pull/device.test.sh.) */
#include "src/model/gguf.h"
#include "tests/cmd/ring_job.h"
#include <fcntl.h>
#include <sys/stat.h>

TestSuite(shard_run, .init = open_dir, .fini = close_dir, .timeout = 120);

enum { DEVICES = 3 };
static char shard_path[DEVICES][512], source[1100];

/* A plan whose devices have their files in DIR/dN. */
static plan *plan_of_shards(uint32_t rounds)
{
    plan *p = new_plan(MODEL, DEVICES, rounds, 4);
    char cwd[1024], name[32];
    struct stat st;

    cr_assert(getcwd(cwd, sizeof cwd) && stat(MODEL, &st) == 0);
    p->model.file_bytes = (uint64_t)st.st_size;
    snprintf(source, sizeof source, "file://%s/%s", cwd, MODEL);
    for (int i = 0; i < DEVICES; i++) {
        snprintf(name, sizeof name, "d%d/demo.gguf", i);
        snprintf(shard_path[i], sizeof shard_path[i], "%s", in_dir(name));
        snprintf(p->device[i].model, sizeof p->device[i].model, "%s", shard_path[i]);
    }
    return p;
}

static prima_result pull(int device)
{
    char name[8];
    const char *dir;

    snprintf(name, sizeof name, "d%d", device);
    dir = in_dir(name);
    return prima_run(
        NULL, (const char *const[]){"pull", "--plan", plan_path, "--device", name, "-o", dir, source, NULL});
}

static void pull_well(int device)
{
    prima_result r = pull(device);

    cr_assert_eq(r.status, 0, "%s", r.err);
}

static uint64_t disk_bytes(const char *path)
{
    struct stat st;

    cr_assert_eq(stat(path, &st), 0, "%s", path);
    return (uint64_t)st.st_blocks * 512;
}

/* Whether this file system stores no holes: then sizes on the disk say nothing. */
static bool has_no_holes(void)
{
    const char *path = in_dir("hole");

    write_file(path, "");
    cr_assert_eq(truncate(path, 1 << 20), 0);
    return disk_bytes(path) > 0;
}

static void copy(const char *from, const char *to, const char *how)
{
    char command[1200];

    snprintf(command, sizeof command, "cp %s '%s' '%s'", how, from, to);
    cr_assert_eq(system(command), 0);
}

static void assert_refused(prima_result r, int status, const char *const words[])
{
    cr_assert_eq(r.status, status, "exit status %d: %s", r.status, r.err);
    for (; *words; words++) cr_assert(strstr(r.err, *words), "does not say '%s': %s", *words, r.err);
}

/* --- what must work ---------------------------------------------------------------------------------- */
/* No whole model anywhere but behind the URL; in one and in two rounds. Each file takes about its share. */
Test(shard_run, a_ring_of_shards_gives_the_bytes_of_the_whole)
{
    make_prompts(12, true);
    run_alone(MODEL);
    for (uint32_t rounds = 1; rounds <= 2; rounds++) {
        uint64_t total = 0;
        save(plan_of_shards(rounds));
        for (int i = 0; i < DEVICES; i++) {
            pull_well(i);
            total += disk_bytes(shard_path[i]);
        }
        /* Pages at the edges of runs, and gaps below 256 KiB (one layer has 205 KiB). */
        if (rounds == 1 && !has_no_holes()) cr_expect_leq(total, disk_bytes(MODEL) * 6 / 5);
        prima_result r = run(plan_path, NULL);
        cr_assert_eq(r.status, 0, "%s", r.err);
        cr_expect(strstr(r.err, "holds only these layers: 0"), "the head does not say so: %s", r.err);
        assert_same("shards");
        cr_expect_eq(access(in_dir("cache/models"), F_OK), -1, "nothing was shipped");
        forget_output();
        for (int i = 0; i < DEVICES; i++) cr_assert_eq(unlink(shard_path[i]), 0);
    }
}

/* A worker whose file is another device's part gets its layers from the head that has them all. */
Test(shard_run, a_worker_with_the_wrong_part_gets_its_layers_from_the_head)
{
    prima_result r;

    make_prompts(8, true);
    run_alone(MODEL);
    save(plan_of_shards(1));
    for (int i = 1; i < DEVICES; i++) pull_well(i);
    cr_assert_eq(rename(shard_path[2], shard_path[1]), 0);
    cr_assert_eq(rename(in_dir("d2/demo.gguf.tensors"), in_dir("d1/demo.gguf.tensors")), 0);
    pull_well(2);
    r = run(plan_path, ARGS("--model", MODEL));
    cr_assert_eq(r.status, 0, "%s", r.err);
    cr_expect(strstr(r.err, "only these layers: 5..7, and blk.2."), "%s", r.err);
    assert_same("shipped");
    cr_expect_eq(access(in_dir("cache/models"), F_OK), 0);
    forget_output();
}

/* A worker dies, and others need its layers: a head with the whole model has them; without, the job ends, and
 * what is finished stays so. */
Test(shard_run, a_worker_is_lost)
{
    prima_result r;
    pid_t head;

    make_prompts(200, true);
    run_alone(MODEL);
    save(plan_of_shards(1));
    for (int i = 0; i < DEVICES; i++) pull_well(i);
    head = start(plan_path, ARGS("--model", MODEL, "--restarts", "0"));
    await_lines(10);
    signal_worker(0, SIGKILL);
    finish(head, "going on without");

    head = start(plan_path, ARGS("--restarts", "0"));
    await_lines(10);
    signal_worker(0, SIGKILL);
    r = prima_wait(head);
    cr_assert_eq(r.status, 6, "exit status %d: %s", r.status, r.err);
    cr_expect(strstr(r.err, "blk.") && strstr(r.err, "--resume"), "%s", r.err);
    r = run(MODEL, ARGS("--ctx", "512", "--resume"));
    cr_assert_eq(r.status, 0, "%s", r.err);
    assert_same("resumed with the whole model");
}

/* --- what must be refused ---------------------------------------------------------------------------- */
/* The head has no more than its part, and a worker asks it for the rest. */
Test(shard_run, a_head_does_not_ship_holes)
{
    make_prompts(2, false);
    save(plan_of_shards(1));
    for (int i = 0; i < DEVICES - 1; i++) pull_well(i);
    copy(shard_path[1], in_dir("elsewhere.gguf"), "");
    plan *p = plan_of_shards(1);
    *p->device[2].model = 0;
    save(p);
    assert_refused(run(plan_path, NULL), 8, ARGS("d2", "blk.5.", "d0/demo.gguf", "whole model"));
    cr_expect_eq(access(out, F_OK) ? 0 : count_lines(out), 0);
}

/* Every way to compute with less than all of it, with the list and without, with holes and with zeros. */
Test(shard_run, nobody_computes_with_a_hole)
{
    static const char *const how[] = {"--sparse=always", "--sparse=never"};
    const char *stray = in_dir("stray.gguf"), *lines = in_dir("lines");

    make_prompts(2, false);
    write_file(lines, "{\"ids\":[1,2,3]}\n");
    save(plan_of_shards(1));
    pull_well(0);
    assert_refused(run(shard_path[0], NULL), 8,
                   ARGS("only these layers: 0..1", "blk.2.", "prima pull --plan"));
    for (int i = 0; i < 2; i++) {
        copy(shard_path[0], stray, how[i]);
        assert_refused(run(stray, NULL), 8,
                       ARGS("stray.gguf", "blk.2.attn_q.weight is not there", "layers: 0..1"));
        assert_refused(prima_run(NULL, ARGS("eval", "logits", stray, lines)), 8, ARGS("blk.2.attn_q.weight"));
        assert_refused(prima_run(NULL, ARGS("run", stray, prompts, "-o", out, "--dry-run")), 8,
                       ARGS("blk.2.attn_q.weight"));
    }
    /* The head of another plan: a layer more. */
    plan *p = plan_of_shards(1);
    p->device[0].window[0].last_layer++;
    p->device[1].window[0].first_layer++;
    save(p);
    assert_refused(run(plan_path, ARGS("--model", stray)), 8, ARGS("blk.2."));
    cr_expect_eq(access(out, F_OK) ? 0 : count_lines(out), 0);
}

Test(shard_run, pulls_that_make_no_sense)
{
    const char *dir = in_dir("d9");
    plan *p = plan_of_shards(1);

    save(p);
    assert_refused(prima_run(NULL, ARGS("pull", "--plan", plan_path, "--device", "d9", "-o", dir, source)), 2,
                   ARGS("no device d9", "d0, d1, d2"));
    p = plan_of_shards(1);
    memset(p->model.header_sha256, 'b', 64);
    save(p);
    assert_refused(pull(1), 5, ARGS("bbbbbbbbbbbb"));
    cr_expect_eq(access(shard_path[1], F_OK), -1);
}

/* Where nobody has the model: the header is enough to plan, and the plan is that of the whole file. */
Test(shard_run, a_plan_from_the_header_alone)
{
    const char *home = in_dir("cluster.yaml"), *dir = in_dir("headers"), *file = in_dir("headers/demo.gguf");
    const char *made[2] = {in_dir("1.yaml"), in_dir("2.yaml")};
    char *text[2];
    prima_result r;

    setenv("SOURCE_DATE_EPOCH", "1700000000", 1);
    plan_free(plan_of_shards(1));
    write_file(home, "schema: prima/cluster/1\ncluster: t\nsecurity: {mode: none}\ndevices:\n"
                     "  - {name: d2-laptop, host: 127.0.0.1, ram: 1GiB, model: m.gguf}\n");
    r = prima_run(NULL, ARGS("pull", "--header", "-o", dir, source));
    cr_assert_eq(r.status, 0, "%s", r.err);
    if (!has_no_holes()) cr_expect_leq(disk_bytes(file), 48 << 10);
    for (int i = 0; i < 2; i++) {
        r = prima_run(NULL, ARGS("plan", home, "-m", i ? file : MODEL, "--profiles",
                                 "datasets/clusters/paper-home", "-o", made[i]));
        cr_assert_eq(r.status, 0, "%s", r.err);
        text[i] = read_file(made[i]);
    }
    cr_expect_str_eq(text[0], text[1]);
    make_prompts(1, false);
    assert_refused(run(file, NULL), 8, ARGS("these layers: none"));
    free(text[0]);
    free(text[1]);
}

/* --- looking at one ------------------------------------------------------------------------------------ */
static json_t *inspect(const char *path)
{
    const char *text = in_dir("inspect");
    prima_result r = prima_run(text, ARGS("inspect", "--json", "-v", path));
    json_t *o = json_load_file(text, 0, NULL);

    cr_assert_eq(r.status, 0, "%s", r.err);
    cr_assert_not_null(o);
    return o;
}

Test(shard_run, inspect_says_what_is_there)
{
    json_t *o, *s, *t;
    size_t i, n = 0;
    prima_result r;
    char *page;

    save(plan_of_shards(1));
    pull_well(1);
    o = inspect(shard_path[1]);
    s = json_object_get(o, "shard");
    cr_expect_str_eq(json_string_value(json_object_get(s, "layers")), "2..4");
    cr_expect_eq(json_integer_value(json_object_get(s, "tensors")), 27);
    cr_expect_eq(json_integer_value(json_object_get(s, "there_bytes")), 3 * 209920);
    cr_expect(json_is_true(json_object_get(s, "listed")));
    json_array_foreach(json_object_get(o, "tensors"), i, t)
    {
        unsigned layer = 99;
        sscanf(json_string_value(json_object_get(t, "name")), "blk.%u.", &layer);
        cr_expect_eq(json_is_true(json_object_get(t, "there")), layer >= 2 && layer <= 4);
        n++;
    }
    cr_expect_eq(n, 74);
    json_decref(o);
    o = inspect(MODEL);
    cr_expect(json_is_null(json_object_get(o, "shard")));
    json_decref(o);
    r = prima_run(in_dir("page"), ARGS("inspect", shard_path[1]));
    page = read_file(in_dir("page"));
    cr_expect(r.status == 0 && strstr(page, "a part of the model: layers 2..4; 629760 of 1819136 bytes"),
              "%s", page);
    free(page);
}

Test(shard_run, verify)
{
    uint8_t c = 0x55;
    int fd;

    save(plan_of_shards(1));
    pull_well(2);
    cr_expect_eq(prima_run(NULL, ARGS("pull", "--verify", shard_path[2])).status, 0);
    fd = open(shard_path[2], O_RDWR);
    cr_assert_eq(pwrite(fd, &c, 1, 1300001), 1); /* in blk.5.ffn_gate.weight */
    close(fd);
    assert_refused(prima_run(NULL, ARGS("pull", "--verify", shard_path[2])), 8,
                   ARGS("blk.5.ffn_gate.weight"));
}
