/* The words of a source; see source.h. No network, and of the disk only whether a file of this name is there.
 */
#include "src/pull/source.h"
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define DEFAULT_QUANT "Q4_K_M"
#define DEFAULT_REV   "main"
enum { REV_BYTES = 200, REPO_PART_BYTES = 96 };

static int no_memory(pr_err *err)
{
    return pr_fail(err, PR_ERESOURCE, "out of memory");
}

void source_spec_clear(source_spec *s)
{
    free(s->repo);
    free(s->rev);
    free(s->what);
    *s = (source_spec){0};
}

/* A copy of s[0, n), decoded or as it is. NULL and an error when that is not possible. */
static char *copy(const char *s, size_t n, bool decode, pr_err *err)
{
    char *out = decode ? name_decode(s, n) : strndup(s, n);

    if (!out && decode) pr_fail(err, PR_EUSAGE, "%.*s: a malformed %%XX", n < 200 ? (int)n : 200, s);
    else if (!out) no_memory(err);
    return out;
}

/* --- repositories -------------------------------------------------------------------------------------- */
/* Length of an owner's or a repository's name at s; 0: none. */
static size_t repo_part(const char *s)
{
    size_t n = 0;

    while (isalnum((unsigned char)s[n]) || (s[n] && strchr("._-", s[n]))) n++;
    if (n > REPO_PART_BYTES || !isalnum((unsigned char)*s)) return 0;
    for (size_t i = 0; i + 1 < n; i++) {
        if (s[i] == '.' && s[i + 1] == '.') return 0;
    }
    return n;
}

/* Length of "owner/repo" at s; 0: none. */
static size_t repo_length(const char *s)
{
    size_t owner = repo_part(s), name = owner && s[owner] == '/' ? repo_part(s + owner + 1) : 0;
    return name ? owner + 1 + name : 0;
}

/* "main", "v1.0", or "refs/pr/3", whose slashes belong to it. */
static size_t rev_length(const char *s)
{
    size_t n = 0;

    if (strncmp(s, "refs/", 5) == 0) {
        n = 5 + strcspn(s + 5, "/:");
        if (s[n] == '/') n++;
    }
    return n + strcspn(s + n, "/:");
}

static int take_rev(source_spec *out, const char *s, size_t n, bool decode, pr_err *err)
{
    if (!(out->rev = copy(s, n, decode, err))) return PR_EUSAGE;
    if (!*out->rev || strlen(out->rev) > REV_BYTES || strstr(out->rev, ".."))
        return pr_fail(err, PR_EUSAGE, "%.200s: no name of a revision", out->rev);
    for (const char *p = out->rev; *p; p++) {
        if ((unsigned char)*p <= 0x20 || *p == 0x7F)
            return pr_fail(err, PR_EUSAGE, "%s: no name of a revision", out->rev);
    }
    return PR_OK;
}

static int take_quant(source_spec *out, const char *text, pr_err *err)
{
    char quant[NAME_QUANT_BYTES];

    if (!name_quant_typed(text, quant))
        return pr_fail(err, PR_EUSAGE, ":%.100s is no quantisation; expected a word such as %s (see --list)",
                       text, DEFAULT_QUANT);
    out->kind = SOURCE_QUANT;
    return (out->what = strdup(quant)) ? PR_OK : no_memory(err);
}

static int take_path(source_spec *out, const char *s, size_t n, bool decode, pr_err *err)
{
    int rc;

    out->kind = SOURCE_FILE;
    if (!(out->what = copy(s, n, decode, err))) return PR_EUSAGE;
    if ((rc = name_check_path(out->what, err))) return rc;
    if (!name_is_gguf(out->what))
        return pr_fail(err, PR_EUSAGE, "%s: no .gguf file; `prima pull --list %s` shows what there is",
                       out->what, out->repo);
    return PR_OK;
}

/* owner/repo[@rev][:QUANT | /path] */
static int parse_repo(source_spec *out, const char *text, bool decode, pr_err *err)
{
    size_t n = repo_length(text), rev = 0;
    const char *s = text + n;
    int rc = PR_OK;

    if (!n || (*s && !strchr("@:/", *s)))
        return pr_fail(err, PR_EUSAGE,
                       "%.200s: neither a file here nor a source; expected owner/repo, owner/repo:QUANT, "
                       "owner/repo/file.gguf, an address or a path",
                       text);
    if (!(out->repo = strndup(text, n))) return no_memory(err);
    if (*s == '@') {
        rev = rev_length(++s);
        rc = take_rev(out, s, rev, decode, err);
        s += rev;
    } else if (!(out->rev = strdup(DEFAULT_REV))) {
        rc = no_memory(err);
    }
    if (rc) return rc;
    if (*s == '/' && s[1]) return take_path(out, s + 1, strlen(s + 1), decode, err);
    return take_quant(out, *s == ':' ? s + 1 : DEFAULT_QUANT, err);
}

/* --- addresses ----------------------------------------------------------------------------------------- */
/* A page or file of the hub, behind its endpoint: owner/repo, owner/repo/tree/REV,
 * owner/repo/{blob,resolve}/REV/PATH. */
typedef struct {
    size_t repo_n;
    const char *rev, *path; /* NULL: there is none */
    size_t rev_n, path_n;
} hub_page;

static bool is_word(const char *s, size_t n, const char *word)
{
    return n == strlen(word) && memcmp(s, word, n) == 0;
}

/* False: s[0, n) is another address. */
static bool split_page(hub_page *g, const char *s, size_t n)
{
    static const char *const other[] = {"api/", "datasets/", "spaces/"};
    const char *end = s + n, *verb, *rev, *path;

    for (size_t i = 0; i < sizeof other / sizeof *other; i++) {
        if (strncmp(s, other[i], strlen(other[i])) == 0) return false;
    }
    if (n && end[-1] == '/') end--;
    *g = (hub_page){.repo_n = repo_length(s)};
    verb = s + g->repo_n;
    if (!g->repo_n || verb > end || (verb < end && *verb != '/')) return false;
    if (verb == end)
        return end - s < 5 || memcmp(end - 5, ".gguf", 5) != 0; /* a file in a folder of a server */
    verb++;
    if (!(rev = memchr(verb, '/', (size_t)(end - verb)))) return false;
    g->rev = rev + 1;
    path = memchr(g->rev, '/', (size_t)(end - g->rev));
    g->rev_n = (size_t)((path ? path : end) - g->rev);
    if (is_word(verb, (size_t)(rev - verb), "tree")) return true; /* of a folder of it, too */
    if (!path ||
        (!is_word(verb, (size_t)(rev - verb), "blob") && !is_word(verb, (size_t)(rev - verb), "resolve")))
        return false;
    g->path = path + 1;
    g->path_n = (size_t)(end - g->path);
    return true;
}

static int take_page(source_spec *out, const char *s, const hub_page *g, pr_err *err)
{
    int rc = PR_OK;

    if (!(out->repo = strndup(s, g->repo_n))) return no_memory(err);
    if (g->rev) rc = take_rev(out, g->rev, g->rev_n, true, err);
    else if (!(out->rev = strdup(DEFAULT_REV))) rc = no_memory(err);
    if (rc) return rc;
    return g->path ? take_path(out, g->path, g->path_n, true, err) : take_quant(out, DEFAULT_QUANT, err);
}

/* An address as it goes over the wire: blanks and bytes beyond ASCII as %XX, no fragment. */
static char *tidy_address(const char *s, pr_err *err)
{
    static const char digits[] = "0123456789ABCDEF";
    size_t n = strcspn(s, "#");
    char *out = malloc(3 * n + 4), *p = out; /* 4: "blob" may become "resolve" */

    if (!out) {
        no_memory(err);
        return NULL;
    }
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)s[i];

        if (c < 0x20 || c == 0x7F) {
            free(out);
            pr_fail(err, PR_EUSAGE, "%.200s: an address with control characters", s);
            return NULL;
        }
        if (c > 0x20 && c < 0x7F && !strchr("\"<>\\^`{|}", c)) {
            *p++ = s[i];
        } else {
            *p++ = '%';
            *p++ = digits[c >> 4];
            *p++ = digits[c & 15];
        }
    }
    *p = 0;
    return out;
}

/* .../owner/repo/blob/rev/file (a page) becomes .../owner/repo/resolve/rev/file (the file): the third or
 * fourth component. There is room for it. */
static void blob_to_resolve(char *address)
{
    char *p = strchr(strstr(address, "://") + 3, '/');

    for (int i = 0; p && i < 4; i++, p = strchr(p + 1, '/')) {
        if (i < 2 || strncmp(p, "/blob/", 6) != 0 || !strchr(p + 6, '/')) continue;
        memmove(p + 9, p + 6, strlen(p + 6) + 1);
        memcpy(p, "/resolve/", 9);
        return;
    }
}

static int parse_address(source_spec *out, const char *text, const hub *h, pr_err *err)
{
    const char *host = strstr(text, "://") + 3, *at = strpbrk(host, "/?#@");
    size_t n = strlen(h->endpoint);
    hub_page page;

    if (at && *at == '@')
        return pr_fail(err, PR_EUSAGE,
                       "an address with a user name or password: others on this machine can see what a "
                       "command is called with; not taken");
    if (at == host || !*host) return pr_fail(err, PR_EUSAGE, "%.200s: an address without a host", text);
    if (strncmp(text, h->endpoint, n) == 0 && text[n] == '/' &&
        split_page(&page, text + n + 1, strcspn(text + n + 1, "?#")))
        return take_page(out, text + n + 1, &page, err);
    out->kind = SOURCE_URL;
    if (!(out->what = tidy_address(text, err))) return PR_EUSAGE;
    blob_to_resolve(out->what);
    return PR_OK;
}

static int parse_file_address(source_spec *out, const char *text, pr_err *err)
{
    const char *path = text + strlen("file://");

    if (strncmp(path, "localhost/", 10) == 0) path += 9;
    if (*path != '/') return pr_fail(err, PR_EUSAGE, "%.200s: expected file:///absolute/path", text);
    out->kind = SOURCE_PATH;
    return (out->what = copy(path, strcspn(path, "?#"), true, err)) ? PR_OK : PR_EUSAGE;
}

/* --- all of them --------------------------------------------------------------------------------------- */
static bool is_path(const char *text)
{
    struct stat st;

    return *text == '/' || *text == '~' || !strncmp(text, "./", 2) || !strncmp(text, "../", 3) ||
           !strchr(text, '/') || (stat(text, &st) == 0 && !S_ISDIR(st.st_mode));
}

static int parse(source_spec *out, const char *text, const hub *h, pr_err *err)
{
    const char *scheme = strstr(text, "://");

    if (!*text) return pr_fail(err, PR_EUSAGE, "an empty source");
    if (!strncmp(text, "hf://", 5)) return parse_repo(out, text + 5, true, err);
    if (!strncmp(text, "https://", 8) || !strncmp(text, "http://", 7))
        return parse_address(out, text, h, err);
    if (!strncmp(text, "file://", 7)) return parse_file_address(out, text, err);
    if (scheme && scheme - text < 16)
        return pr_fail(err, PR_EUSAGE, "%.*s: not taken; expected hf://, https://, http:// or file://",
                       (int)(scheme - text) + 3, text);
    if (!is_path(text)) return parse_repo(out, text, false, err);
    out->kind = SOURCE_PATH;
    return (out->what = strdup(text)) ? PR_OK : no_memory(err);
}

int source_parse(source_spec *out, const char *text, const hub *h, pr_err *err)
{
    int rc;

    *out = (source_spec){0};
    if ((rc = parse(out, text, h, err))) source_spec_clear(out);
    return rc;
}
