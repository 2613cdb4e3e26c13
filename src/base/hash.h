/* SHA-256 through OpenSSL. */
#ifndef PRIMA_BASE_HASH_H
#define PRIMA_BASE_HASH_H
#include "src/base/err.h"
#include <stddef.h>
#include <stdint.h>

#define HASH_HEX_BYTES 65 /* 64 digits and NUL */
void hash_sha256_hex(const void *data, size_t n, char out[HASH_HEX_BYTES]);
/* The same in pieces; hash_end frees. */
typedef struct hash_pieces hash_pieces;
hash_pieces *hash_begin(void);
void hash_add(hash_pieces *h, const void *data, size_t n);
void hash_end(hash_pieces *h, char out[HASH_HEX_BYTES]);
int hash_file_hex(const char *path, char out[HASH_HEX_BYTES], pr_err *err);
/* First 8 bytes of SHA-256(a in decimal, NUL, b) as a little-endian integer: seeds derived from strings. */
uint64_t hash_seed(uint64_t a, const char *b);

#endif
