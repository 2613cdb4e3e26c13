/* The cluster's key: 32 random bytes in a file, the same on every device. Who holds it belongs to the
 * cluster.
 *
 * The file is 64 hexadecimal digits and an optional newline, mode 0600, owned by the user; anything else is
 * PR_EAUTH with a message that says how to mend it. */
#ifndef PRIMA_NET_KEY_H
#define PRIMA_NET_KEY_H
#include "src/base/err.h"
#include <stddef.h>
#include <stdint.h>

enum { KEY_BYTES = 32, KEY_ID_BYTES = 17 /* 16 hex digits and NUL */ };

/* What is derived from the key (HKDF-SHA256); the file's bytes themselves are used for nothing else. */
typedef struct {
    uint8_t psk[KEY_BYTES]; /* the pre-shared key of TLS */
    char id[KEY_ID_BYTES];  /* public name of the key: tells keys apart, says nothing about them */
} cluster_key;

/* Where the key is: `given` ("~/" is the home folder), else PRIMA_KEY_FILE, else
 * $XDG_CONFIG_HOME/prima/cluster.key, else ~/.config/prima/cluster.key. PR_EAUTH when none of these is set.
 */
int key_path(char *out, size_t n, const char *given, pr_err *err);
int key_read(cluster_key *out, const char *path, pr_err *err);
/* A fresh key into a new file (and the folders on the way to it, mode 0700). An existing file is never
 * touched. */
int key_create(cluster_key *out, const char *path, pr_err *err);
void key_clear(cluster_key *k); /* wipes */

#endif
