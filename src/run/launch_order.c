/* The line for a worker, written and read. It is read byte by byte: what comes behind it is somebody else's.
 */
#include "src/run/launch_order.h"
#include "src/base/json.h"
#include "src/base/pool.h"
#include <errno.h>
#include <openssl/crypto.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { LINE_BYTES = 8192, HEX_DIGITS = 2 * KEY_BYTES };
static const char digits[] = "0123456789abcdef";

/* --- writing ------------------------------------------------------------------------------------------- */
static char *order_line(const launch_order *o)
{
    char hex[HEX_DIGITS + 1] = "", listen[SOCK_NAME_BYTES];
    json_t *v;
    char *line;

    for (size_t i = 0; i < KEY_BYTES; i++) {
        hex[2 * i] = digits[o->key.psk[i] >> 4];
        hex[2 * i + 1] = digits[o->key.psk[i] & 15];
    }
    sock_addr_print(listen, &o->listen);
    v = json_pack("{s:s, s:s?, s:s?, s:b, s:i, s:s, s:s}", "listen", listen, "key", o->has_key ? hex : NULL,
                  "key_id", o->has_key ? o->key.id : NULL, "insecure", o->insecure, "threads", o->threads,
                  "isa", o->isa, "model", o->model);
    line = v ? json_line(v) : NULL;
    json_decref(v);
    OPENSSL_cleanse(hex, sizeof hex);
    return line;
}

static int write_all(int fd, const char *text, size_t n, pr_err *err)
{
    for (size_t done = 0; done < n;) {
        ssize_t put = write(fd, text + done, n - done);
        if (put < 0 && errno != EINTR) return pr_fail_errno(err, PR_EPEER, "the worker's standard input");
        if (put > 0) done += (size_t)put;
    }
    return PR_OK;
}

int launch_order_write(int fd, const launch_order *o, pr_err *err)
{
    char *line = order_line(o);
    size_t n;
    int rc;

    if (!line) return pr_fail(err, PR_ERESOURCE, "the order for a worker: out of memory, or not UTF-8");
    n = strlen(line);
    if (!(rc = write_all(fd, line, n, err))) rc = write_all(fd, "\n", 1, err);
    OPENSSL_cleanse(line, n);
    free(line);
    return rc;
}

/* --- reading ------------------------------------------------------------------------------------------- */
static int read_line(char *text, size_t *n, int fd, const wake *stop, uint64_t deadline_ns, pr_err *err)
{
    const sock in = {.fd = fd, .wake = stop, .peer = "standard input"};
    char c = 0;
    int rc;

    for (*n = 0;;) {
        ssize_t got;
        if ((rc = sock_wait(&in, POLLIN, deadline_ns, NULL)))
            return pr_fail(err, rc, "standard input: no order came; --stdio is for `prima run`");
        if ((got = read(fd, &c, 1)) < 0 && errno == EINTR) continue;
        if (got < 0) return pr_fail_errno(err, PR_EPEER, "standard input");
        if (got == 0) return pr_fail(err, PR_EPEER, "standard input ended before an order came");
        if (c == '\n') return PR_OK;
        if (*n == LINE_BYTES) return pr_fail(err, PR_EUSAGE, "standard input: the order is too long");
        text[(*n)++] = c;
    }
}

static int digit(char c)
{
    const char *at = c ? strchr(digits, c) : NULL;
    return at ? (int)(at - digits) : -1;
}

static bool read_key(launch_order *out, const json_t *v)
{
    const char *hex = json_string_value(json_object_get(v, "key"));
    const char *id = json_string_value(json_object_get(v, "key_id"));

    out->has_key = hex && id;
    if (!out->has_key)
        return json_is_null(json_object_get(v, "key")) && json_is_null(json_object_get(v, "key_id"));
    if (strlen(hex) != HEX_DIGITS || strlen(id) >= sizeof out->key.id) return false;
    for (size_t i = 0; i < KEY_BYTES; i++) {
        int high = digit(hex[2 * i]), low = digit(hex[2 * i + 1]);
        if (high < 0 || low < 0) return false;
        out->key.psk[i] = (uint8_t)(high << 4 | low);
    }
    strcpy(out->key.id, id);
    return true;
}

static bool read_text(char *out, size_t n, const json_t *v, const char *name)
{
    const char *s = json_string_value(json_object_get(v, name));

    if (!s || strlen(s) >= n) return false;
    strcpy(out, s);
    return true;
}

static bool read_fields(launch_order *out, const json_t *v)
{
    const json_t *insecure = json_object_get(v, "insecure"), *threads = json_object_get(v, "threads");
    char listen[SOCK_NAME_BYTES];

    if (json_object_size(v) != 7 || !json_is_boolean(insecure) || !json_is_integer(threads)) return false;
    if (json_integer_value(threads) < 0 || json_integer_value(threads) > POOL_MAX_THREADS) return false;
    out->insecure = json_is_true(insecure);
    out->threads = (int)json_integer_value(threads);
    return read_text(listen, sizeof listen, v, "listen") &&
           !sock_addr_parse(&out->listen, listen, true, NULL) &&
           read_text(out->isa, sizeof out->isa, v, "isa") &&
           read_text(out->model, sizeof out->model, v, "model") && read_key(out, v);
}

int launch_order_read(launch_order *out, int fd, const wake *stop, uint64_t deadline_ns, pr_err *err)
{
    char text[LINE_BYTES];
    size_t n = 0;
    json_t *v;
    int rc;

    *out = (launch_order){.threads = 0};
    if (!(rc = read_line(text, &n, fd, stop, deadline_ns, err))) {
        v = json_parse(text, n, NULL);
        if (!read_fields(out, v))
            rc = pr_fail(err, PR_EUSAGE,
                         "standard input: not an order of this version; --stdio is for `prima run`, of the "
                         "same version");
        json_decref(v);
    }
    OPENSSL_cleanse(text, sizeof text);
    return rc;
}
