/* File names of models: percent-encoding, what may be a name, parts of split models, quantisations.
 *
 * A quantisation is a word of the name: "Q" or "IQ" or "TQ", one digit, and then the pieces that ggml's and
 * other people's types are made of ("_K", "_M", "_XXS", ...); or one of the plain types (F16, BF16, ...). The
 * last such word counts: "Q8-reasoner-Q4_K_M" is Q4_K_M. "UD-" in front (unsloth's dynamic ones) belongs to
 * it. */
#include "src/pull/source_name.h"
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { NAME_MAX_BYTES = 240 }; /* leaves room for ".part.json" and the like in the 255 of most file systems */

/* --- percent-encoding ---------------------------------------------------------------------------------- */
static bool is_plain(unsigned char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           (c && strchr("-._~", c));
}

char *name_encode(const char *s, bool keep_slash)
{
    static const char digits[] = "0123456789ABCDEF";
    char *out = malloc(3 * strlen(s) + 1), *p = out;

    if (!out) return NULL;
    for (; *s; s++) {
        unsigned char c = (unsigned char)*s;

        if (is_plain(c) || (c == '/' && keep_slash)) {
            *p++ = *s;
        } else {
            *p++ = '%';
            *p++ = digits[c >> 4];
            *p++ = digits[c & 15];
        }
    }
    *p = 0;
    return out;
}

static int hex_value(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

char *name_decode(const char *s, size_t n)
{
    char *out = malloc(n + 1), *p = out;

    if (!out) return NULL;
    for (size_t i = 0; i < n; i++) {
        int hi, lo;

        if (s[i] != '%') {
            *p++ = s[i];
            continue;
        }
        hi = i + 2 < n ? hex_value(s[i + 1]) : -1;
        lo = i + 2 < n ? hex_value(s[i + 2]) : -1;
        if (hi < 0 || lo < 0 || !(hi | lo)) {
            free(out);
            return NULL;
        }
        *p++ = (char)(hi << 4 | lo);
        i += 2;
    }
    *p = 0;
    return out;
}

/* --- file names ---------------------------------------------------------------------------------------- */
int name_check(const char *name, pr_err *err)
{
    if (!*name) return pr_fail(err, PR_EUSAGE, "an empty file name");
    if (strlen(name) > NAME_MAX_BYTES)
        return pr_fail(err, PR_EUSAGE, "a file name of %zu bytes, expected at most %d", strlen(name),
                       NAME_MAX_BYTES);
    if (*name == '.') return pr_fail(err, PR_EUSAGE, "%s: refused: a file name that begins with a dot", name);
    for (const char *p = name; *p; p++) {
        if (*p == '/' || *p == '\\')
            return pr_fail(err, PR_EUSAGE,
                           "%s: refused: a file name with a %s, which could lead out of the folder", name,
                           *p == '/' ? "slash" : "backslash");
        if ((unsigned char)*p < 0x20 || *p == 0x7F)
            return pr_fail(err, PR_EUSAGE, "%s: refused: a file name with control characters", name);
    }
    return PR_OK;
}

int name_check_path(const char *path, pr_err *err)
{
    const char *slash, *p;

    for (p = path; (slash = strchr(p, '/')); p = slash + 1) {
        size_t n = (size_t)(slash - p);
        if (!n || (n == 1 && *p == '.') || (n == 2 && !memcmp(p, "..", 2)))
            return pr_fail(err, PR_EUSAGE, "%.200s: refused: not a path inside a repository", path);
    }
    return name_check(p, err);
}

bool name_is_gguf(const char *name)
{
    size_t n = strlen(name);
    return n > 5 && strcasecmp(name + n - 5, ".gguf") == 0;
}

/* Five digits at p. */
static bool five_digits(const char *p, uint32_t *v)
{
    *v = 0;
    for (int i = 0; i < 5; i++) {
        if (!isdigit((unsigned char)p[i])) return false;
        *v = *v * 10 + (uint32_t)(p[i] - '0');
    }
    return true;
}

bool name_split(const char *name, uint32_t *part, uint32_t *count, size_t *stem)
{
    enum { SUFFIX = sizeof "-00001-of-00002.gguf" - 1 };
    size_t n = strlen(name);
    const char *p = name + n - SUFFIX;
    uint32_t no, of;

    *part = *count = 1;
    *stem = name_is_gguf(name) ? n - 5 : n;
    if (n <= SUFFIX || *p != '-' || !five_digits(p + 1, &no) || memcmp(p + 6, "-of-", 4) != 0 ||
        !five_digits(p + 10, &of) || strcmp(p + 15, ".gguf") != 0 || no < 1 || no > of || of > NAME_MAX_PARTS)
        return false;
    *part = no;
    *count = of;
    *stem = n - SUFFIX;
    return true;
}

char *name_of_part(const char *name, uint32_t part)
{
    char *copy = strdup(name), digits[16];
    uint32_t old, count;
    size_t stem;

    if (copy && name_split(name, &old, &count, &stem)) {
        snprintf(digits, sizeof digits, "%05u", (unsigned)part);
        memcpy(copy + stem + 1, digits, 5);
    }
    return copy;
}

/* --- quantisations ------------------------------------------------------------------------------------- */
/* What may follow "Q4", each behind an underscore. */
static const char *const pieces[] = {"0",   "1",  "4",   "8",  "K",  "S",  "M",  "L",   "P",  "XS",
                                     "XXS", "XL", "XXL", "NL", "KS", "KL", "KT", "KSS", "R4", "R8"};
/* Types of one word. */
static const char *const words[][2] = {{"F16", "F16"},     {"FP16", "F16"},   {"F32", "F32"},
                                       {"FP32", "F32"},    {"BF16", "BF16"},  {"F64", "F64"},
                                       {"MXFP4", "MXFP4"}, {"NVFP4", "NVFP4"}};

/* Length of the run of letters and digits at s. */
static size_t run_length(const char *s)
{
    size_t n = 0;
    while (isalnum((unsigned char)s[n])) n++;
    return n;
}

static bool is_piece(const char *s, size_t n)
{
    for (size_t i = 0; i < sizeof pieces / sizeof *pieces; i++) {
        if (strlen(pieces[i]) == n && strncasecmp(s, pieces[i], n) == 0) return true;
    }
    return false;
}

/* Length of the quantisation that begins at s, which is the beginning of a word; 0: none. *canonical is its
 * name where that is not its text. */
static size_t quant_length(const char *s, const char **canonical)
{
    size_t n = run_length(s), at = 0;

    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        if (strlen(words[i][0]) != n || strncasecmp(s, words[i][0], n)) continue;
        *canonical = words[i][1];
        return n;
    }
    *canonical = NULL;
    if (toupper((unsigned char)s[at]) == 'I' || toupper((unsigned char)s[at]) == 'T') at++;
    if (toupper((unsigned char)s[at]) != 'Q' || !isdigit((unsigned char)s[at + 1]) || at + 2 != n) return 0;
    while (s[n] == '_' && is_piece(s + n + 1, run_length(s + n + 1))) n += 1 + run_length(s + n + 1);
    return n;
}

static void put_quant(char out[NAME_QUANT_BYTES], const char *prefix, const char *s, size_t n)
{
    size_t at = (size_t)snprintf(out, NAME_QUANT_BYTES, "%s", prefix);

    for (size_t i = 0; i < n && at + 1 < NAME_QUANT_BYTES; i++)
        out[at++] = (char)toupper((unsigned char)s[i]);
    out[at] = 0;
}

/* The last quantisation in s[0, n). */
static void find_quant(const char *s, size_t n, char out[NAME_QUANT_BYTES])
{
    const char *canonical;

    *out = 0;
    for (size_t i = 0; i < n;) {
        size_t len = quant_length(s + i, &canonical);

        if (len && i + len <= n) {
            const char *prefix = i >= 3 && strncasecmp(s + i - 3, "UD-", 3) == 0 &&
                                         (i == 3 || !isalnum((unsigned char)s[i - 4]))
                                     ? "UD-"
                                     : "";
            put_quant(out, prefix, canonical ? canonical : s + i, canonical ? strlen(canonical) : len);
            i += len;
        } else {
            i += run_length(s + i);
        }
        while (i < n && !isalnum((unsigned char)s[i])) i++;
    }
}

void name_quant(const char *path, char out[NAME_QUANT_BYTES])
{
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path, *folder;
    uint32_t part, count;
    size_t stem;

    name_split(name, &part, &count, &stem);
    find_quant(name, stem, out);
    if (*out || !slash) return;
    for (folder = slash; folder > path && folder[-1] != '/';) folder--;
    find_quant(folder, (size_t)(slash - folder), out);
}

bool name_quant_typed(const char *text, char out[NAME_QUANT_BYTES])
{
    size_t n = strlen(text);

    if (!n || n >= NAME_QUANT_BYTES) return false;
    for (const char *p = text; *p; p++) {
        if (!isalnum((unsigned char)*p) && !strchr("_-.", *p)) return false;
    }
    find_quant(text, n, out);
    if (!*out || strlen(out) + 1 < n) put_quant(out, "", text, n); /* a word of the publisher's own */
    return true;
}

/* --- kinds --------------------------------------------------------------------------------------------- */
static bool has_word(const char *s, const char *word)
{
    size_t n = strlen(word);

    for (const char *p = s; *p; p++) {
        if (strncasecmp(p, word, n) == 0 && (p == s || !isalnum((unsigned char)p[-1])) &&
            !isalnum((unsigned char)p[n]))
            return true;
    }
    return false;
}

const char *name_kind(const char *path)
{
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    char quant[NAME_QUANT_BYTES];

    if (has_word(name, "mmproj")) return "mmproj";
    find_quant(name, strlen(name), quant);
    if (!*quant && has_word(name, "imatrix")) return "imatrix"; /* else: quantised with the help of one */
    if (!*quant && has_word(name, "vocab")) return "vocab";
    return "model";
}
