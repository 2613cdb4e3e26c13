/* The order that a worker gets on its standard input: there and back, and orders that are none. */
#include "tests/cmd/launch_rig.h"

TestSuite(launch_order, .init = setup, .fini = teardown, .timeout = 60);

static int read_order(launch_order *o, const char *text)
{
    int fd[2], rc;

    cr_assert_eq(pipe(fd), 0);
    cr_assert_eq(write(fd[1], text, strlen(text)), (ssize_t)strlen(text));
    close(fd[1]);
    err = (pr_err){0};
    rc = launch_order_read(o, fd[0], NULL, sock_deadline(2), &err);
    close(fd[0]);
    return rc;
}

Test(launch_order, order_there_and_back)
{
    launch_order o = {.listen = {"fe80::1%eth0", 9700},
                      .has_key = true,
                      .insecure = true,
                      .key = key,
                      .threads = 7,
                      .isa = "avx2",
                      .model = "/srv/\"models\"/\xc3\xa4.gguf"},
                 got;
    char rest[8] = "";
    int fd[2];

    cr_assert_eq(pipe(fd), 0);
    for (int i = 0; i < 2; i++) {
        cr_assert_eq(launch_order_write(fd[1], &o, &err), PR_OK, "%s", err.msg);
        cr_assert_eq(write(fd[1], "rest", 4), 4);
        cr_assert_eq(launch_order_read(&got, fd[0], NULL, sock_deadline(2), &err), PR_OK, "%s", err.msg);
        cr_expect_str_eq(got.listen.host, o.listen.host);
        cr_expect_eq(got.listen.port, 9700);
        cr_expect(got.insecure && got.threads == 7 && got.has_key == o.has_key);
        if (o.has_key) cr_expect_arr_eq(got.key.psk, key.psk, KEY_BYTES);
        if (o.has_key) cr_expect_str_eq(got.key.id, key.id);
        cr_expect_str_eq(got.isa, o.isa);
        cr_expect_str_eq(got.model, o.model);
        cr_expect_eq(read(fd[0], rest, 4), 4);
        cr_expect_str_eq(rest, "rest", "not a byte more than the line is read");
        o.has_key = false;
    }
    cr_expect_eq(launch_order_read(&got, fd[0], NULL, sock_deadline(0.1), &err), PR_EPEER);
}

#define HEX "a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5"
#define ORDER(listen, key, id, threads, more)                                                                \
    "{\"listen\":" listen ",\"key\":" key ",\"key_id\":" id ",\"insecure\":false,\"threads\":" threads       \
    ",\"isa\":\"\",\"model\":\"\"" more "}\n"

Test(launch_order, orders_that_are_none)
{
    static const struct {
        const char *text;
        int rc;
    } cases[] = {
        {ORDER("\"desk:1\"", "\"" HEX "a5\"", "\"0123\"", "1", ""), PR_OK},
        {ORDER("\"desk:1\"", "null", "null", "0", ""), PR_OK},
        {ORDER("\"desk:1\"", "\"" HEX "a\"", "\"0123\"", "1", ""), PR_EUSAGE},
        {ORDER("\"desk:1\"", "\"" HEX "aX\"", "\"0123\"", "1", ""), PR_EUSAGE},
        {ORDER("\"desk:1\"", "\"" HEX "a5\"", "null", "1", ""), PR_EUSAGE},
        {ORDER("\"desk:1\"", "null", "\"0123\"", "1", ""), PR_EUSAGE},
        {ORDER("\"desk:1\"", "5", "5", "1", ""), PR_EUSAGE}, /* not a plain connection by mistake */
        {ORDER("\"desk:1\"", "\"" HEX "a5\"", "\"0123456789abcdef0\"", "1", ""), PR_EUSAGE},
        {ORDER("\"desk\"", "\"" HEX "a5\"", "\"0123\"", "1", ""), PR_EUSAGE},
        {ORDER("1", "\"" HEX "a5\"", "\"0123\"", "1", ""), PR_EUSAGE},
        {ORDER("\"desk:1\"", "\"" HEX "a5\"", "\"0123\"", "-1", ""), PR_EUSAGE},
        {ORDER("\"desk:1\"", "\"" HEX "a5\"", "\"0123\"", "257", ""), PR_EUSAGE},
        {ORDER("\"desk:1\"", "\"" HEX "a5\"", "\"0123\"", "1", ",\"new\":1"), PR_EUSAGE},
        {"[]\n", PR_EUSAGE},
        {"{}\n", PR_EUSAGE},
        {"\n", PR_EUSAGE},
        {"{\"key\":\"" HEX "a5\n", PR_EUSAGE},
        {"{\"key\":\"" HEX "a5", PR_EPEER}, /* torn */
        {"", PR_EPEER},
    };
    launch_order o;
    char *longest = malloc(10001);

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        cr_expect_eq(read_order(&o, cases[i].text), cases[i].rc, "case %zu: %s", i, err.msg);
        cr_expect_null(strstr(err.msg, "a5a5"), "the key is in a message");
    }
    memset(longest, 'x', 10000);
    longest[10000] = 0;
    cr_expect_eq(read_order(&o, longest), PR_EUSAGE);
    free(longest);
}
