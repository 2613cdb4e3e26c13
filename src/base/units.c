/* Numbers with units; see units.h. */
#include "src/base/units.h"
#include <stdio.h>
#include <string.h>

bool units_fixed(const char *s, unsigned decimals, uint64_t *value, const char **end)
{
    uint64_t v = 0;
    unsigned seen = 0, left = decimals;
    bool fraction = false;

    for (; (*s >= '0' && *s <= '9') || (*s == '.' && !fraction && seen && decimals); s++) {
        if (*s == '.') {
            fraction = true;
            if (s[1] < '0' || s[1] > '9') return false;
            continue;
        }
        if (fraction && left-- == 0) return false;
        if (v > (INT64_MAX - 9) / 10) return false;
        v = v * 10 + (uint64_t)(*s - '0');
        seen++;
    }
    if (!seen) return false;
    for (; left; left--) {
        if (v > INT64_MAX / 10) return false;
        v *= 10;
    }
    *value = v;
    *end = s;
    return true;
}

static uint64_t size_unit(const char *s)
{
    static const struct {
        const char *name;
        uint64_t bytes;
    } units[] = {{"", 1},
                 {"B", 1},
                 {"KiB", 1 << 10},
                 {"MiB", 1 << 20},
                 {"GiB", 1 << 30},
                 {"kB", 1000},
                 {"KB", 1000},
                 {"MB", 1000000},
                 {"GB", 1000000000},
                 {"TiB", (uint64_t)1 << 40},
                 {"TB", 1000000000000}};

    for (size_t i = 0; i < sizeof units / sizeof *units; i++) {
        if (!strcmp(s, units[i].name)) return units[i].bytes;
    }
    return 0;
}

/* "8G", "8gb", "8 GiB", "8Gi": a number and letters that mean a size to people. */
static bool almost_size(const char *s, int *digits, char *letter)
{
    *digits = (int)strspn(s, "0123456789.");
    s += *digits;
    if (size_unit(s)) return false;
    s += strspn(s, " ");
    *letter = *s >= 'a' && *s <= 'z' ? (char)(*s - 'a' + 'A') : *s;
    return *digits && *digits < 20 && *letter && strchr("KMGT", *letter) && strlen(s) <= 5;
}

bool units_size(const char *s, uint64_t *bytes, char hint[UNITS_HINT_BYTES])
{
    uint64_t milli, unit, whole;
    const char *end;
    int digits;
    char letter;

    *hint = 0;
    unit = units_fixed(s, 3, &milli, &end) ? size_unit(end) : 0;
    if (!unit || (unit == 1 && milli % 1000)) {
        if (almost_size(s, &digits, &letter))
            snprintf(hint, UNITS_HINT_BYTES, "write %.*s%ciB (powers of 1024) or %.*s%cB (powers of 1000)",
                     digits, s, letter, digits, s, letter);
        return false;
    }
    whole = milli / 1000;
    *bytes = whole > (uint64_t)INT64_MAX / unit ? UINT64_MAX : whole * unit + milli % 1000 * unit / 1000;
    return true;
}

/* From 1023.95 on, one decimal would make it 1024.0 of the smaller unit. */
const char *units_text(char out[UNITS_TEXT_BYTES], uint64_t bytes)
{
    double b = (double)bytes;

    if (bytes < 1024) snprintf(out, UNITS_TEXT_BYTES, "%u bytes", (unsigned)bytes);
    else if (b < 1023.95 * 0x1p10) snprintf(out, UNITS_TEXT_BYTES, "%.1f KiB", b / 0x1p10);
    else if (b < 1023.95 * 0x1p20) snprintf(out, UNITS_TEXT_BYTES, "%.1f MiB", b / 0x1p20);
    else snprintf(out, UNITS_TEXT_BYTES, "%.2f GiB", b / 0x1p30);
    return out;
}
