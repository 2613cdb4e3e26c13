/* Whether files are what they should be: SHA-256, the NAME.sha256 beside them (as sha256sum writes and reads
 * it), GGUF structure. */
#ifndef PRIMA_PULL_VERIFY_H
#define PRIMA_PULL_VERIFY_H
#include "src/base/err.h"
#include "src/base/hash.h"
#include "src/pull/meter.h"
#include <stdbool.h>
#include <stddef.h>

/* SHA-256 of a file; meter and stop may be NULL. The meter is told of the bytes of this file (meter_file is
 * the caller's). PR_ERESOURCE, PR_EINTERRUPTED. */
int verify_hash(const char *path, char hex[HASH_HEX_BYTES], meter *m, const volatile int *stop, pr_err *err);

/* The hash that PATH.sha256 names for PATH; "" when there is no such file. PR_EINTEGRITY: it is there and
 * names none. */
int verify_sidecar_read(const char *path, char hex[HASH_HEX_BYTES], pr_err *err);
int verify_sidecar_write(const char *path, const char *hex, pr_err *err);

/* The files of one model, which are at now[i] and are, or will be, called path[i] (a split model's parts are
 * found by their names): opened as `prima run` opens them. PR_EINTEGRITY names path[i]. */
int verify_gguf(const char *const *now, const char *const *path, size_t n, pr_err *err);

typedef struct {
    const char *sha256; /* what a model of one file must have, beside what its sidecar says; NULL: none */
    bool print;         /* "HEX  PATH" of each file on stdout */
    meter *meter;
    const volatile int *stop;
} verify_options;
/* All parts of the model that PATH is (a part of), each against its NAME.sha256; logs what was compared. A
 * file without NAME.sha256 is only hashed, and that is said. PR_EINTEGRITY: one differs, is malformed, or a
 * part is missing; PR_ERESOURCE: PATH cannot be read. */
int verify_model(const char *path, const verify_options *o, pr_err *err);

#endif
