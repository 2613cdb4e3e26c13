/* The page of a profile for `prima inspect`. */
#ifndef PRIMA_INSPECT_PROFILE_H
#define PRIMA_INSPECT_PROFILE_H
#include "src/base/err.h"
#include <stdbool.h>

/* Does the file look like one? profile_read decides. */
bool inspect_is_profile(const char *path);
int inspect_profile(const char *path, pr_err *err);

#endif
