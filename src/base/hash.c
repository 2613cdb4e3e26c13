/* SHA-256 (OpenSSL EVP). The digest of memory cannot fail for a reason a user could cause: EVP reports
 * only our misuse or a broken library, so that ends in abort; reading a file fails like any file. */
#include "src/base/hash.h"
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { DIGEST_BYTES = 32, READ_BYTES = 1 << 20 };

static void must(int ok)
{
    if (ok != 1) {
        fputs("prima: SHA-256 is not available in this OpenSSL\n", stderr);
        abort();
    }
}

static EVP_MD_CTX *sha256_new(void)
{
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();

    must(ctx != NULL);
    must(EVP_DigestInit_ex(ctx, EVP_sha256(), NULL));
    return ctx;
}

static void sha256_end(EVP_MD_CTX *ctx, uint8_t digest[DIGEST_BYTES])
{
    must(EVP_DigestFinal_ex(ctx, digest, NULL));
    EVP_MD_CTX_free(ctx);
}

static void to_hex(const uint8_t digest[DIGEST_BYTES], char out[HASH_HEX_BYTES])
{
    static const char digits[] = "0123456789abcdef";

    for (int i = 0; i < DIGEST_BYTES; i++) {
        out[2 * i] = digits[digest[i] >> 4];
        out[2 * i + 1] = digits[digest[i] & 15];
    }
    out[2 * DIGEST_BYTES] = 0;
}

void hash_sha256_hex(const void *data, size_t n, char out[HASH_HEX_BYTES])
{
    EVP_MD_CTX *ctx = sha256_new();
    uint8_t digest[DIGEST_BYTES];

    must(EVP_DigestUpdate(ctx, data, n));
    sha256_end(ctx, digest);
    to_hex(digest, out);
}

/* The pieces' state is OpenSSL's own. */
hash_pieces *hash_begin(void)
{
    return (hash_pieces *)sha256_new();
}

void hash_add(hash_pieces *h, const void *data, size_t n)
{
    must(EVP_DigestUpdate((EVP_MD_CTX *)h, data, n));
}

void hash_end(hash_pieces *h, char out[HASH_HEX_BYTES])
{
    uint8_t digest[DIGEST_BYTES];

    sha256_end((EVP_MD_CTX *)h, digest);
    to_hex(digest, out);
}

int hash_file_hex(const char *path, char out[HASH_HEX_BYTES], pr_err *err)
{
    int rc = PR_OK, fd;
    uint8_t digest[DIGEST_BYTES];
    uint8_t *buf = malloc(READ_BYTES);
    EVP_MD_CTX *ctx;

    if (!buf) return pr_fail(err, PR_ERESOURCE, "%s: out of memory", path);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        rc = pr_fail_errno(err, PR_ERESOURCE, "%s", path);
        free(buf);
        return rc;
    }
    ctx = sha256_new();
    for (;;) {
        ssize_t got = read(fd, buf, READ_BYTES);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) rc = pr_fail_errno(err, PR_ERESOURCE, "%s: reading", path);
        if (got <= 0) break;
        must(EVP_DigestUpdate(ctx, buf, (size_t)got));
    }
    sha256_end(ctx, digest);
    if (!rc) to_hex(digest, out);
    close(fd);
    free(buf);
    return rc;
}

uint64_t hash_seed(uint64_t a, const char *b)
{
    EVP_MD_CTX *ctx = sha256_new();
    uint8_t digest[DIGEST_BYTES];
    char text[24];
    int n = snprintf(text, sizeof text, "%" PRIu64, a);
    uint64_t seed = 0;

    must(EVP_DigestUpdate(ctx, text, (size_t)n + 1)); /* the NUL parts the two, so 1,"2x" and 12,"x" differ */
    must(EVP_DigestUpdate(ctx, b, strlen(b)));
    sha256_end(ctx, digest);
    for (int i = 0; i < 8; i++) seed |= (uint64_t)digest[i] << (8 * i);
    return seed;
}
