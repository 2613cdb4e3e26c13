/* Any bytes as PATH.part.json: refused, or what is done is a set of ranges in the file, and survives being
 * written and read again. */
#include "net/fetch_impl.h"
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void must(bool ok)
{
    if (!ok) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    journal j, again;
    uint64_t total = 0;
    char *text;

    if (journal_parse(&j, (const char *)data, n, NULL)) return 0;
    for (size_t i = 0; i < j.done.n; i++) {
        must(j.done.r[i].first < j.done.r[i].end && j.done.r[i].end <= j.size);
        must(!i || j.done.r[i - 1].end < j.done.r[i].first);
        total += j.done.r[i].end - j.done.r[i].first;
    }
    must(total == j.done.total);
    must((text = journal_text(j.url, j.etag, j.commit, j.size, &j.done)) != NULL);
    must(journal_parse(&again, text, strlen(text), NULL) == PR_OK);
    must(again.size == j.size && again.done.n == j.done.n && again.done.total == total);
    must(!strcmp(again.url, j.url) && !strcmp(again.etag, j.etag) && !strcmp(again.commit, j.commit));
    journal_clear(&again);
    journal_clear(&j);
    free(text);
    return 0;
}
