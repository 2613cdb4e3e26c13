/* The key file: who may read it, what is in it, that it is never overwritten. */
#include "net/key.h"
#include "tests/common/prima.h"
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Bytes 0 to 31, and what HKDF-SHA256 (RFC 5869) makes of them, by Python's hmac:
 *   prk = hmac(32 zero bytes, key); okm = hmac(prk, info + b"\1"), info "prima/1 tls psk", "prima/1 key id"
 */
#define DIGITS "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
#define PSK    "19bfe433ff9150635dceb52fdd276a29abd308425363a677bfc53bbb644a1d60"
#define ID     "81a263de01e3b05a"

static pr_err err;
static cluster_key key;

static void setup(void)
{
    test_dir_new();
}
TestSuite(key, .init = setup, .fini = test_dir_remove, .timeout = 30);

static const char *file_of(const char *text, mode_t mode)
{
    const char *path = in_dir("k");

    write_file(path, text);
    cr_assert_eq(chmod(path, mode), 0);
    err = (pr_err){0};
    return path;
}

static void expect_derived(void)
{
    char psk[2 * KEY_BYTES + 1];

    for (int i = 0; i < KEY_BYTES; i++) sprintf(psk + 2 * i, "%02x", key.psk[i]);
    cr_expect_str_eq(psk, PSK);
    cr_expect_str_eq(key.id, ID);
}

Test(key, reads)
{
    static const char *const same[] = {DIGITS, DIGITS "\n",
                                       "000102030405060708090A0B0C0D0E0F101112131415161718191a1b1C1D1e1F\n"};

    for (size_t i = 0; i < 3; i++) {
        memset(&key, 0xee, sizeof key);
        cr_assert_eq(key_read(&key, file_of(same[i], 0600), &err), PR_OK, "%s", err.msg);
        expect_derived();
    }
    cr_expect_eq(key_read(&key, file_of(DIGITS, 0400), &err), PR_OK, "read-only is stricter: %s", err.msg);
    key_clear(&key);
    for (size_t i = 0; i < sizeof key; i++) cr_assert_eq(((char *)&key)[i], 0);
}

Test(key, open_to_others)
{
    static const mode_t modes[] = {0644, 0640, 0604, 0666, 0602, 0610, 0601, 0700, 0777};

    for (size_t i = 0; i < sizeof modes / sizeof *modes; i++) {
        const char *path = file_of(DIGITS, modes[i]);
        char octal[8];
        sprintf(octal, "%04o", (unsigned)modes[i]);
        cr_expect_eq(key_read(&key, path, &err), PR_EAUTH, "%s", octal);
        cr_expect(strstr(err.msg, path) && strstr(err.msg, octal) && strstr(err.msg, "chmod 600"), "%s",
                  err.msg);
    }
}

Test(key, of_another_user)
{
    const char *path = file_of(DIGITS, 0600);

    if (chown(path, 12345, (gid_t)-1)) cr_skip_test("only root gives a file away");
    cr_expect_eq(key_read(&key, path, &err), PR_EAUTH);
    cr_expect(strstr(err.msg, path) && strstr(err.msg, "12345"), "%s", err.msg);
}

Test(key, malformed)
{
    static const char *const bad[] = {"",
                                      "\n",
                                      "00",
                                      DIGITS "0",
                                      DIGITS "\n\n",
                                      DIGITS "\r\n",
                                      DIGITS " ",
                                      " " DIGITS,
                                      "0x" DIGITS,
                                      "g00102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",
                                      "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1/",
                                      "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1:\n",
                                      "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1\n"};

    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        cr_expect_eq(key_read(&key, file_of(bad[i], 0600), &err), PR_EAUTH, "\"%s\"", bad[i]);
        cr_expect(strstr(err.msg, "64 hexadecimal digits"), "%s", err.msg);
        cr_expect_null(strstr(err.msg, "0405"), "the message must not show the key: %s", err.msg);
    }
}

Test(key, no_file)
{
    cr_expect_eq(key_read(&key, in_dir("none"), &err), PR_EAUTH);
    cr_expect(strstr(err.msg, in_dir("none")) && strstr(err.msg, "prima keygen"), "%s", err.msg);
    cr_expect_eq(key_read(&key, in_dir("."), &err), PR_EAUTH, "a folder");
    cr_assert_eq(mkfifo(in_dir("pipe"), 0600), 0);
    cr_expect_eq(key_read(&key, in_dir("pipe"), &err), PR_EAUTH, "must not wait for a writer");
}

Test(key, create)
{
    cluster_key second;
    struct stat st;
    char *text, *after;

    umask(0);
    cr_assert_eq(key_create(&key, in_dir("a/b/k"), &err), PR_OK, "%s", err.msg);
    cr_assert_eq(stat(in_dir("a/b/k"), &st), 0);
    cr_expect_eq(st.st_mode & 07777, 0600);
    cr_expect_eq(st.st_size, 65);
    cr_assert_eq(stat(in_dir("a/b"), &st), 0);
    cr_expect_eq(st.st_mode & 07777, 0700);
    cr_assert_eq(key_read(&second, in_dir("a/b/k"), &err), PR_OK, "%s", err.msg);
    cr_expect(!memcmp(&key, &second, sizeof key), "what was created is what is read");
    text = read_file(in_dir("a/b/k"));
    cr_expect_eq(key_create(&second, in_dir("a/b/k"), &err), PR_EAUTH);
    cr_expect(strstr(err.msg, "never overwritten"), "%s", err.msg);
    after = read_file(in_dir("a/b/k"));
    cr_expect_str_eq(after, text);
    free(after);
    free(text);
    cr_assert_eq(key_create(&second, in_dir("other"), &err), PR_OK);
    cr_expect(memcmp(&key, &second, sizeof key), "two keys are two");
}

Test(key, create_follows_no_dangling_link)
{
    cr_assert_eq(symlink(in_dir("elsewhere"), in_dir("link")), 0);
    cr_expect_eq(key_create(&key, in_dir("link"), &err), PR_EAUTH);
    cr_expect_eq(access(in_dir("elsewhere"), F_OK), -1);
}

Test(key, place)
{
    char path[64];

    setenv("HOME", "/h", 1);
    unsetenv("XDG_CONFIG_HOME");
    unsetenv("PRIMA_KEY_FILE");
    cr_expect_eq(key_path(path, sizeof path, NULL, &err), PR_OK);
    cr_expect_str_eq(path, "/h/.config/prima/cluster.key");
    setenv("XDG_CONFIG_HOME", "/x", 1);
    cr_expect_eq(key_path(path, sizeof path, "", &err), PR_OK);
    cr_expect_str_eq(path, "/x/prima/cluster.key");
    setenv("PRIMA_KEY_FILE", "/p/k", 1);
    cr_expect_eq(key_path(path, sizeof path, NULL, &err), PR_OK);
    cr_expect_str_eq(path, "/p/k");
    cr_expect_eq(key_path(path, sizeof path, "~/k", &err), PR_OK);
    cr_expect_str_eq(path, "/h/k");
    cr_expect_eq(key_path(path, 5, "/12345", &err), PR_EAUTH);
    unsetenv("PRIMA_KEY_FILE");
    unsetenv("XDG_CONFIG_HOME");
    unsetenv("HOME");
    cr_expect_eq(key_path(path, sizeof path, NULL, &err), PR_EAUTH);
}
