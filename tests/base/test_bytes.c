/* The cursor: values, unaligned reads, the error that sticks, lengths that would overflow. */
#include "src/base/bytes.h"
#include <criterion/criterion.h>

Test(bytes, little_endian_at_any_alignment)
{
    static const uint8_t data[] = {0xFF, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08,
                                   0x11, 0x22, 0x00, 0x00, 0xC0, 0x3F, 0,    0,    0,
                                   0,    0,    0,    0xF8, 0xBF, 0x78, 0x56, 0x34, 0x12};
    bytes b = bytes_of(data, sizeof data);

    cr_assert_eq(bytes_u8(&b), 0xFF);
    cr_assert_eq(bytes_u64(&b), 0x0807060504030201u);
    cr_assert_eq(bytes_u16(&b), 0x2211);
    cr_assert_eq(bytes_f32(&b), 1.5f);
    cr_assert_eq(bytes_f64(&b), -1.5);
    cr_assert_eq(bytes_u32(&b), 0x12345678);
    cr_assert(bytes_ok(&b));
    cr_assert_eq(bytes_left(&b), 0);
}

Test(bytes, first_error_sticks)
{
    static const uint8_t data[] = {1, 2, 3, 4, 5};
    bytes b = bytes_of(data, sizeof data);

    cr_assert_eq(bytes_u16(&b), 0x0201);
    cr_assert_eq(bytes_u32(&b), 0);
    cr_assert_not(bytes_ok(&b));
    cr_assert_eq(b.fail_pos, 2);
    cr_assert_eq(bytes_u8(&b), 0, "a read after the error must not go on");
    cr_assert_null(bytes_take(&b, 0));
    cr_assert_eq(bytes_left(&b), 0);
    cr_assert_eq(b.fail_pos, 2);
}

Test(bytes, take_checks_lengths_without_overflow)
{
    static const uint8_t data[4] = {1, 2, 3, 4};
    static const uint64_t too_long[] = {5, SIZE_MAX, SIZE_MAX - 3, UINT64_MAX, UINT64_MAX - 1};

    for (size_t i = 0; i < sizeof too_long / sizeof *too_long; i++) {
        bytes b = bytes_of(data, sizeof data);
        cr_assert_eq(bytes_u8(&b), 1);
        cr_assert_null(bytes_take(&b, too_long[i]));
        cr_assert_not(bytes_ok(&b));
        cr_assert_eq(b.fail_pos, 1);
    }
    bytes b = bytes_of(data, sizeof data);
    cr_assert_eq(bytes_take(&b, 4), data);
    cr_assert_not_null(bytes_take(&b, 0));
    cr_assert(bytes_ok(&b));
    b = bytes_of(NULL, 0);
    cr_assert_not_null(bytes_take(&b, 0));
    cr_assert_null(bytes_take(&b, 1));
}
