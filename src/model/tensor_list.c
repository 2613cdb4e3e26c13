/* Reading and writing MODEL.gguf.tensors; see tensor_list.h.
 *
 * The reader takes what the writer writes and nothing else: every line is held against the model's own
 * directory, and the last line counts them, so that neither a cut nor a foreign file is believed. */
#include "src/model/tensor_list.h"
#include "src/base/file.h"
#include "src/base/log.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { LIST_MAX_BYTES = 256 << 20 };
static const char schema[] = "prima/tensors/1";

int tensor_list_init(tensor_list *l, const gguf *g, pr_err *err)
{
    *l = (tensor_list){.n = gguf_n_tensors(g)};
    l->sha256 = calloc(l->n + 1, sizeof *l->sha256);
    return l->sha256 ? PR_OK : pr_fail(err, PR_ERESOURCE, "out of memory");
}

void tensor_list_clear(tensor_list *l)
{
    free(l->sha256);
    *l = (tensor_list){0};
}

char *tensor_list_path(const char *first_part)
{
    static const char suffix[] = ".tensors";
    size_t n = strlen(first_part);
    char *path = malloc(n + sizeof suffix);

    if (!path) return NULL;
    memcpy(path, first_part, n);
    memcpy(path + n, suffix, sizeof suffix);
    return path;
}

/* As it stands in a line: one line, whatever the file calls it. NULL: out of memory. */
static char *shown_name(const gguf_tensor *t)
{
    return gguf_text((gguf_str){t->name, strlen(t->name)}, SIZE_MAX);
}

/* --- reading ------------------------------------------------------------------------------------ */
typedef struct {
    const char *p, *end;
    size_t line;
} text_cursor;

/* The next line without its newline; false: no whole line is left. */
static bool next_line(text_cursor *c, gguf_str *line)
{
    const char *stop = memchr(c->p, '\n', (size_t)(c->end - c->p));

    if (!stop) return false;
    *line = (gguf_str){c->p, (size_t)(stop - c->p)};
    c->p = stop + 1;
    c->line++;
    return true;
}

/* Cuts "word " off the front of *s; false: it begins otherwise. */
static bool take_word(gguf_str *s, const char *word)
{
    size_t n = strlen(word);

    if (s->n <= n || memcmp(s->p, word, n) || s->p[n] != ' ') return false;
    s->p += n + 1;
    s->n -= n + 1;
    return true;
}

static bool take_number(gguf_str *s, size_t *v)
{
    size_t n = 0;

    *v = 0;
    while (n < s->n && n < 10 && s->p[n] >= '0' && s->p[n] <= '9') *v = *v * 10 + (size_t)(s->p[n++] - '0');
    s->p += n;
    s->n -= n;
    return n > 0;
}

static bool take_sha256(gguf_str *s, char out[HASH_HEX_BYTES])
{
    size_t n = 0;

    while (n < s->n && ((s->p[n] >= '0' && s->p[n] <= '9') || (s->p[n] >= 'a' && s->p[n] <= 'f'))) n++;
    if (n != HASH_HEX_BYTES - 1) return false;
    memcpy(out, s->p, n);
    out[n] = 0;
    s->p += n;
    s->n -= n;
    return true;
}

static bool take_blank(gguf_str *s)
{
    if (!s->n || *s->p != ' ') return false;
    s->p++;
    s->n--;
    return true;
}

static int bad_line(const text_cursor *c, const char *expected, pr_err *err)
{
    return pr_fail(err, PR_EINTEGRITY, "line %zu: expected %s", c->line, expected);
}

static int read_first(text_cursor *c, const gguf *g, pr_err *err)
{
    char want[HASH_HEX_BYTES], sha[HASH_HEX_BYTES];
    gguf_str line;

    if (!next_line(c, &line) || !take_word(&line, schema) || !take_sha256(&line, sha) || line.n)
        return pr_fail(err, PR_EINTEGRITY, "line 1: expected %s and the digest of a header", schema);
    gguf_header_sha256(g, want);
    if (strcmp(sha, want))
        return pr_fail(err, PR_EMISMATCH, "it is of a model with header %.12s, the file has %.12s", sha,
                       want);
    return PR_OK;
}

static int read_tensor(tensor_list *l, text_cursor *c, gguf_str line, size_t *least, const gguf *g,
                       pr_err *err)
{
    char sha[HASH_HEX_BYTES], *name;
    size_t i;
    bool same;

    if (!take_number(&line, &i) || i < *least || i >= l->n || !take_blank(&line) ||
        !take_sha256(&line, sha) || !take_blank(&line))
        return bad_line(c, "tensor INDEX SHA256 NAME with rising indices of the model's directory", err);
    if (!(name = shown_name(gguf_tensor_at(g, i)))) return pr_fail(err, PR_ERESOURCE, "out of memory");
    same = line.n == strlen(name) && !memcmp(line.p, name, line.n);
    free(name);
    if (!same) return bad_line(c, "the name that the model's directory has at this index", err);
    memcpy(l->sha256[i], sha, sizeof sha);
    l->n_there++;
    *least = i + 1;
    return PR_OK;
}

static int read_lines(tensor_list *l, text_cursor *c, const gguf *g, pr_err *err)
{
    size_t least = 0, count;
    gguf_str line;
    int rc = read_first(c, g, err);

    while (!rc) {
        if (!next_line(c, &line)) return pr_fail(err, PR_EINTEGRITY, "it is cut off after line %zu", c->line);
        if (take_word(&line, "tensor")) rc = read_tensor(l, c, line, &least, g, err);
        else if (take_word(&line, "end") && take_number(&line, &count) && !line.n && count == l->n_there)
            break;
        else rc = bad_line(c, "a tensor, or the end and how many they were", err);
    }
    if (!rc && c->p != c->end) rc = pr_fail(err, PR_EINTEGRITY, "line %zu: text behind the end", c->line + 1);
    return rc;
}

int tensor_list_parse(tensor_list *l, const char *text, size_t n, const gguf *g, pr_err *err)
{
    text_cursor c = {text, text + n, 0};
    int rc = tensor_list_init(l, g, err);

    if (!rc) rc = read_lines(l, &c, g, err);
    if (rc) tensor_list_clear(l);
    return rc;
}

static int read_at(tensor_list *l, bool *found, const char *path, const gguf *g, pr_err *err)
{
    char *text;
    size_t n;
    pr_err why = {0};
    int rc;

    if (access(path, F_OK) && (errno == ENOENT || errno == ENOTDIR)) return PR_OK;
    if ((rc = file_slurp(&text, &n, path, LIST_MAX_BYTES, err))) return rc;
    rc = tensor_list_parse(l, text, n, g, &why);
    free(text);
    if (rc == PR_EMISMATCH) {
        log_warn("%s is not looked at: %s", path, why.msg);
        return PR_OK;
    }
    *found = !rc;
    if (!rc) return PR_OK;
    return pr_fail(err, rc,
                   "%s: %s: pull this device's part again, or remove the list when the file is whole", path,
                   why.msg);
}

int tensor_list_read(tensor_list *l, bool *found, const gguf *g, pr_err *err)
{
    char *path = tensor_list_path(gguf_part_path(g, 0));
    int rc;

    *l = (tensor_list){0};
    *found = false;
    if (!path) return pr_fail(err, PR_ERESOURCE, "out of memory");
    rc = read_at(l, found, path, g, err);
    free(path);
    return rc;
}

/* --- writing ------------------------------------------------------------------------------------ */
static bool put_tensor(FILE *f, const tensor_list *l, size_t i, const gguf *g)
{
    char *name = shown_name(gguf_tensor_at(g, i));
    bool good = name && fprintf(f, "tensor %zu %s %s\n", i, l->sha256[i], name) > 0;

    free(name);
    return good;
}

int tensor_list_write(const tensor_list *l, const gguf *g, const char *path, pr_err *err)
{
    char header[HASH_HEX_BYTES], *text = NULL;
    size_t n = 0, count = 0;
    FILE *f = open_memstream(&text, &n);
    bool good = f != NULL;
    int rc;

    gguf_header_sha256(g, header);
    if (good) fprintf(f, "%s %s\n", schema, header);
    for (size_t i = 0; i < l->n && good; i++) {
        if (!l->sha256[i][0]) continue;
        good = put_tensor(f, l, i, g);
        count++;
    }
    if (good) fprintf(f, "end %zu\n", count);
    if (f && fclose(f)) good = false;
    rc = good ? file_write_atomic(path, text, n, err) : pr_fail(err, PR_ERESOURCE, "out of memory");
    free(text);
    return rc;
}
