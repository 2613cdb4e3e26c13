/* CSV (RFC 4180) one record at a time; LF line ends, header first, quoting only where needed. */
#ifndef PRIMA_BASE_CSV_H
#define PRIMA_BASE_CSV_H
#include "src/base/err.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct csv csv;

/* Create (truncate) path, or append to it when `append` and it already has the same header (else
 * PR_EMISMATCH); a last record that a crash left without its end is cut. `header` is "a,b,c". */
int csv_open(csv **out, const char *path, const char *header, bool append, pr_err *err);
void csv_str(csv *c, const char *s); /* NULL = empty field */
void csv_int(csv *c, int64_t v);
void csv_num(csv *c, double v, int decimals); /* NaN or infinite = empty field */
/* End the record: one write(2). Asserts that the number of fields equals the header's. */
int csv_row(csv *c, pr_err *err);
int csv_close(csv *c, pr_err *err); /* fsync and close; NULL is fine */

#endif
