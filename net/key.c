/* The key file. Checks are made on the open descriptor, so that what is checked is what is read; links are
 * followed, because secrets are often mounted as such. */
#include "net/key.h"
#include "src/base/file.h"
#include <errno.h>
#include <fcntl.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/kdf.h>
#include <openssl/rand.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { HEX_DIGITS = 2 * KEY_BYTES, ID_RAW_BYTES = (KEY_ID_BYTES - 1) / 2 };
static const char digits[] = "0123456789abcdef";

/* --- where ------------------------------------------------------------------------------------------------
 */
int key_path(char *out, size_t n, const char *given, pr_err *err)
{
    const char *file = given && *given ? given : getenv("PRIMA_KEY_FILE"), *home = getenv("HOME");
    const char *config = getenv("XDG_CONFIG_HOME");
    int len;

    if (file && !strncmp(file, "~/", 2) && home) len = snprintf(out, n, "%s%s", home, file + 1);
    else if (file && *file) len = snprintf(out, n, "%s", file);
    else if (config && *config == '/') len = snprintf(out, n, "%s/prima/cluster.key", config);
    else if (home && *home) len = snprintf(out, n, "%s/.config/prima/cluster.key", home);
    else return pr_fail(err, PR_EAUTH, "no place for the key file: HOME is not set; set PRIMA_KEY_FILE");
    if (len < 0 || (size_t)len >= n) return pr_fail(err, PR_EAUTH, "the key file's path is too long");
    return PR_OK;
}

/* --- derivation -------------------------------------------------------------------------------------------
 */
static int derive(uint8_t *out, size_t n, const uint8_t raw[KEY_BYTES], const char *purpose, pr_err *err)
{
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_id(EVP_PKEY_HKDF, NULL);
    size_t got = n;
    bool ok = ctx && EVP_PKEY_derive_init(ctx) > 0 && EVP_PKEY_CTX_set_hkdf_md(ctx, EVP_sha256()) > 0 &&
              EVP_PKEY_CTX_set1_hkdf_key(ctx, raw, KEY_BYTES) > 0 &&
              EVP_PKEY_CTX_add1_hkdf_info(ctx, (const unsigned char *)purpose, (int)strlen(purpose)) > 0 &&
              EVP_PKEY_derive(ctx, out, &got) > 0 && got == n;

    EVP_PKEY_CTX_free(ctx);
    return ok ? PR_OK : pr_fail(err, PR_EINTERNAL, "HKDF-SHA256 is not available in this OpenSSL");
}

static int derive_all(cluster_key *out, const uint8_t raw[KEY_BYTES], pr_err *err)
{
    uint8_t id[ID_RAW_BYTES];
    int rc = derive(out->psk, sizeof out->psk, raw, "prima/1 tls psk", err);

    if (!rc) rc = derive(id, sizeof id, raw, "prima/1 key id", err);
    if (rc) return rc;
    for (size_t i = 0; i < ID_RAW_BYTES; i++) {
        out->id[2 * i] = digits[id[i] >> 4];
        out->id[2 * i + 1] = digits[id[i] & 15];
    }
    out->id[KEY_ID_BYTES - 1] = 0;
    return PR_OK;
}

/* --- reading -----------------------------------------------------------------------------------------------
 */
static int check_file(int fd, const char *path, pr_err *err)
{
    struct stat st;

    if (fstat(fd, &st)) return pr_fail_errno(err, PR_EAUTH, "key file %s", path);
    if (!S_ISREG(st.st_mode)) return pr_fail(err, PR_EAUTH, "key file %s: not a regular file", path);
    if (st.st_uid != geteuid())
        return pr_fail(err, PR_EAUTH,
                       "key file %s: owned by user %lu, expected %lu, who runs this; copy it and "
                       "own the copy",
                       path, (unsigned long)st.st_uid, (unsigned long)geteuid());
    if (st.st_mode & 0177)
        return pr_fail(err, PR_EAUTH,
                       "key file %s: mode %04o, expected 0600; `chmod 600 %s`, and make a new key "
                       "if others may have read this one",
                       path, (unsigned)(st.st_mode & 07777), path);
    return PR_OK;
}

static int value_of(char c)
{
    const char *at = c ? strchr(digits, c >= 'A' && c <= 'F' ? c - 'A' + 'a' : c) : NULL;

    return at ? (int)(at - digits) : -1;
}

/* The digits are never quoted in a message: it could be the right key with one digit missing. */
static int parse(uint8_t raw[KEY_BYTES], const char *text, size_t n, const char *path, pr_err *err)
{
    if (n == HEX_DIGITS + 1 && text[HEX_DIGITS] == '\n') n--;
    for (size_t i = 0; n == HEX_DIGITS && i < n; i++) {
        int v = value_of(text[i]);
        if (v < 0) n = i;
        else raw[i / 2] = (uint8_t)(i % 2 ? raw[i / 2] | v : v << 4);
    }
    if (n == HEX_DIGITS) return PR_OK;
    return pr_fail(err, PR_EAUTH,
                   "key file %s: expected %d hexadecimal digits and nothing else; copy it anew, or "
                   "make a key with `prima keygen`",
                   path, HEX_DIGITS);
}

static int read_text(char *text, size_t max, size_t *n, int fd, const char *path, pr_err *err)
{
    for (*n = 0; *n < max;) {
        ssize_t got = read(fd, text + *n, max - *n);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return pr_fail_errno(err, PR_EAUTH, "key file %s: reading", path);
        if (got == 0) break;
        *n += (size_t)got;
    }
    return PR_OK;
}

int key_read(cluster_key *out, const char *path, pr_err *err)
{
    /* O_NONBLOCK: a named pipe in its place must not hold us. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK), rc;
    char text[HEX_DIGITS + 2];
    uint8_t raw[KEY_BYTES];
    size_t n = 0;

    *out = (cluster_key){{0}, {0}};
    if (fd < 0 && errno == ENOENT)
        return pr_fail(err, PR_EAUTH,
                       "key file %s: not there; make one with `prima keygen` and copy it to every "
                       "device",
                       path);
    if (fd < 0) return pr_fail_errno(err, PR_EAUTH, "key file %s", path);
    if (!(rc = check_file(fd, path, err)) && !(rc = read_text(text, sizeof text, &n, fd, path, err)) &&
        !(rc = parse(raw, text, n, path, err)))
        rc = derive_all(out, raw, err);
    close(fd);
    OPENSSL_cleanse(text, sizeof text);
    OPENSSL_cleanse(raw, sizeof raw);
    return rc;
}

/* --- making ------------------------------------------------------------------------------------------------
 */
static int make_folders(const char *file, pr_err *err)
{
    char *path = strdup(file);
    int rc = path ? PR_OK : pr_fail(err, PR_ERESOURCE, "out of memory");

    for (char *c = path ? path + 1 : NULL; c && *c && !rc; c++) {
        if (*c != '/') continue;
        *c = 0;
        if (mkdir(path, 0700) && errno != EEXIST)
            rc = pr_fail_errno(err, PR_ERESOURCE, "%s: making the folder", path);
        *c = '/';
    }
    free(path);
    return rc;
}

static int write_new(const char *path, const char *text, size_t n, pr_err *err)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600), rc;

    if (fd < 0 && errno == EEXIST)
        return pr_fail(err, PR_EAUTH,
                       "key file %s: already there, and a key is never overwritten; remove it or "
                       "choose another place with -o",
                       path);
    if (fd < 0) return pr_fail_errno(err, PR_ERESOURCE, "key file %s: creating", path);
    rc = file_write_all(fd, text, n, path, err);
    if (!rc && (fchmod(fd, 0600) || file_sync_all(fd)))
        rc = pr_fail_errno(err, PR_ERESOURCE, "key file %s", path);
    if (close(fd) && !rc) rc = pr_fail_errno(err, PR_ERESOURCE, "key file %s: closing", path);
    if (rc) unlink(path);
    return rc;
}

int key_create(cluster_key *out, const char *path, pr_err *err)
{
    uint8_t raw[KEY_BYTES];
    char text[HEX_DIGITS + 1];
    int rc;

    *out = (cluster_key){{0}, {0}};
    if (RAND_priv_bytes(raw, sizeof raw) != 1)
        return pr_fail(err, PR_ERESOURCE, "OpenSSL has no random numbers to make a key of");
    for (size_t i = 0; i < KEY_BYTES; i++) {
        text[2 * i] = digits[raw[i] >> 4];
        text[2 * i + 1] = digits[raw[i] & 15];
    }
    text[HEX_DIGITS] = '\n';
    if (!(rc = make_folders(path, err)) && !(rc = derive_all(out, raw, err)))
        rc = write_new(path, text, sizeof text, err);
    if (rc) key_clear(out);
    OPENSSL_cleanse(text, sizeof text);
    OPENSSL_cleanse(raw, sizeof raw);
    return rc;
}

void key_clear(cluster_key *k)
{
    OPENSSL_cleanse(k, sizeof *k);
}
