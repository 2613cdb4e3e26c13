/* Any bytes as the journal of a pack: refused, or inside every limit; and what is believed, written again, is
 * the same text and is believed the same. */
#include "src/model/pack_file_journal.h"
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void must(bool ok)
{
    if (!ok) abort();
}

static void check_entry(const pack_entry *e)
{
    must(e->state <= PACK_HERE && e->bytes <= PACK_MAX_RECORD_BYTES);
    must(strlen(e->sha256) == (e->state == PACK_ABSENT ? 0 : HASH_HEX_BYTES - 1));
    must(strlen(e->mark) == (e->state == PACK_ABSENT ? 0 : GGUF_MARK_BYTES - 1));
}

/* The state as the shortest text that leads to it. */
static char *write_again(const pack_journal *j, size_t *n)
{
    char *text = malloc((size_t)(2 * j->n_layers + 2) * PACK_LINE_BYTES);

    must(text != NULL);
    *n = pack_line_first(text, j->header_sha256, j->layout, j->n_layers);
    for (uint32_t i = 0; i < j->n_layers; i++) {
        if (j->layer[i].state == PACK_ABSENT) continue;
        *n += pack_line_layer(text + *n, i, &j->layer[i]);
        if (j->layer[i].state == PACK_DOUBTED) *n += pack_line_doubt(text + *n, i);
    }
    if (j->sealed) *n += pack_line_seal(text + *n, j->sealed);
    return text;
}

static void check_again(const pack_journal *j)
{
    size_t n;
    char *text = write_again(j, &n);
    pack_journal again;

    must(pack_journal_parse(&again, text, n, NULL) == PR_OK);
    must(again.n_read == n && again.n_layers == j->n_layers && again.layout == j->layout);
    must(again.sealed == j->sealed && !strcmp(again.header_sha256, j->header_sha256));
    for (uint32_t i = 0; i < j->n_layers; i++) {
        must(again.layer[i].state == j->layer[i].state && again.layer[i].bytes == j->layer[i].bytes);
        must(!strcmp(again.layer[i].sha256, j->layer[i].sha256));
        must(!strcmp(again.layer[i].mark, j->layer[i].mark));
    }
    pack_journal_clear(&again);
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    pack_journal j;
    pr_err err = {0};

    if (pack_journal_parse(&j, (const char *)data, n, &err)) {
        must(err.code == PR_EINTEGRITY && *err.msg && !j.layer);
        return 0;
    }
    must(j.n_layers <= PACK_MAX_LAYERS && j.sealed >= 0);
    must(j.n_read > 0 && j.n_read <= n && data[j.n_read - 1] == '\n');
    for (uint32_t i = 0; i < j.n_layers; i++) check_entry(&j.layer[i]);
    check_again(&j);
    pack_journal_clear(&j);
    return 0;
}
