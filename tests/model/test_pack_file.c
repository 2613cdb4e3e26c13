/* Packs on disk: what is built is compared with pack_model.h byte by byte, and found again, believed,
 * doubted, mended. */
#include "src/model/pack_file_journal.h"
#include "tests/model/pack_rig.h"
#include <criterion/parameterized.h>
#include <sys/mman.h>

TestSuite(pack_file, .init = rig_setup, .fini = rig_teardown, .timeout = 30);

/* --- building ------------------------------------------------------------------------------------------ */
Test(pack_file, holds_what_was_asked_for_at_fixed_places)
{
    pack_file *f = rig_open(1, 3);
    struct stat st;
    size_t n, sum = 0;

    cr_expect_str_eq(pack_file_path(f), rig_path("layers.pack"));
    rig_expect_layers(1, 3);
    for (uint32_t i = 0; i < PM_LAYERS; i++) {
        free(pm_record(i, RIG_SEED, &n));
        cr_expect_eq(pack_file_at(f, i), sum);
        cr_expect_eq(pack_file_layout(f, i)->bytes, n);
        sum += n;
    }
    cr_assert_eq(stat(rig_path("layers.pack"), &st), 0);
    cr_expect_eq((size_t)st.st_size, sum);
    cr_expect_leq((size_t)st.st_blocks * 512, 2 * n + 65536, "other layers take room on the disk");
    pack_file_close(f);
}

Test(pack_file, journal_has_the_digest_of_each_record)
{
    char sha[HASH_HEX_BYTES], start[128];
    size_t n;

    rig_open_close(0, 2);
    cr_expect_eq(rig_count("prima/pack/1 "), 1);
    for (uint32_t i = 0; i < 2; i++) {
        uint8_t *record = pm_record(i, RIG_SEED, &n);
        hash_sha256_hex(record, n, sha);
        snprintf(start, sizeof start, "layer %u %zu %s ", i, n, sha);
        cr_expect_eq(rig_count(start), 1, "%s", start);
        free(record);
    }
    cr_expect_eq(rig_count("layer "), 2);
}

Test(pack_file, several_ranges_and_more_later)
{
    const uint32_t first[] = {0, 3}, end[] = {1, 5};
    pack_file_options o = {.dir = in_dir("packs"), .label = "test"};
    pack_file *f;
    pr_err err = {0};

    cr_assert_eq(pack_file_open(&f, &rig_model, first, end, 2, &o, rig_pool, NULL, &err), PR_OK, "%s",
                 err.msg);
    pack_file_close(f);
    cr_expect_eq(rig_count("layer "), 3);
    rig_open_close(0, PM_LAYERS);
    cr_expect_eq(rig_count("layer "), PM_LAYERS);
    rig_expect_layers(0, PM_LAYERS);
}

/* Records that are written in many pieces, none of which ends where a page ends. */
Test(pack_file, large_matrices_come_in_pieces)
{
    pr_err err = {0};

    pm_ff = 32 * 1031;
    pm_layers = 2;
    pm_write(in_dir("large.gguf"), RIG_SEED);
    model_close(&rig_model);
    cr_assert_eq(model_open(&rig_model, in_dir("large.gguf"), &err), PR_OK, "%s", err.msg);
    rig_open_close(0, 2);
    rig_expect_layers(0, 2);
}

/* The data of all other layers cannot even be read. */
Test(pack_file, other_layers_tensors_are_not_touched)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);

    for (size_t i = 0; i < gguf_n_tensors(rig_model.g); i++) {
        const gguf_tensor *t = gguf_tensor_at(rig_model.g, i);
        uintptr_t first = pm_align((uintptr_t)t->data, page),
                  end = ((uintptr_t)t->data + t->n_bytes) / page * page;
        bool ours = !strncmp(t->name, "blk.2.", 6) || !strncmp(t->name, "blk.3.", 6);
        if (!ours && end > first) cr_assert_eq(mprotect((void *)first, end - first, PROT_NONE), 0);
    }
    rig_open_close(2, 4);
    rig_open_close(2, 4);
    rig_expect_layers(2, 4);
}

Test(pack_file, no_layers_at_all)
{
    rig_open_close(0, 0);
    cr_expect_eq(rig_count("layer "), 0);
}

Test(pack_file, folder_in_the_cache)
{
    pack_file_options o = {0};
    uint32_t first = 0, end = 1;
    pack_file *f;
    pr_err err = {0};

    setenv("PRIMA_CACHE", in_dir("cache"), 1);
    cr_assert_eq(pack_file_open(&f, &rig_model, &first, &end, 1, &o, rig_pool, NULL, &err), PR_OK, "%s",
                 err.msg);
    cr_expect_eq(strncmp(pack_file_path(f), in_dir("cache/packs/"), strlen(in_dir("cache/packs/"))), 0);
    pack_file_close(f);
}

Test(pack_file, a_folder_whose_place_is_not_there)
{
    pack_file *f;
    pr_err err;

    cr_assert_eq(rig_try(&f, in_dir("not/mounted"), 0, 1, false, &err), PR_ERESOURCE);
    cr_expect_not_null(strstr(err.msg, "not/mounted"), "%s", err.msg);
}

/* --- found again --------------------------------------------------------------------------------------- */
Test(pack_file, a_second_start_writes_nothing_and_reads_no_record)
{
    rig_open_close(0, 3);
    char *before = read_file(rig_path("layers")), *after;
    rig_flip(rig_at(1) + 5000, true); /* nobody could know */
    rig_open_close(0, 3);
    after = read_file(rig_path("layers"));
    cr_expect_str_eq(after, before);
    cr_expect_not(rig_has_layer(rig_path("layers.pack"), 1, RIG_SEED));
    free(before);
    free(after);
}

Test(pack_file, verify_reads_all_in_any_case)
{
    pack_file *f;
    pr_err err;

    rig_open_close(0, 3);
    rig_flip(rig_at(1) + 5000, true);
    cr_assert_eq(rig_try(&f, NULL, 0, 3, true, &err), PR_OK, "%s", err.msg);
    pack_file_close(f);
    rig_expect_layers(0, 3);
    cr_expect_eq(rig_count("lost 1"), 1);
    cr_expect_eq(rig_count("lost "), 1);
}

ParameterizedTestParameters(pack_file, a_flipped_bit_is_found)
{
    static uint64_t at[] = {0, 4096, 300000, 700000};
    return cr_make_param_array(uint64_t, at, 4);
}
ParameterizedTest(uint64_t *at, pack_file, a_flipped_bit_is_found)
{
    rig_open_close(0, 4);
    rig_flip(rig_at(2) + *at, false);
    rig_open_close(0, 4);
    rig_expect_layers(0, 4);
    cr_expect_eq(rig_count("lost "), 1);
    cr_expect_eq(rig_count("lost 2\n"), 1);
    cr_expect_eq(rig_count("doubt "), 4);
    /* Compared once: after that all is believed again. */
    uint64_t n = rig_size(rig_path("layers"));
    rig_open_close(0, 4);
    cr_expect_eq(rig_size(rig_path("layers")), n);
}

/* Whoever did not ask for a damaged layer does not read it; it stays doubted until somebody does. */
Test(pack_file, doubt_outlives_those_who_do_not_care)
{
    rig_open_close(0, 4);
    rig_flip(rig_at(3) + 9000, false);
    rig_open_close(0, 2);
    cr_expect_not(rig_has_layer(rig_path("layers.pack"), 3, RIG_SEED));
    rig_open_close(3, 4);
    rig_expect_layers(0, 4);
}

ParameterizedTestParameters(pack_file, a_truncated_file_is_mended)
{
    static uint64_t length[] = {0, 1, 1000000, 2000001};
    return cr_make_param_array(uint64_t, length, 4);
}
ParameterizedTest(uint64_t *length, pack_file, a_truncated_file_is_mended)
{
    rig_open_close(0, PM_LAYERS);
    cr_assert_eq(truncate(rig_path("layers.pack"), (off_t)*length), 0);
    rig_open_close(0, PM_LAYERS);
    rig_expect_layers(0, PM_LAYERS);
}

Test(pack_file, a_longer_file_is_mended)
{
    rig_open_close(0, 2);
    uint64_t n = rig_size(rig_path("layers.pack"));
    cr_assert_eq(truncate(rig_path("layers.pack"), (off_t)n + 12345), 0);
    rig_open_close(0, 2);
    cr_expect_eq(rig_size(rig_path("layers.pack")), n);
    rig_expect_layers(0, 2);
}

Test(pack_file, a_lost_pack_is_built_again)
{
    rig_open_close(0, 2);
    cr_assert_eq(unlink(rig_path("layers.pack")), 0);
    rig_open_close(0, 2);
    rig_expect_layers(0, 2);
}

Test(pack_file, a_lost_journal_is_built_again)
{
    rig_open_close(0, 2);
    cr_assert_eq(unlink(rig_path("layers")), 0);
    rig_open_close(0, 2);
    rig_expect_layers(0, 2);
    cr_expect_eq(rig_count("layer "), 2);
}

/* --- another model with the same header ---------------------------------------------------------------- */
static void become_another_model(void)
{
    char before[65];
    pr_err err = {0};

    memcpy(before, rig_model.header_sha256, sizeof before);
    pm_write(in_dir("other.gguf"), RIG_SEED + 1);
    model_close(&rig_model);
    cr_assert_eq(model_open(&rig_model, in_dir("other.gguf"), &err), PR_OK, "%s", err.msg);
    cr_assert_str_eq(rig_model.header_sha256, before);
}

Test(pack_file, another_model_begins_anew)
{
    rig_open_close(0, 4);
    become_another_model();
    rig_open_close(1, 3);
    for (uint32_t i = 1; i < 3; i++)
        cr_expect(rig_has_layer(rig_path("layers.pack"), i, RIG_SEED + 1), "layer %u", i);
    cr_expect_eq(rig_count("layer "), 2, "the other layers are still said to be there");
}

Test(pack_file, another_model_leaves_a_pack_in_use_alone)
{
    pack_file *f = rig_open(0, 4), *other;
    pr_err err;

    become_another_model();
    cr_assert_eq(rig_try(&other, NULL, 1, 3, false, &err), PR_ERESOURCE);
    cr_expect_not_null(strstr(err.msg, "in use by another process"), "%s", err.msg);
    cr_expect_not_null(strstr(err.msg, "--pack-dir"), "%s", err.msg);
    rig_expect_layers(0, 4);
    /* Also after that failed attempt the first one's hold of it stands. */
    cr_assert_eq(rig_try(&other, NULL, 1, 3, false, &err), PR_ERESOURCE);
    rig_expect_layers(0, 4);
    pack_file_close(f);
    cr_assert_eq(rig_try(&other, NULL, 1, 3, false, &err), PR_OK, "%s", err.msg);
    pack_file_close(other);
}

/* --- hostile journals ---------------------------------------------------------------------------------- */
#define SHA64 "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
static const struct {
    const char *what, *text;
    size_t n; /* of the text, where it holds NULs */
    bool append;
} bad_journals[] = {
    {"empty", "", 0, false},
    {"one newline", "\n", 0, false},
    {"no newline at all", "prima/pack/1", 0, false},
    {"another header", "prima/pack/1 " SHA64 " 1 6\nlayer 0 1 " SHA64 " 0123456789abcdef\n", 0, false},
    {"of parts", "prima/parts/1 " SHA64 "\n", 0, false},
    {"torn", "layer 3 77", 0, true},
    {"NULs", "layer 3\0\0\0\n\0\n", 14, true},
    {"a layer that no model has", "layer 4294967297 1 " SHA64 " 0123456789abcdef\n", 0, true},
    {"a layer of another size", "layer 1 4096 " SHA64 " 0123456789abcdef\n", 0, true},
    {"another digest", "layer 1 " SHA64 "\n", 0, true},
    {"negative", "lost -1\n", 0, true},
    {"spaces", "lost  1\nlost 1 \n", 0, true},
    {"leading zero", "doubt 01\n", 0, true},
    {"seal of another time", "seal 12\n", 0, true},
    {"seal beyond time", "seal 99999999999999999999\n", 0, true},
    {"all lost", "lost 0\nlost 1\nlost 2\nlost 5\n", 0, true},
    {"garbage, and then a loss", "hello\nlost 1\n", 0, true},
    {"doubt of what is not there", "doubt 5\nlost 1\n", 0, true},
    {"carriage returns", "lost 1\r\n", 0, true},
};

ParameterizedTestParameters(pack_file, any_journal_is_survived)
{
    static size_t which[sizeof bad_journals / sizeof *bad_journals];
    for (size_t i = 0; i < sizeof which / sizeof *which; i++) which[i] = i;
    return cr_make_param_array(size_t, which, sizeof which / sizeof *which);
}
ParameterizedTest(size_t *which, pack_file, any_journal_is_survived)
{
    const char *text = bad_journals[*which].text;
    size_t n = bad_journals[*which].n ? bad_journals[*which].n : strlen(text);

    rig_open_close(0, 3);
    int fd = open(rig_path("layers"), O_WRONLY | (bad_journals[*which].append ? O_APPEND : O_TRUNC));
    cr_assert_eq(write(fd, text, n), (ssize_t)n);
    close(fd);
    rig_open_close(0, 3);
    rig_expect_layers(0, 3);
    uint64_t size = rig_size(rig_path("layers"));
    rig_open_close(0, 3);
    cr_expect_eq(rig_size(rig_path("layers")), size, "%s: not mended for good", bad_journals[*which].what);
}

/* The lines behind a foreign one may have said that a layer is lost. */
Test(pack_file, a_journal_that_was_cut_is_doubted)
{
    rig_open_close(0, 3);
    rig_flip(rig_at(1) + 5000, true);
    int fd = open(rig_path("layers"), O_WRONLY | O_APPEND);
    cr_assert_eq(write(fd, "hello\nlost 1\n", 13), 13);
    close(fd);
    rig_open_close(0, 3);
    rig_expect_layers(0, 3);
}

/* A journal cut anywhere, as a crash of the machine may leave it. */
Test(pack_file, a_journal_cut_anywhere)
{
    rig_open_close(0, 2);
    char *text = read_file(rig_path("layers"));
    size_t n = strlen(text);

    for (size_t cut = 0; cut < n; cut += 37) {
        int fd = open(rig_path("layers"), O_WRONLY | O_TRUNC);
        cr_assert_eq(write(fd, text, cut), (ssize_t)cut);
        close(fd);
        rig_open_close(0, 2);
        rig_expect_layers(0, 2);
    }
    free(text);
}

/* The longest numbers that fit, and the next ones. */
Test(pack_file, limits_of_the_journals_numbers)
{
    static const char head[] = "prima/pack/1 " SHA64 " 1 4096\n";
    static const char *const good[] = {"layer 4095 281474976710656 " SHA64 " 0123456789abcdef\n",
                                       "seal 9223372036854775807\n"};
    static const char *const bad[] = {"layer 4096 1 " SHA64 " 0123456789abcdef\n",
                                      "layer 0 281474976710657 " SHA64 " 0123456789abcdef\n",
                                      "seal 9223372036854775808\n"};
    char text[512];
    pack_journal j;

    for (size_t i = 0; i < 2; i++) {
        snprintf(text, sizeof text, "%s%s", head, good[i]);
        cr_assert_eq(pack_journal_parse(&j, text, strlen(text), NULL), PR_OK);
        cr_expect_eq(j.n_read, strlen(text), "%s", good[i]);
        pack_journal_clear(&j);
    }
    for (size_t i = 0; i < 3; i++) {
        snprintf(text, sizeof text, "%s%s", head, bad[i]);
        cr_assert_eq(pack_journal_parse(&j, text, strlen(text), NULL), PR_OK);
        cr_expect_eq(j.n_read, strlen(head), "%s", bad[i]);
        pack_journal_clear(&j);
    }
    cr_expect_eq(pack_journal_parse(&j, "prima/pack/1 " SHA64 " 1 4097\n", 85, NULL), PR_EINTEGRITY);
}

/* --- reading ------------------------------------------------------------------------------------------- */
Test(pack_file, parts_of_a_record_are_read)
{
    static const size_t at[] = {0, 1, 4095, 4096, 123457};
    pack_file *f = rig_open(2, 4);
    pr_err err = {0};
    size_t n;

    for (uint32_t layer = 2; layer < 4; layer++) {
        uint8_t *expected = pm_record(layer, RIG_SEED, &n), *got = malloc(n);
        for (size_t i = 0; i < sizeof at / sizeof *at; i++) {
            memset(got, 0xAA, n);
            cr_assert_eq(pack_file_read(f, layer, at[i], n - at[i], got, &err), PR_OK, "%s", err.msg);
            cr_expect(!memcmp(got, expected + at[i], n - at[i]));
            cr_assert_eq(pack_file_read(f, layer, at[i], 7, got, &err), PR_OK, "%s", err.msg);
            cr_expect(!memcmp(got, expected + at[i], 7));
        }
        cr_expect_eq(pack_file_read(f, layer, n, 0, got, &err), PR_OK);
        free(got);
        free(expected);
    }
    pack_file_close(f);
}

Test(pack_file, reading_a_file_that_has_become_shorter)
{
    pack_file *f = rig_open(2, 4);
    uint8_t got[100];
    pr_err err = {0};

    cr_assert_eq(truncate(rig_path("layers.pack"), (off_t)rig_at(3) + 50), 0);
    cr_expect_eq(pack_file_read(f, 3, 0, 100, got, &err), PR_EINTEGRITY);
    cr_expect_not_null(strstr(err.msg, "layer 3"), "%s", err.msg);
    pack_file_close(f);
}

/* --- facts --------------------------------------------------------------------------------------------- */
Test(pack_file, room_is_known_before_anything_is_made)
{
    const uint32_t first = 1, end = 4;
    pack_file_options o = {.dir = in_dir("packs")};
    pack_file_room r;
    pr_err err = {0};
    size_t n;

    free(pm_record(0, RIG_SEED, &n));
    cr_assert_eq(pack_file_check_room(&r, &rig_model, &first, &end, 1, &o, &err), PR_OK, "%s", err.msg);
    cr_expect_eq(r.wanted_bytes, 3 * n);
    cr_expect_eq(r.here_bytes, 0);
    cr_expect_gt(r.free_bytes, 0);
    cr_expect_eq(access(in_dir("packs"), F_OK), -1, "a folder was made");
    rig_open_close(0, 2);
    cr_assert_eq(pack_file_check_room(&r, &rig_model, &first, &end, 1, &o, &err), PR_OK, "%s", err.msg);
    cr_expect_eq(r.wanted_bytes, 3 * n);
    cr_expect_eq(r.here_bytes, n);
}

Test(pack_file, about)
{
    pack_file_facts x;
    pr_err err = {0};
    size_t n;

    free(pm_record(0, RIG_SEED, &n));
    rig_open_close(0, 1);
    rig_open_close(3, 5);
    cr_assert_eq(pack_file_about(&x, rig_path("layers"), &err), PR_OK, "%s", err.msg);
    cr_expect_str_eq(x.header_sha256, rig_model.header_sha256);
    cr_expect_eq(x.layout, 1);
    cr_expect_eq(x.n_layers, PM_LAYERS);
    cr_expect_eq(x.n_here, 3);
    cr_expect_eq(x.bytes_here, 3 * n);
    cr_expect(!memcmp(x.here, (uint8_t[]){1, 0, 0, 1, 1, 0}, 6));
    cr_expect(x.sealed);
    pack_file_facts_clear(&x);
    rig_flip(5, false);
    cr_assert_eq(pack_file_about(&x, rig_path(""), &err), PR_OK, "%s", err.msg);
    cr_expect_eq(x.n_here, 3);
    cr_expect_not(x.sealed);
    pack_file_facts_clear(&x);
    cr_expect_eq(pack_file_about(&x, in_dir("m.gguf"), &err), PR_EINTEGRITY);
    cr_expect_eq(pack_file_about(&x, in_dir("nothing"), &err), PR_ERESOURCE);
}
