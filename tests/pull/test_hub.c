/* The hub's answers, in the form of its public documentation (huggingface.co/docs/hub/api, and answers quoted
 * in its client's issues: huggingface_hub #3329, #1158), and the environment variables by the documentation
 * of its client. */
#include "src/base/log.h"
#include "src/pull/hub.h"
#include "tests/common/prima.h"
#include <criterion/criterion.h>
#include <criterion/redirect.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

TestSuite(hub, .timeout = 10);

#define SHA   "d54b4f4ec06dbae558d25b2d1542417cdf9547907342db85eecd05b6e96e88f8"
#define ENTRY "{\"type\":\"file\",\"oid\":\"8b30ad5ba1105ce133477e5ef483d9d4eb24ce41\",\"size\":15644035008,"

/* --- answers ---------------------------------------------------------------------------------------------
 */
static int parse(hub_tree *t, const char *json, pr_err *e)
{
    return hub_tree_parse(t, json, strlen(json), e);
}

Test(hub, a_list_of_files)
{
    static const char page[] =
        "[{\"type\":\"directory\",\"oid\":\"c86d67c722720df4843d5cf40001ecf4c381d5bb\",\"size\":0,\"path\":"
        "\"checkpoints\"},"
        "{\"type\":\"file\",\"oid\":\"b4911cdb1293dd4418f36b617c39cbea04b6abf9\",\"size\":10331,\"path\":"
        "\"README.md\"}," ENTRY "\"lfs\":{\"oid\":\"" SHA
        "\",\"size\":15644035008,\"pointerSize\":136},\"xetHash\":\"0011\","
        "\"path\":\"Q2_K/mixtral-8x7b-instruct-v0.1.Q2_K.gguf\"},"
        "{\"type\":\"file\",\"oid\":\"053209735ad48ed2dd8036dd895b7a1d15b9affb\",\"size\":24499,\"path\":"
        "\"small.GGUF\"},"
        "{\"type\":\"directory\",\"oid\":\"c86d67c722720df4843d5cf40001ecf4c381d5bb\",\"size\":0,\"path\":"
        "\"folder.gguf\"}]";
    static const char more[] =
        "[" ENTRY "\"lfs\":{\"oid\":\"sha256:" SHA "\",\"size\":15644035008},\"path\":\"b.gguf\"}]";
    hub_tree t = {0};
    pr_err e = {0};

    cr_assert_eq(parse(&t, page, &e), PR_OK, "%s", e.msg);
    cr_assert_eq(parse(&t, more, &e), PR_OK, "%s", e.msg);
    cr_assert_eq(t.n, 3);
    cr_expect_str_eq(t.entry[0].path, "Q2_K/mixtral-8x7b-instruct-v0.1.Q2_K.gguf");
    cr_expect_eq(t.entry[0].bytes, 15644035008u);
    cr_expect_str_eq(t.entry[0].sha256, SHA);
    cr_expect_str_eq(t.entry[1].path, "small.GGUF");
    cr_expect_str_eq(t.entry[1].sha256, ""); /* its oid is git's, not a SHA-256 of the file */
    cr_expect_str_eq(t.entry[2].sha256, SHA);
    hub_tree_clear(&t);
    cr_expect_eq(t.n, 0);
}

static const char *const bad[] = {
    "",
    "{}",
    "null",
    "[",
    "[1]",
    "[null]",
    "[{\"path\":\"a.gguf\"}]",
    "[{\"type\":\"file\"}]",
    "[{\"type\":\"file\",\"path\":\"a.gguf\"}]",
    "[{\"type\":\"file\",\"path\":\"a.gguf\",\"size\":-1}]",
    "[{\"type\":\"file\",\"path\":\"a.gguf\",\"size\":\"1\"}]",
    "[{\"type\":\"file\",\"path\":\"a.gguf\",\"size\":1.5}]",
    "[{\"type\":\"file\",\"path\":\"a.gguf\",\"size\":9223372036854775807}]",
    "[{\"type\":\"file\",\"path\":\"a.gguf\",\"size\":1,\"size\":2}]",
    "[{\"type\":\"file\",\"path\":\"../a.gguf\",\"size\":1}]",
    "[{\"type\":\"file\",\"path\":\"/etc/a.gguf\",\"size\":1}]",
    "[{\"type\":\"file\",\"path\":\"b/../../a.gguf\",\"size\":1}]",
    "[{\"type\":\"file\",\"path\":\"b//a.gguf\",\"size\":1}]",
    "[{\"type\":\"file\",\"path\":\"b/a\\\\b.gguf\",\"size\":1}]",
    "[{\"type\":\"file\",\"path\":\"b/a\\nb.gguf\",\"size\":1}]",
    "[{\"type\":\"file\",\"path\":\"b/a.gguf\\u0000.gguf\",\"size\":1}]",
    "[" ENTRY "\"lfs\":{\"oid\":\"" SHA "\",\"size\":1},\"path\":\"a.gguf\"}]",
    "[" ENTRY "\"lfs\":{\"oid\":\"" SHA "\"},\"path\":\"a.gguf\"}]",
    "[" ENTRY "\"lfs\":{\"oid\":\"8b30ad5ba1105ce133477e5ef483d9d4eb24ce41\",\"size\":15644035008},\"path\":"
    "\"a.gguf\"}]",
    "[" ENTRY "\"lfs\":{\"size\":15644035008},\"path\":\"a.gguf\"}]",
    "[] []",
};

/* Not a model, and no reason to refuse the others. */
Test(hub, hidden_files_are_passed_over)
{
    static const char json[] = "[{\"type\":\"file\",\"path\":\"b/._a.gguf\",\"size\":1},"
                               "{\"type\":\"file\",\"path\":\"a.gguf\",\"size\":7}]";
    hub_tree t = {0};
    pr_err e = {0};

    cr_assert_eq(parse(&t, json, &e), PR_OK, "%s", e.msg);
    cr_assert_eq(t.n, 1);
    cr_expect_str_eq(t.entry[0].path, "a.gguf");
    hub_tree_clear(&t);
}

Test(hub, lists_refused)
{
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        hub_tree t = {0};
        pr_err e = {0};

        cr_expect_eq(parse(&t, bad[i], &e), PR_EINTEGRITY, "accepted: %s", bad[i]);
        cr_expect(e.msg[0], "no message: %s", bad[i]);
        hub_tree_clear(&t);
    }
}

static void expect_commit(const char *json, const char *expected)
{
    char commit[HUB_COMMIT_BYTES] = "";
    int rc = hub_commit_parse(commit, json, strlen(json), NULL);

    cr_expect_eq(rc, expected ? PR_OK : PR_EINTEGRITY, "%s", json);
    cr_expect_str_eq(commit, expected ? expected : "", "%s", json);
}

Test(hub, a_commit)
{
    static const char sha[] = "0123456789abcdef0123456789abcdef01234567";

    expect_commit(
        "{\"_id\":\"1\",\"id\":\"a/b\",\"sha\":\"0123456789abcdef0123456789abcdef01234567\",\"siblings\":[]}",
        sha);
    expect_commit("{\"sha\":\"main\"}", NULL);
    expect_commit("{\"sha\":\"0123456789ABCDEF0123456789abcdef01234567\"}", NULL);
    expect_commit("{\"sha\":\"../../../../../../../../../../../../../x\"}", NULL);
    expect_commit("{\"sha\":1}", NULL);
    expect_commit("{}", NULL);
    expect_commit("[]", NULL);
    expect_commit("<html>", NULL);
}

/* --- environment ------------------------------------------------------------------------------------------
 */
static const char *const variables[] = {"HF_TOKEN",    "HF_TOKEN_PATH",  "HF_HOME",
                                        "HF_ENDPOINT", "HF_HUB_OFFLINE", "XDG_CACHE_HOME"};

static const char *clean(void)
{
    const char *dir = test_dir_new();

    for (size_t i = 0; i < sizeof variables / sizeof *variables; i++) unsetenv(variables[i]);
    setenv("HOME", dir, 1);
    return dir;
}

static hub from_env(void)
{
    hub h;
    pr_err e = {0};

    cr_assert_eq(hub_from_env(&h, &e), PR_OK, "%s", e.msg);
    return h;
}

static void expect_token(const char *token, const char *from)
{
    hub h = from_env();

    cr_expect_str_eq(h.token ? h.token : "(none)", token);
    if (from) cr_expect_str_eq(h.token_from, from);
    hub_clear(&h);
}

Test(hub, defaults)
{
    hub h;

    clean();
    h = from_env();
    cr_expect_str_eq(h.endpoint, "https://huggingface.co");
    cr_expect_str_eq(h.origin, "https://huggingface.co");
    cr_expect_null(h.token);
    cr_expect_not(h.offline);
    hub_clear(&h);
    test_dir_remove();
}

/* The last one set counts most. */
Test(hub, where_the_token_is_from)
{
    char command[4200];

    clean();
    snprintf(command, sizeof command, "mkdir -p %s %s %s", in_dir(".cache/huggingface"),
             in_dir("xdg/huggingface"), in_dir("hf"));
    cr_assert_eq(system(command), 0);
    write_file(in_dir(".cache/huggingface/token"), "hf_home\n");
    write_file(in_dir("xdg/huggingface/token"), "hf_xdg");
    write_file(in_dir("hf/token"), "  hf_hf\r\n");
    write_file(in_dir("mine"), "hf_mine\n\n");
    expect_token("hf_home", in_dir(".cache/huggingface/token"));
    setenv("XDG_CACHE_HOME", in_dir("xdg"), 1);
    expect_token("hf_xdg", NULL);
    setenv("HF_HOME", in_dir("hf"), 1);
    expect_token("hf_hf", in_dir("hf/token"));
    setenv("HF_TOKEN_PATH", in_dir("mine"), 1);
    expect_token("hf_mine", in_dir("mine"));
    setenv("HF_TOKEN", " hf_env ", 1);
    expect_token("hf_env", "HF_TOKEN");
    setenv("HF_TOKEN", "", 1); /* as if it was not set */
    expect_token("hf_mine", NULL);
    write_file(in_dir("mine"), "\n");
    expect_token("(none)", NULL);
    test_dir_remove();
}

/* What goes into a header must not end it; and must not be shown. */
Test(hub, no_token)
{
    static const char *const no[] = {"hf_secret\nX-Evil: 1", "hf secret", "hf_secret\x7F",
                                     "hf_secret\xC3\xA9"};
    hub h;
    pr_err e;

    clean();
    for (size_t i = 0; i < sizeof no / sizeof *no; i++) {
        setenv("HF_TOKEN", no[i], 1);
        cr_expect_eq(hub_from_env(&h, &e), PR_EAUTH, "accepted: %s", no[i]);
        cr_expect_null(strstr(e.msg, "secret"), "%s", e.msg);
        cr_expect(strstr(e.msg, "HF_TOKEN"), "%s", e.msg);
    }
    test_dir_remove();
}

Test(hub, a_token_file_that_is_not_there, .init = cr_redirect_stderr)
{
    clean();
    setenv("HF_TOKEN_PATH", in_dir("nothing"), 1);
    expect_token("(none)", NULL);
    test_dir_remove();
}

static const struct {
    const char *endpoint, *origin, *kept; /* origin NULL: refused */
} endpoints[] = {
    {"https://m.example/", "https://m.example", "yes"},
    {"https://m.example/hf//", "https://m.example", "yes"},
    {"https://m.example:8443/hf", "https://m.example:8443", "yes"},
    {"http://127.0.0.1:8000", "http://127.0.0.1:8000", "yes"},
    {"http://localhost", "http://localhost", "yes"},
    {"http://[::1]:80", "http://[::1]:80", "yes"},
    {"http://m.example", "http://m.example", NULL},
    {"http://127.evil.example", "http://127.evil.example", NULL},
    {"http://127.0.0.1.evil.example", "http://127.0.0.1.evil.example", NULL},
    {"http://local", "http://local", NULL},
    {"http://localhost.evil.example", "http://localhost.evil.example", NULL},
    {"http://[::1].evil", "http://[::1].evil", "yes"}, /* no such host can be */
    {"m.example", NULL, NULL},
    {"ftp://m.example", NULL, NULL},
    {"https://", NULL, NULL},
    {"https:///x", NULL, NULL},
    {"https://u:p@m.example", NULL, NULL},
    {"https://m.example/?x", NULL, NULL},
    {"https://m.exam ple", NULL, NULL},
};

/* In the clear over the network a token is not a secret any more. */
Test(hub, endpoints, .init = cr_redirect_stderr)
{
    clean();
    setenv("HF_TOKEN", "hf_x", 1);
    for (size_t i = 0; i < sizeof endpoints / sizeof *endpoints; i++) {
        hub h = {0};
        int rc;

        setenv("HF_ENDPOINT", endpoints[i].endpoint, 1);
        rc = hub_from_env(&h, NULL);
        cr_expect_eq(rc, endpoints[i].origin ? PR_OK : PR_EUSAGE, "%s", endpoints[i].endpoint);
        if (!rc) cr_expect_str_eq(h.origin, endpoints[i].origin);
        if (!rc) cr_expect_eq(h.token != NULL, endpoints[i].kept != NULL, "%s", endpoints[i].endpoint);
        hub_clear(&h);
    }
    test_dir_remove();
}

Test(hub, offline)
{
    static const struct {
        const char *value;
        bool is;
    } cases[] = {{"1", true}, {"ON", true}, {"yes", true}, {"True", true},
                 {"", false}, {"0", false}, {"no", false}, {"2", false}};

    clean();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        hub h;
        setenv("HF_HUB_OFFLINE", cases[i].value, 1);
        h = from_env();
        cr_expect_eq(h.offline, cases[i].is, "%s", cases[i].value);
        hub_clear(&h);
    }
    test_dir_remove();
}

/* What to do is said; the token is not. */
Test(hub, refusals)
{
    hub h = {.endpoint = "https://huggingface.co"};
    pr_err e;

    pr_fail(&e, PR_EAUTH, "HTTP 401");
    cr_expect_eq(hub_refused(&h, "a/b", &e), PR_EAUTH);
    cr_expect(strstr(e.msg, "https://huggingface.co/a/b") && strstr(e.msg, "HF_TOKEN") &&
                  strstr(e.msg, "401"),
              "%s", e.msg);
    h.token = "hf_secret";
    h.token_from = "/home/me/token";
    pr_fail(&e, PR_EAUTH, "HTTP 403");
    cr_expect_eq(hub_refused(&h, "a/b", &e), PR_EAUTH);
    cr_expect(strstr(e.msg, "/home/me/token") && strstr(e.msg, "403") && !strstr(e.msg, "hf_secret"), "%s",
              e.msg);
    cr_expect_eq(hub_refused(&h, "a/b", NULL), PR_EAUTH);
}
