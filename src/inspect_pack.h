/* A pack of layers for `prima inspect`. */
#ifndef PRIMA_INSPECT_PACK_H
#define PRIMA_INSPECT_PACK_H
#include "src/base/err.h"
#include <stdbool.h>

/* Does the path look like one: its folder, or one of the two files in it? pack_file_about decides. */
bool inspect_is_pack(const char *path);
/* A page, or one JSON object with the same content. */
int inspect_pack(const char *path, bool json, pr_err *err);

#endif
