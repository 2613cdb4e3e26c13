/* Marks: which bytes they look at. The mark of one tensor is part of what head and workers say to each other:
 * it must not change. */
#include "src/base/hash.h"
#include "src/model/gguf_mark.h"
#include <criterion/criterion.h>
#include <string.h>
#include <sys/mman.h>

enum { BYTES = 100001 };
static uint8_t *data; /* mapped, as tensors are: dropping its pages loses nothing */

static void map_data(void)
{
    data = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    cr_assert_neq(data, MAP_FAILED);
}
TestSuite(gguf_mark, .init = map_data, .timeout = 10);

static gguf_tensor tensor_of(size_t n)
{
    for (size_t i = 0; i < n; i++) data[i] = (uint8_t)(i * 2654435761u >> 13);
    return (gguf_tensor){.n_bytes = n, .data = data};
}

Test(gguf_mark, begins_the_digest_of_the_middle)
{
    static const size_t sizes[] = {1, 100, 4096, 4097, 8193, BYTES};
    char sha[HASH_HEX_BYTES], mark[GGUF_MARK_BYTES];

    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        gguf_tensor t = tensor_of(sizes[i]);
        size_t n = sizes[i] < 4096 ? sizes[i] : 4096;
        hash_sha256_hex(data + (sizes[i] - n) / 2, n, sha);
        gguf_mark(&t, mark);
        cr_expect_eq(strlen(mark), 16);
        cr_expect_eq(strncmp(mark, sha, 16), 0, "%zu bytes", sizes[i]);
    }
}

/* A change at a quarter, the half or three quarters of any of the tensors is seen, also in one of few bytes.
 */
Test(gguf_mark, of_several_tensors_depends_on_each)
{
    gguf_tensor large = tensor_of(BYTES - 1000), small = large;
    const gguf_tensor *both[] = {&large, NULL, &small}, *swapped[] = {&small, &large};
    const size_t places[] = {25000, 49500, 74000, BYTES - 500};
    char mark[GGUF_MARK_BYTES], other[GGUF_MARK_BYTES];

    small.data = data + BYTES - 1000;
    small.n_bytes = 1000;
    gguf_mark_all(both, 3, mark);
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        data[places[i]] ^= 1;
        gguf_mark_all(both, 3, other);
        cr_expect_neq(strcmp(mark, other), 0, "byte %zu", places[i]);
        data[places[i]] ^= 1;
    }
    gguf_mark_all(both, 3, other);
    cr_expect_str_eq(other, mark);
    gguf_mark_all(swapped, 2, other);
    cr_expect_neq(strcmp(mark, other), 0);
}
