/* Where the shared test data lies: PRIMA_TEST_DATA, else ../shared/data beside the repository. */
#ifndef PRIMA_TESTS_DATA_H
#define PRIMA_TESTS_DATA_H
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

/* Path of a data file (a static buffer of 8 rotating places); skips the running test when it is absent. */
const char *test_data(const char *rel);
/* The same without skipping: NULL when absent. */
const char *test_data_or_null(const char *rel);
/* A JSON file as a value (fails the test when malformed); skips when absent. Caller decrefs. */
json_t *test_data_json(const char *rel);
/* Bytes of a hex string; n_out bytes, malloc'ed. */
unsigned char *test_unhex(const char *hex, size_t *n_out);

#endif
