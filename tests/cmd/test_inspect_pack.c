/* prima inspect on a pack, as a user runs it. */
#include "tests/common/data.h"
#include "tests/model/pack_rig.h"
#include <jansson.h>

TestSuite(inspect_pack, .init = rig_setup, .fini = rig_teardown, .timeout = 30);

static char *page_of(const char *path)
{
    prima_result r = prima_run(in_dir("out"), (const char *const[]){"inspect", path, NULL});

    cr_assert_eq(r.status, 0, "%s", r.err);
    return read_file(in_dir("out"));
}

Test(inspect_pack, page)
{
    static const char *const names[] = {".", "layers", "layers.pack"};
    size_t n;
    char bytes[64];

    free(pm_record(0, RIG_SEED, &n));
    snprintf(bytes, sizeof bytes, ": 4 of 6, %zu bytes", 4 * n);
    rig_open_close(0, 3);
    rig_open_close(4, 5);
    for (size_t i = 0; i < 3; i++) {
        char *page = page_of(rig_path(names[i]));
        cr_expect_not_null(strstr(page, "layers here     0..2, 4: 4 of 6, "), "%s", page);
        cr_expect_not_null(strstr(page, bytes), "%s", page);
        cr_expect_not_null(strstr(page, " sealed: "), "%s", page);
        free(page);
    }
    rig_flip(0, false);
    char *page = page_of(rig_path("."));
    cr_expect_not_null(strstr(page, "not sealed"), "%s", page);
    free(page);
}

Test(inspect_pack, json)
{
    rig_open_close(1, 3);
    prima_result r =
        prima_run(in_dir("out"), (const char *const[]){"inspect", "--json", rig_path("."), NULL});
    cr_assert_eq(r.status, 0, "%s", r.err);
    json_t *v = json_load_file(in_dir("out"), 0, NULL);
    cr_assert_not_null(v);
    cr_expect_str_eq(json_string_value(json_object_get(v, "schema")), "prima/inspect/1");
    cr_expect_str_eq(json_string_value(json_object_get(json_object_get(v, "file"), "format")), "pack");
    cr_expect_str_eq(json_string_value(json_object_get(v, "header_sha256")), rig_model.header_sha256);
    cr_expect_eq(json_integer_value(json_object_get(v, "layers")), PM_LAYERS);
    json_t *here = json_object_get(v, "layers_here");
    cr_assert_eq(json_array_size(here), 2);
    cr_expect_eq(json_integer_value(json_array_get(here, 0)), 1);
    cr_expect_eq(json_integer_value(json_array_get(here, 1)), 2);
    cr_expect(json_is_true(json_object_get(v, "sealed")));
    json_decref(v);
}

Test(inspect_pack, damaged)
{
    rig_open_close(0, 1);
    write_file(rig_path("layers"), "prima/pack/1 hello\n");
    prima_result r = prima_run(NULL, (const char *const[]){"inspect", rig_path("."), NULL});
    cr_expect_eq(r.status, 8, "%s", r.err);
    cr_expect_not_null(strstr(r.err, "layers: the first line is not that of a pack"), "%s", r.err);
}
