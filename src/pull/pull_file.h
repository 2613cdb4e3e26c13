/* One file of a pull and what happens to it on the disk: is it there already, is there room, is it right, and
 * the final name. For pull.c alone. */
#ifndef PRIMA_PULL_PULL_FILE_H
#define PRIMA_PULL_PULL_FILE_H
#include "net/fetch.h"
#include "src/base/hash.h"
#include "src/pull/pull.h"

typedef struct {
    const source_file *from;
    fetch_facts facts;
    char *path, *part, *bad; /* DIR/NAME, and that with .part and .bad */
    uint64_t bytes;
    char expected[HASH_HEX_BYTES]; /* "" when nobody says what it should be */
    const char *expected_from;     /* who says it */
    char found[HASH_HEX_BYTES];    /* of what is there; "" when it was not computed */
    bool is_there;                 /* under its final name, and right as far as can be known */
    bool is_known;                 /* is_there, and compared with a hash */
    pull_ranges get;               /* what is fetched */
    int lock;                      /* of .part while it is checked and renamed, or -1 */
} pull_file;

int pull_file_init(pull_file *x, const source_file *from, const char *dir, pr_err *err);
void pull_file_clear(pull_file *x);

/* Sets is_there when the final file is there and right. A file with a sidecar that is not older is believed
 * without reading it. PR_EMISMATCH: it is another one. */
int pull_file_look(pull_file *x, meter *m, const volatile int *stop, pr_err *err);

/* Bytes still to come, for the room that is needed: the ranges less what .part has on the disk. */
uint64_t pull_file_missing(const pull_file *x);

/* Nobody else fetches or renames .part from here on, and it is as long as it should be. */
int pull_file_lock(pull_file *x, pr_err *err);
/* SHA-256 of .part, compared with what is expected: PR_EINTEGRITY, and it is set aside. */
int pull_file_check(pull_file *x, meter *m, const volatile int *stop, pr_err *err);
/* .part becomes .bad, and nothing of it is resumed. */
void pull_file_set_aside(pull_file *x);
/* The final name, which must be free (PR_EMISMATCH), the sidecar when there is a hash, and no journal any
 * more. */
int pull_file_place(pull_file *x, pr_err *err);

#endif
