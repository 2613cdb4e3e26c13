/* Frames: the bytes of a header by hand, everything that is refused, and the way over a channel. */
#include "net/frame.h"
#include "tests/net/pair.h"
#include <criterion/criterion.h>
#include <signal.h>

static pr_err err;
static const security plain;

static void setup(void)
{
    signal(SIGPIPE, SIG_IGN);
}
TestSuite(frame, .init = setup, .timeout = 30);

/* Written down from the table in frame.h, not by frame_encode: 3 x 2 elements of f32 are 24 bytes. */
static const uint8_t by_hand[FRAME_HEADER_BYTES] = {
    'P',  'R',  'M',  'A',  1,    0,    3,    0,    0x04, 0x03, 0x02, 0x01, 24,   0,    0,    0,
    0x18, 0x17, 0x16, 0x15, 0x14, 0x13, 0x12, 0x11, 0x28, 0x27, 0x26, 0x25, 0x24, 0x23, 0x22, 0x21,
    0x34, 0x33, 0x32, 0x31, 0x44, 0x43, 0x42, 0x41, 3,    0,    0,    0,    2,    0,    0,    0,
    0x52, 0x51, 1,    0,    0,    0,    0,    0,    0,    0,    0,    0,    0,    0,    0,    0};
static const frame of_hand = {.type = FRAME_FILL,
                              .flags = 0x01020304,
                              .payload_bytes = 24,
                              .session = 0x1112131415161718,
                              .batch = 0x2122232425262728,
                              .round = 0x31323334,
                              .layer = 0x41424344,
                              .rows = 3,
                              .cols = 2,
                              .rank = 0x5152,
                              .elem = FRAME_F32};
static const frame_limits wide = {1 << 20, UINT32_MAX};

static bool same(const frame *a, const frame *b)
{
    return a->type == b->type && a->rank == b->rank && a->elem == b->elem && a->flags == b->flags &&
           a->payload_bytes == b->payload_bytes && a->round == b->round && a->layer == b->layer &&
           a->rows == b->rows && a->cols == b->cols && a->session == b->session && a->batch == b->batch;
}

Test(frame, bytes_of_a_header)
{
    uint8_t out[FRAME_HEADER_BYTES];
    frame f;

    memset(out, 0xee, sizeof out);
    frame_encode(out, &of_hand);
    cr_expect_arr_eq(out, by_hand, sizeof out);
    cr_assert_eq(frame_decode(&f, by_hand, &wide, &err), PR_OK, "%s", err.msg);
    cr_expect(same(&f, &of_hand));
}

/* One byte of the header changed: where, to what, the outcome and a word of the message. */
static const struct {
    int at, value, code;
    const char *word;
} changed[] = {
    {0, 'Q', PR_EPEER, "not a prima frame"},
    {3, 0, PR_EPEER, "PRMA"},
    {4, 2, PR_EMISMATCH, "version 2"},
    {5, 1, PR_EMISMATCH, "version 257"},
    {4, 0, PR_EMISMATCH, "same prima"},
    {6, 0, PR_EPEER, "type 0"},
    {6, FRAME_TYPES_END, PR_EPEER, "not expected"},
    {6, 40, PR_EPEER, "type 40"}, /* beyond the bits of a set */
    {7, 0xff, PR_EPEER, "not expected"},
    {12, 23, PR_EPEER, "23 bytes for 3 x 2"},
    {12, 25, PR_EPEER, "malformed"},
    {15, 0x80, PR_EPEER, "at most 1048576"},
    {40, 4, PR_EPEER, "malformed"},
    {43, 0xff, PR_EPEER, "malformed"},
    {40, 0, PR_EPEER, "malformed"},
    {44, 0, PR_EPEER, "malformed"},
    {50, 0, PR_EPEER, "elements of type 0"},
    {50, FRAME_F16, PR_EPEER, "malformed"},
    {50, FRAME_BF16 + 1, PR_EPEER, "element type 4"},
    {51, 1, PR_EPEER, "element type"},
    {52, 1, PR_EPEER, "1 more"},
    {55, 0x80, PR_EPEER, "malformed"},
    {56, 1, PR_EPEER, "byte 56"},
    {63, 0x80, PR_EPEER, "byte 63"},
};

Test(frame, refused)
{
    for (size_t i = 0; i < sizeof changed / sizeof *changed; i++) {
        uint8_t in[FRAME_HEADER_BYTES];
        frame f;
        memcpy(in, by_hand, sizeof in);
        in[changed[i].at] = (uint8_t)changed[i].value;
        err = (pr_err){0};
        cr_expect_eq(frame_decode(&f, in, &wide, &err), changed[i].code, "byte %d = %d", changed[i].at,
                     changed[i].value);
        cr_expect(strstr(err.msg, changed[i].word), "%s: %s", changed[i].word, err.msg);
    }
}

Test(frame, limits_of_the_caller)
{
    const frame_limits exact = {24, FRAME_BIT(FRAME_FILL)}, short_by_one = {23, FRAME_BIT(FRAME_FILL)},
                       others = {24, UINT32_MAX & ~FRAME_BIT(FRAME_FILL)};
    frame f;

    cr_expect_eq(frame_decode(&f, by_hand, &exact, &err), PR_OK);
    cr_expect_eq(frame_decode(&f, by_hand, &short_by_one, &err), PR_EPEER);
    cr_expect_eq(frame_decode(&f, by_hand, &others, &err), PR_EPEER);
}

/* Rows times columns that pass 32 and 64 bits must not come round to a length that fits. */
Test(frame, sizes_that_overflow)
{
    cr_expect_eq(frame_matrix_bytes(FRAME_F32, 3, 5), 60u);
    cr_expect_eq(frame_matrix_bytes(FRAME_F16, 3, 5), 30u);
    cr_expect_eq(frame_matrix_bytes(FRAME_BF16, 3, 5), 30u);
    cr_expect_eq(frame_matrix_bytes(FRAME_NO_ELEM, 3, 5), 0u);
    cr_expect_eq(frame_matrix_bytes(FRAME_F32, 32768, 32767), 4294836224u); /* 2^15 * (2^15 - 1) * 4 */
    cr_expect_eq(frame_matrix_bytes(FRAME_F32, 32768, 32768), 0u);
    cr_expect_eq(frame_matrix_bytes(FRAME_F32, 0x80000000u, 0x80000000u), 0u);
    cr_expect_eq(frame_matrix_bytes(FRAME_F32, 0xffffffffu, 0xffffffffu), 0u);
    cr_expect_eq(frame_matrix_bytes(FRAME_F16, 0xffffffffu, 0xffffffffu), 0u);
}

Test(frame, other_protocols_are_named)
{
    uint8_t in[FRAME_HEADER_BYTES] = {0x16, 3, 1, 2, 0};
    frame f;

    cr_expect_eq(frame_decode(&f, in, &wide, &err), PR_EPEER);
    cr_expect(strstr(err.msg, "TLS") && strstr(err.msg, "--insecure"), "%s", err.msg);
    memcpy(in, "GET /", 5);
    cr_expect_eq(frame_decode(&f, in, &wide, &err), PR_EPEER);
    cr_expect(strstr(err.msg, "47 45 54 20"), "%s", err.msg);
}

/* --- over a channel ----------------------------------------------------------------------------------------
 */
static pair_end a, b;

static void open_pair(void)
{
    pair_open(&a, &b, &plain, &plain);
    cr_assert_eq(a.rc || b.rc, 0);
}

Test(frame, over_a_channel)
{
    uint8_t room[FRAME_HEADER_BYTES + 24], got[24];
    const frame bye = {.type = FRAME_BYE};
    frame f;

    open_pair();
    for (int i = 0; i < 24; i++) room[FRAME_HEADER_BYTES + i] = (uint8_t)(100 + i);
    cr_assert_eq(frame_send(a.c, room, &of_hand, sock_deadline(2), &err), PR_OK);
    cr_assert_eq(frame_send(a.c, room, &bye, sock_deadline(2), &err), PR_OK);
    cr_assert_eq(frame_recv(b.c, &f, got, &wide, sock_deadline(2), &err), PR_OK, "%s", err.msg);
    cr_expect(same(&f, &of_hand));
    for (int i = 0; i < 24; i++) cr_expect_eq(got[i], 100 + i);
    cr_assert_eq(frame_recv(b.c, &f, NULL, &wide, sock_deadline(2), &err), PR_OK,
                 "nothing of the first is left");
    cr_expect(same(&f, &bye));
    pair_close(&a, &b);
}

Test(frame, truncated)
{
    static const size_t cuts[] = {0, 1, 63, 64, 70, 87};
    uint8_t bytes[88] = {0}, got[24];
    frame f;

    memcpy(bytes, by_hand, sizeof by_hand);
    for (size_t i = 0; i < sizeof cuts / sizeof *cuts; i++) {
        open_pair();
        cr_assert_eq(channel_write(a.c, bytes, cuts[i], sock_deadline(2), &err), PR_OK);
        channel_close(a.c);
        cr_expect_eq(frame_recv(b.c, &f, got, &wide, sock_deadline(2), &err), PR_EPEER, "%zu bytes", cuts[i]);
        channel_close(b.c);
    }
}

/* A payload that is too long is refused before a byte of it is read. */
Test(frame, too_long)
{
    const frame_limits narrow = {16, UINT32_MAX};
    uint8_t got[16];
    frame f;

    open_pair();
    memset(got, 0x55, sizeof got);
    cr_assert_eq(channel_write(a.c, by_hand, sizeof by_hand, sock_deadline(2), &err), PR_OK);
    cr_expect_eq(frame_recv(b.c, &f, got, &narrow, sock_deadline(2), &err), PR_EPEER);
    cr_expect(strstr(err.msg, "127.0.0.1:") && strstr(err.msg, "24 bytes") && strstr(err.msg, "16"), "%s",
              err.msg);
    for (int i = 0; i < 16; i++) cr_expect_eq(got[i], 0x55);
    pair_close(&a, &b);
}
