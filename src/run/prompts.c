/* The prompts file: read once from end to end, every line checked and then forgotten but for a small record
 * (where it is, its SHA-256, its id). A line is read and parsed again when its turn comes, and refused if it
 * is no longer the same. What cannot be read twice (stdin, a pipe) is first copied to a temporary file
 * without a name. */
#include "src/run/prompts.h"
#include "src/base/file.h"
#include "src/base/hash.h"
#include "src/run/lines.h"
#include "src/run/request.h"
#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { SHA_BYTES = 32 };

typedef struct {
    uint64_t offset; /* of the text: behind a BOM */
    uint32_t n;      /* bytes without the line end */
    bool bad;
    size_t line; /* 1-based */
    size_t id;   /* offset in ids */
    uint8_t sha256[SHA_BYTES];
} record;

struct prompts {
    int fd;
    char *path; /* for messages */
    prompts_options options;
    record *rec;
    size_t n, cap, n_bad, total_tokens, longest;
    char *ids; /* NUL-terminated, one behind the other */
    size_t ids_n, ids_cap;
    uint32_t *table; /* index + 1 by hash of the id, 0 = free; cap_table is a power of 2, at most half full */
    size_t cap_table;
    uint64_t bytes;
    char sha256[HASH_HEX_BYTES];
};

static void sha_from_hex(uint8_t out[SHA_BYTES], const char *hex)
{
    for (int i = 0; i < SHA_BYTES; i++) {
        unsigned v = 0;
        sscanf(hex + 2 * i, "%2x", &v);
        out[i] = (uint8_t)v;
    }
}

static void sha_to_hex(char *hex, const uint8_t sha[SHA_BYTES])
{
    for (int i = 0; i < SHA_BYTES; i++) snprintf(hex + 2 * i, 3, "%02x", sha[i]);
}

/* --- ids ------------------------------------------------------------------------------------- */

static const char *id_of(const prompts *p, size_t index)
{
    return p->ids + p->rec[index].id;
}

/* The place of id in the table: its own or the free one where it belongs. */
static size_t place_of(const prompts *p, const char *id)
{
    size_t at = (size_t)hash_seed(0, id) & (p->cap_table - 1);

    while (p->table[at] && strcmp(id_of(p, p->table[at] - 1), id) != 0) at = (at + 1) & (p->cap_table - 1);
    return at;
}

static bool grow_table(prompts *p)
{
    size_t cap = p->cap_table ? 2 * p->cap_table : 1024;
    uint32_t *table = calloc(cap, sizeof *table);

    if (!table) return false;
    free(p->table);
    p->table = table;
    p->cap_table = cap;
    for (size_t i = 0; i < p->n; i++) p->table[place_of(p, id_of(p, i))] = (uint32_t)(i + 1);
    return true;
}

/* items with room for at least n of `size` bytes; NULL when memory is gone (they are then as they were). */
static void *grown(void *items, size_t *cap, size_t n, size_t size)
{
    size_t wanted = *cap ? *cap : 1024;

    if (n <= *cap) return items;
    while (wanted < n) wanted *= 2;
    if (!(items = realloc(items, wanted * size))) return NULL;
    *cap = wanted;
    return items;
}

static bool make_room(prompts *p, size_t id_bytes)
{
    record *rec = grown(p->rec, &p->cap, p->n + 1, sizeof *rec);
    char *ids;

    if (!rec) return false;
    p->rec = rec;
    if (!(ids = grown(p->ids, &p->ids_cap, p->ids_n + id_bytes, 1))) return false;
    p->ids = ids;
    return 2 * (p->n + 1) <= p->cap_table || grow_table(p);
}

/* Append the record of r and its id. */
static int add_record(prompts *p, const request *r, uint64_t offset, size_t n, pr_err *err)
{
    size_t id_n = strlen(r->id) + 1, place;
    request_value shown;
    record *rec;

    if (!make_room(p, id_n))
        return pr_fail(err, PR_ERESOURCE, "%s: out of memory at line %zu", p->path, r->line);
    place = place_of(p, r->id);
    if (p->table[place])
        return pr_fail(err, PR_EUSAGE, "%s: line %zu has the id of line %zu, \"%s\"; ids must be unique",
                       p->path, r->line, p->rec[p->table[place] - 1].line, request_shown(r->id, &shown));
    rec = &p->rec[p->n];
    *rec = (record){offset, (uint32_t)n, r->error.code != REQ_OK, r->line, p->ids_n, {0}};
    sha_from_hex(rec->sha256, r->input_sha256);
    memcpy(p->ids + p->ids_n, r->id, id_n);
    p->ids_n += id_n;
    p->table[place] = (uint32_t)++p->n;
    return PR_OK;
}

/* --- reading --------------------------------------------------------------------------------- */

/* Copy everything from fd to a temporary file that has no name any more; *out is its descriptor. */
static int spool(int *out, int fd, const char *path, pr_err *err)
{
    const char *dir = getenv("TMPDIR");
    char name[4096];
    char *buf = malloc(1 << 16);
    int rc = PR_OK, copy = -1;

    if (!buf) return pr_fail(err, PR_ERESOURCE, "%s: out of memory", path);
    snprintf(name, sizeof name, "%s/prima-prompts-XXXXXX", dir && *dir ? dir : "/tmp");
    copy = mkstemp(name);
    if (copy < 0) {
        rc = pr_fail_errno(err, PR_ERESOURCE, "%s: temporary file for %s (TMPDIR names its folder)", name,
                           path);
        goto done;
    }
    unlink(name);
    fcntl(copy, F_SETFD, FD_CLOEXEC);
    for (;;) {
        ssize_t got = read(fd, buf, 1 << 16);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) rc = pr_fail_errno(err, PR_ERESOURCE, "%s: reading", path);
        if (got > 0) rc = file_write_all(copy, buf, (size_t)got, name, err);
        if (got <= 0 || rc) break;
    }
done:
    free(buf);
    if (rc && copy >= 0) close(copy);
    if (!rc) *out = copy;
    return rc;
}

static int open_input(prompts *p, const char *path, pr_err *err)
{
    bool is_stdin = strcmp(path, "-") == 0;
    int fd = is_stdin ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC), rc = PR_OK;
    struct stat st;

    if (fd < 0 || fstat(fd, &st)) rc = pr_fail_errno(err, PR_ERESOURCE, "%s", p->path);
    else if (S_ISDIR(st.st_mode))
        rc = pr_fail(err, PR_EUSAGE, "%s is a folder; name a file of JSON lines", p->path);
    else if (is_stdin || !S_ISREG(st.st_mode)) rc = spool(&p->fd, fd, p->path, err);
    else p->fd = fd;
    if (fd >= 0 && !is_stdin && p->fd != fd) close(fd);
    return rc;
}

static bool is_blank(const char *s, size_t n)
{
    while (n > 0 && (*s == ' ' || *s == '\t')) s++, n--;
    return n == 0;
}

/* One line of the file: check it, count it, remember it. */
static int read_line(prompts *p, const char *text, size_t n, const lines *l, pr_err *err)
{
    request r = {.index = p->n, .line = l->number};
    uint64_t offset = l->offset;
    int rc = PR_OK;

    if (l->number == 1 && n >= 3 && !memcmp(text, "\xEF\xBB\xBF", 3)) text += 3, n -= 3, offset += 3;
    if (n > 0 && text[n - 1] == '\r') n--;
    if (n > REQUEST_LINE_MAX)
        return pr_fail(err, PR_EUSAGE, "%s: line %zu has %zu bytes; at most %zu (16 MiB) are accepted",
                       p->path, l->number, n, REQUEST_LINE_MAX);
    if (is_blank(text, n)) return PR_OK;
    hash_sha256_hex(text, n, r.input_sha256);
    request_parse(&r, text, n, &p->options);
    if (!r.id || p->n >= UINT32_MAX - 1) rc = pr_fail(err, PR_ERESOURCE, "%s: out of memory", p->path);
    else if (r.error.code && p->options.strict)
        rc = pr_fail(err, PR_EUSAGE, "%s: line %zu: %s: %s", p->path, r.line, request_code_name(r.error.code),
                     r.error.message);
    else rc = add_record(p, &r, offset, n, err);
    if (!rc) {
        p->n_bad += r.error.code != REQ_OK;
        p->total_tokens += r.tokens.n;
        if (r.error.code == REQ_OK && r.tokens.n + r.max_tokens > p->longest)
            p->longest = r.tokens.n + r.max_tokens;
    }
    request_clear(&r);
    return rc;
}

/* Every line, and the SHA-256 of it all. */
static int read_all(prompts *p, pr_err *err)
{
    EVP_MD_CTX *sha = EVP_MD_CTX_new();
    unsigned char digest[SHA_BYTES];
    const char *text;
    size_t n;
    lines l;
    int rc;

    /* A BOM and a '\r' come on top of the bytes that count. */
    lines_start(&l, p->fd, p->path, REQUEST_LINE_MAX + 4);
    if (!sha || EVP_DigestInit_ex(sha, EVP_sha256(), NULL) != 1) {
        rc = pr_fail(err, PR_ERESOURCE, "%s: no SHA-256 (out of memory?)", p->path);
        goto done;
    }
    while (!(rc = lines_next(&l, &text, &n, err)) && text) {
        EVP_DigestUpdate(sha, text, n);
        EVP_DigestUpdate(sha, "\n", l.ended);
        p->bytes += n + l.ended;
        if ((rc = read_line(p, text, n, &l, err))) break;
    }
    if (rc) goto done;
    EVP_DigestFinal_ex(sha, digest, NULL);
    sha_to_hex(p->sha256, digest);
done:
    EVP_MD_CTX_free(sha);
    lines_end(&l);
    return rc;
}

int prompts_open(prompts **out, const char *path, const prompts_options *o, pr_err *err)
{
    prompts *p = calloc(1, sizeof *p);
    int rc;

    if (!p || !(p->path = strdup(strcmp(path, "-") ? path : "stdin"))) {
        free(p);
        return pr_fail(err, PR_ERESOURCE, "%s: out of memory", path);
    }
    p->fd = -1;
    p->options = *o;
    if ((rc = open_input(p, path, err)) || (rc = read_all(p, err))) {
        prompts_close(p);
        return rc;
    }
    *out = p;
    return PR_OK;
}

void prompts_close(prompts *p)
{
    if (!p) return;
    if (p->fd >= 0) close(p->fd);
    free(p->path);
    free(p->rec);
    free(p->ids);
    free(p->table);
    free(p);
}

/* --- asking ---------------------------------------------------------------------------------- */

size_t prompts_count(const prompts *p)
{
    return p->n;
}
size_t prompts_bad(const prompts *p)
{
    return p->n_bad;
}
const char *prompts_id(const prompts *p, size_t index)
{
    return id_of(p, index);
}
const char *prompts_sha256(const prompts *p)
{
    return p->sha256;
}
uint64_t prompts_bytes(const prompts *p)
{
    return p->bytes;
}
size_t prompts_longest(const prompts *p)
{
    return p->longest;
}

size_t prompts_total_tokens(const prompts *p)
{
    return p->total_tokens;
}

bool prompts_find(const prompts *p, const char *id, size_t *index)
{
    size_t place = p->cap_table ? place_of(p, id) : 0;

    if (!p->cap_table || !p->table[place]) return false;
    *index = p->table[place] - 1;
    return true;
}

void prompts_line_sha256(const prompts *p, size_t index, char hex[HASH_HEX_BYTES])
{
    sha_to_hex(hex, p->rec[index].sha256);
}

int prompts_get(prompts *p, size_t index, request *r, pr_err *err)
{
    const record *rec = &p->rec[index];
    char *text = malloc((size_t)rec->n + 1), expected[HASH_HEX_BYTES];
    int rc;

    memset(r, 0, sizeof *r);
    r->index = index;
    r->line = rec->line;
    prompts_line_sha256(p, index, expected);
    if (!text) return pr_fail(err, PR_ERESOURCE, "%s: out of memory for line %zu", p->path, rec->line);
    rc = lines_pread(p->fd, text, rec->n, rec->offset, p->path, err);
    if (!rc) {
        hash_sha256_hex(text, rec->n, r->input_sha256);
        if (strcmp(r->input_sha256, expected) != 0)
            rc = pr_fail(err, PR_EMISMATCH, "%s: line %zu has been changed since the start of the run",
                         p->path, rec->line);
    }
    if (!rc) {
        request_parse(r, text, rec->n, &p->options);
        if (!r->id) rc = pr_fail(err, PR_ERESOURCE, "%s: out of memory for line %zu", p->path, rec->line);
    }
    free(text);
    if (rc) request_clear(r);
    return rc;
}
