/* Sizes as messages say them; how they are read is tested with what reads them. */
#include "src/base/units.h"
#include <criterion/criterion.h>

/* By hand: 1 KiB = 1024, 1 MiB = 1048576, 1 GiB = 1073741824 bytes. */
Test(units, sizes_as_text)
{
    static const struct {
        uint64_t bytes;
        const char *text;
    } cases[] = {
        {0, "0 bytes"},
        {1, "1 bytes"},
        {1023, "1023 bytes"},
        {1024, "1.0 KiB"},
        {3100 * UINT64_C(1024), "3.0 MiB"},
        {1047000, "1022.5 KiB"},
        {1048575, "1.0 MiB"},
        {1073741823, "1.00 GiB"},
        {UINT64_C(4367704064), "4.07 GiB"},
        {UINT64_C(1536) << 30, "1536.00 GiB"},
        {UINT64_MAX, "17179869184.00 GiB"},
    };
    char text[UNITS_TEXT_BYTES];

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        cr_expect_str_eq(units_text(text, cases[i].bytes), cases[i].text);
}
