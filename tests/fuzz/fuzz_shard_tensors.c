/* Any bytes as the list beside a shard (tensor_list.h), behind a first line that fits: refused as damaged, or
 * it names tensors of the model in order, and written and read again it is the same. */
#include "src/model/tensor_list.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void must(bool ok)
{
    if (!ok) abort();
}

/* The header of a model of three tensors, one with a name that is no text. */
static const gguf *model(void)
{
    static const char *const names[] = {"token_embd.weight", "blk.0.attn_q.weight", "blk.0.\n a\x80 b"};
    static uint8_t bytes[512] = "GGUF\3\0\0\0\3";
    static gguf *g;
    size_t at = 24;

    if (g) return g;
    for (uint8_t i = 0; i < 3; i++) {
        uint8_t len = (uint8_t)strlen(names[i]);
        bytes[at] = len;
        memcpy(bytes + at + 8, names[i], len);
        at += 8 + len;
        bytes[at] = 1;                       /* dimensions */
        bytes[at + 4] = 8;                   /* values, of type F32 */
        bytes[at + 16] = (uint8_t)(i * 32u); /* offset */
        at += 24;
    }
    must(!gguf_open_headers(&g, &(gguf_header_bytes){"fuzz.gguf", bytes, at}, 1, NULL));
    return g;
}

/* The list is replaced by each write: one name a process, gone when it ends. */
static char path[64];
static void remove_file(void)
{
    unlink(path);
}

static void write_and_read(const tensor_list *l, const gguf *g)
{
    static char text[4096];
    tensor_list again;
    FILE *f = NULL;
    size_t n;

    if (!*path) {
        snprintf(path, sizeof path, "/tmp/prima-fuzz-tensors-%ld", (long)getpid());
        atexit(remove_file);
    }
    must(!tensor_list_write(l, g, path, NULL) && (f = fopen(path, "r")) != NULL);
    n = fread(text, 1, sizeof text - 1, f);
    fclose(f);
    text[n] = 0;
    must(!tensor_list_parse(&again, text, n, g, NULL));
    must(again.n == l->n && again.n_there == l->n_there);
    must(!memcmp(again.sha256, l->sha256, l->n * sizeof *l->sha256));
    tensor_list_clear(&again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    const gguf *g = model();
    char sha[HASH_HEX_BYTES], *text = malloc(n + 128);
    tensor_list l;
    pr_err err = {0};
    size_t first, n_there = 0;
    int rc;

    must(text != NULL);
    gguf_header_sha256(g, sha);
    first = (size_t)sprintf(text, "prima/tensors/1 %s\n", sha);
    memcpy(text + first, data, n);
    text[first + n] = 0;
    rc = tensor_list_parse(&l, text, first + n, g, &err);
    if (rc) {
        must(rc == PR_EINTEGRITY && *err.msg && !l.sha256);
    } else {
        for (size_t i = 0; i < l.n; i++) n_there += *l.sha256[i] != 0;
        must(l.n == 3 && n_there == l.n_there);
        write_and_read(&l, g);
        tensor_list_clear(&l);
    }
    free(text);
    return 0;
}
