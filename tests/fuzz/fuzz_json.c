/* json_parse on any bytes; what it accepts must survive being written and read again. */
#include "src/base/json.h"
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    pr_err err;
    json_t *v = json_parse((const char *)data, n, &err), *again;
    char *line;

    if (!v) return 0;
    line = json_line(v);
    if (!line) abort();
    again = json_parse(line, strlen(line), &err);
    if (!again || !json_equal(v, again)) abort();
    free(line);
    json_decref(v);
    json_decref(again);
    return 0;
}
