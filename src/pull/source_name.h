/* What file names of models say, and how they stand in addresses. Pure functions of text from users and
 * servers. */
#ifndef PRIMA_PULL_SOURCE_NAME_H
#define PRIMA_PULL_SOURCE_NAME_H
#include "src/base/err.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A copy with everything but letters, digits and -._~ as %XX; '/' stays when keep_slash. NULL: out of memory.
 */
char *name_encode(const char *s, bool keep_slash);
/* n bytes of an address with %XX decoded. NULL when a %XX is malformed or is a NUL. */
char *name_decode(const char *s, size_t n);

/* Whether `name` can be a file name of ours: one path component without control characters, backslash or a
 * dot in front, at most 240 bytes. PR_EUSAGE says why not. */
int name_check(const char *name, pr_err *err);
/* The same for "folder/folder/name": no component is empty, "." or "..". */
int name_check_path(const char *path, pr_err *err);
bool name_is_gguf(const char *name); /* ends in .gguf, in any case */

/* "x-00002-of-00003.gguf" is part 2 of 3; false, and *part = *count = 1, when the name says no such thing.
 * stem: length of the name before "-00002-". */
enum { NAME_MAX_PARTS = 1000 };
bool name_split(const char *name, uint32_t *part, uint32_t *count, size_t *stem);
/* The name of another part of the same model; caller frees. NULL: out of memory. */
char *name_of_part(const char *name, uint32_t part);

/* The quantisation that a path in a repository names, upper case: "Q4_K_M", "UD-IQ2_XXS", "BF16" (the file
 * name first, then the folder); "" when none. */
enum { NAME_QUANT_BYTES = 24 };
void name_quant(const char *path, char out[NAME_QUANT_BYTES]);
/* The same form for what a user typed (upper case; FP16 is F16); false: no such word. */
bool name_quant_typed(const char *text, char out[NAME_QUANT_BYTES]);

/* "model", or what else GGUF files are made for: "mmproj", "imatrix", "vocab". */
const char *name_kind(const char *path);

#endif
