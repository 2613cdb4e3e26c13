/* The text of a pack: written line by line, read as if a stranger had written it. There is one way to write
 * each line, so a text that is believed is one that we could have written. */
#include "src/model/pack_file_journal.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char pack_magic[] = "prima/pack/1";

/* --- reading ------------------------------------------------------------------------------------------- */
/* What is left of a line; false from a reader: something else stands there. */
typedef struct {
    const char *p, *end;
} cursor;

static bool word(cursor *c, const char *expected)
{
    size_t n = strlen(expected);

    if ((size_t)(c->end - c->p) < n || memcmp(c->p, expected, n)) return false;
    c->p += n;
    return true;
}

/* Decimal, without sign or leading zeros, at most max. */
static bool number(cursor *c, uint64_t max, uint64_t *out)
{
    const char *first = c->p;
    uint64_t v = 0;

    for (; c->p < c->end && *c->p >= '0' && *c->p <= '9'; c->p++) {
        uint64_t digit = (uint64_t)(*c->p - '0');
        if (v > (max - digit) / 10 || digit > max) return false;
        v = v * 10 + digit;
    }
    *out = v;
    return c->p > first && (*first != '0' || c->p == first + 1);
}

static bool hex(cursor *c, size_t n, char *out)
{
    if ((size_t)(c->end - c->p) < n) return false;
    for (size_t i = 0; i < n; i++) {
        char x = c->p[i];
        if (!((x >= '0' && x <= '9') || (x >= 'a' && x <= 'f'))) return false;
        out[i] = x;
    }
    out[n] = 0;
    c->p += n;
    return true;
}

static bool at_end(const cursor *c)
{
    return c->p == c->end;
}

static bool read_first(pack_journal *j, cursor c)
{
    uint64_t layout, n_layers;

    if (!word(&c, pack_magic) || !word(&c, " ") || !hex(&c, HASH_HEX_BYTES - 1, j->header_sha256) ||
        !word(&c, " ") || !number(&c, UINT32_MAX, &layout) || !word(&c, " ") ||
        !number(&c, PACK_MAX_LAYERS, &n_layers) || !at_end(&c))
        return false;
    j->layout = (uint32_t)layout;
    j->n_layers = (uint32_t)n_layers;
    return true;
}

static bool layer_index(const pack_journal *j, cursor *c, uint64_t *out)
{
    return number(c, PACK_MAX_LAYERS, out) && *out < j->n_layers;
}

static bool read_layer(pack_journal *j, cursor c)
{
    pack_entry e = {.state = PACK_HERE};
    uint64_t i;

    if (!layer_index(j, &c, &i) || !word(&c, " ") || !number(&c, PACK_MAX_RECORD_BYTES, &e.bytes) ||
        !word(&c, " ") || !hex(&c, HASH_HEX_BYTES - 1, e.sha256) || !word(&c, " ") ||
        !hex(&c, GGUF_MARK_BYTES - 1, e.mark) || !at_end(&c))
        return false;
    j->layer[i] = e;
    return true;
}

static bool read_doubt(pack_journal *j, cursor c)
{
    uint64_t i;

    if (!layer_index(j, &c, &i) || !at_end(&c) || j->layer[i].state == PACK_ABSENT) return false;
    j->layer[i].state = PACK_DOUBTED;
    return true;
}

static bool read_lost(pack_journal *j, cursor c)
{
    uint64_t i;

    if (!layer_index(j, &c, &i) || !at_end(&c)) return false;
    j->layer[i] = (pack_entry){0};
    return true;
}

static bool read_seal(pack_journal *j, cursor c)
{
    uint64_t seconds;

    if (!number(&c, INT64_MAX, &seconds) || !at_end(&c)) return false;
    j->sealed = (int64_t)seconds;
    return true;
}

static bool read_line(pack_journal *j, cursor c)
{
    if (word(&c, "layer ")) return read_layer(j, c);
    if (word(&c, "doubt ")) return read_doubt(j, c);
    if (word(&c, "lost ")) return read_lost(j, c);
    return word(&c, "seal ") && read_seal(j, c);
}

/* The line that begins at p, without its newline; false: it has none. */
static bool next_line(const char *p, const char *end, cursor *line)
{
    const char *newline = p < end ? memchr(p, '\n', (size_t)(end - p)) : NULL;

    if (newline) *line = (cursor){p, newline};
    return newline != NULL;
}

int pack_journal_parse(pack_journal *out, const char *text, size_t n, pr_err *err)
{
    const char *end = text + n;
    cursor line;

    *out = (pack_journal){0};
    if (!next_line(text, end, &line) || !read_first(out, line))
        return pr_fail(err, PR_EINTEGRITY, "the first line is not that of a pack (%s ...)", pack_magic);
    out->layer = calloc((size_t)out->n_layers + 1, sizeof *out->layer);
    if (!out->layer) return pr_fail(err, PR_ERESOURCE, "out of memory");
    do {
        out->n_read = (size_t)(line.end + 1 - text);
    } while (next_line(line.end + 1, end, &line) && read_line(out, line));
    return PR_OK;
}

void pack_journal_clear(pack_journal *j)
{
    free(j->layer);
    *j = (pack_journal){0};
}

/* --- writing ------------------------------------------------------------------------------------------- */
size_t pack_line_first(char out[PACK_LINE_BYTES], const char *header_sha256, uint32_t layout,
                       uint32_t n_layers)
{
    return (size_t)snprintf(out, PACK_LINE_BYTES, "%s %s %" PRIu32 " %" PRIu32 "\n", pack_magic,
                            header_sha256, layout, n_layers);
}

size_t pack_line_layer(char out[PACK_LINE_BYTES], uint32_t layer, const pack_entry *e)
{
    return (size_t)snprintf(out, PACK_LINE_BYTES, "layer %" PRIu32 " %" PRIu64 " %s %s\n", layer, e->bytes,
                            e->sha256, e->mark);
}

size_t pack_line_doubt(char out[PACK_LINE_BYTES], uint32_t layer)
{
    return (size_t)snprintf(out, PACK_LINE_BYTES, "doubt %" PRIu32 "\n", layer);
}

size_t pack_line_lost(char out[PACK_LINE_BYTES], uint32_t layer)
{
    return (size_t)snprintf(out, PACK_LINE_BYTES, "lost %" PRIu32 "\n", layer);
}

size_t pack_line_seal(char out[PACK_LINE_BYTES], int64_t seconds)
{
    return (size_t)snprintf(out, PACK_LINE_BYTES, "seal %" PRId64 "\n", seconds);
}
