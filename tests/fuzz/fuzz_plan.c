/* plan_parse on any bytes; the digest in them is made right first, so that the rest is reached. What it
 * accepts must survive being written and read again. */
#include "planner/plan.h"
#include "src/base/hash.h"
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

/* "schema: prima/plan/1\n" and "plan_sha256: \"<64>\"\n" in front of the rest of the bytes. */
static char *with_digest(const uint8_t *data, size_t n, size_t *n_out)
{
    static const char first[] = "schema: prima/plan/1\n", key[] = "plan_sha256: \"";
    size_t n_first = sizeof first - 1, n_line = sizeof key - 1 + 64 + 2;
    const size_t skip = n >= n_first + n_line && !memcmp(data, first, n_first) ? n_first + n_line : 0;
    char *text = malloc(n_first + n_line + n + 1), digest[HASH_HEX_BYTES];

    if (!text) abort();
    memcpy(text, first, n_first);
    memcpy(text + n_first, data + skip, n - skip);
    hash_sha256_hex(text, n_first + n - skip, digest);
    memcpy(text + n_first, key, sizeof key - 1);
    memcpy(text + n_first + sizeof key - 1, digest, 64);
    memcpy(text + n_first + n_line - 2, "\"\n", 2);
    memcpy(text + n_first + n_line, data + skip, n - skip);
    *n_out = n_first + n_line + n - skip;
    return text;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    size_t n_text, n_once, n_twice;
    char *text = with_digest(data, n, &n_text), *once, *twice;
    plan *p, *again;
    problem pr;
    assignment a;
    pr_err err;

    if (plan_parse(&p, text, n_text, "fuzz", &err) == PR_OK) {
        once = plan_text(p, &n_once);
        if (!once || plan_parse(&again, once, n_once, "again", &err)) abort();
        twice = plan_text(again, &n_twice);
        if (!twice || n_twice != n_once || memcmp(once, twice, n_once)) abort();
        plan_problem(again, &pr, &a, &err);
        free(once);
        free(twice);
        plan_free(p);
        plan_free(again);
    }
    free(text);
    return 0;
}
