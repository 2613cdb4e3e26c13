/* Any bytes as a prompts file: it is refused, or every line of it is a request that can run or an error that
 * can be written. */
#include "src/base/utf8.h"
#include "src/run/prompts.h"
#include "tests/common/tiny_vocab.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

enum { N_CTX = 200 };

static void must(bool ok)
{
    if (!ok) abort();
}

static void check(const prompts *p, const request *r)
{
    size_t index;

    must(prompts_find(p, r->id, &index) && index == r->index);
    must(strlen(r->id) >= 1 && strlen(r->id) <= 256);
    must(utf8_valid(r->error.message, strlen(r->error.message)) == strlen(r->error.message));
    must(utf8_valid(r->error.param, strlen(r->error.param)) == strlen(r->error.param));
    if (r->error.code) {
        must(*r->error.message && !r->tokens.n && !r->n_stop);
        return;
    }
    must(r->tokens.n >= 1 && r->max_tokens >= 1 && r->tokens.n + r->max_tokens <= N_CTX);
    must(r->n_stop <= 16 && r->top_logprobs >= 0 && r->top_logprobs <= 20);
    must(r->sampling.temperature >= 0 && r->sampling.top_p >= 0 && r->sampling.top_p <= 1 &&
         r->sampling.repeat_last_n <= N_CTX);
    for (size_t i = 0; i < r->tokens.n; i++) must(r->tokens.id[i] >= 0 && r->tokens.id[i] < TINY_TOKENS);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static tiny_vocab tiny;
    static char path[] = "/tmp/prima-fuzz-XXXXXX";
    static int fd = -1;
    pr_err err;

    if (fd < 0) {
        tiny = tiny_vocab_new(true, false);
        must((fd = mkstemp(path)) >= 0);
        unlink(path);
        snprintf(path, sizeof path, "/dev/fd/%d", fd);
    }
    must(!ftruncate(fd, 0) && pwrite(fd, data, n, 0) == (ssize_t)n && lseek(fd, 0, SEEK_SET) == 0);
    for (int lenient = 0; lenient < 2; lenient++) {
        prompts_options o = {.vocab = tiny.v, .chat = CHAT_CHATML, .n_ctx = N_CTX, .lenient = lenient};
        prompts *p = NULL;
        if (prompts_open(&p, path, &o, &err)) continue;
        for (size_t i = 0; i < prompts_count(p); i++) {
            request r;
            must(prompts_get(p, i, &r, &err) == PR_OK);
            check(p, &r);
            request_clear(&r);
        }
        prompts_close(p);
    }
    return 0;
}
