/* Known SHA-256 answers (FIPS 180-4 examples), files, seeds. */
#include "src/base/file.h"
#include "src/base/hash.h"
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ABC_HASH     "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
#define EMPTY_HASH   "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
#define MILLION_HASH "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"

Test(hash, known_answers)
{
    char hex[HASH_HEX_BYTES];

    hash_sha256_hex("abc", 3, hex);
    cr_assert_str_eq(hex, ABC_HASH);
    hash_sha256_hex("", 0, hex);
    cr_assert_str_eq(hex, EMPTY_HASH);
}

Test(hash, files)
{
    char path[] = "/tmp/prima_hash_XXXXXX", hex[HASH_HEX_BYTES];
    size_t n = 1000000;
    char *a = malloc(n);
    int fd = mkstemp(path);
    pr_err e;

    cr_assert(a && fd >= 0);
    cr_assert_eq(hash_file_hex(path, hex, NULL), 0);
    cr_assert_str_eq(hex, EMPTY_HASH);
    memset(a, 'a', n);
    cr_assert_eq(file_write_all(fd, a, n, path, NULL), 0);
    cr_assert_eq(hash_file_hex(path, hex, NULL), 0);
    cr_assert_str_eq(hex, MILLION_HASH);
    close(fd);
    unlink(path);
    free(a);
    cr_assert_eq(hash_file_hex(path, hex, &e), PR_ERESOURCE);
    cr_assert(strstr(e.msg, path), "%s", e.msg);
    cr_assert_eq(hash_file_hex("/", hex, &e), PR_ERESOURCE);
}

/* Expected values: printf '1\0x' | sha256sum, first 16 digits, bytes reversed. */
Test(hash, seeds)
{
    cr_assert_eq(hash_seed(1u, "x"), 0x0f4fc378ab5e7ce3u);
    cr_assert_eq(hash_seed(0u, ""), 0xd3f3d7a60a0df6e4u);
    cr_assert_eq(hash_seed(18446744073709551615u, "line-7"), 0x3ff833e0cf92569eu);
    cr_assert_neq(hash_seed(1, "2x"), hash_seed(12, "x"));
    cr_assert_neq(hash_seed(0, ""), hash_seed(1, ""));
}
