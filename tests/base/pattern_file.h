/* A file whose bytes are known by their offset, for tests that read it in another order. */
#ifndef PRIMA_TESTS_PATTERN_FILE_H
#define PRIMA_TESTS_PATTERN_FILE_H
#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* splitmix64 of the number of the 8 bytes. */
static inline uint64_t pattern_word(uint64_t i)
{
    uint64_t z = (i + 1) * 0x9e3779b97f4a7c15u;

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static inline uint8_t pattern_byte(uint64_t at)
{
    return (uint8_t)(pattern_word(at / 8) >> at % 8 * 8);
}

/* The file has n bytes, on the disk and not in the cache where the system does what it is told. */
static inline void pattern_write(const char *path, size_t n)
{
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
    uint64_t *data = malloc(n + 8);
    size_t done = 0;

    cr_assert(fd >= 0 && data, "%s", path);
    for (size_t i = 0; i <= n / 8; i++) data[i] = pattern_word(i);
    while (done < n) {
        ssize_t k = write(fd, (char *)data + done, n - done);
        cr_assert_gt(k, 0, "%s", path);
        done += (size_t)k;
    }
    cr_assert_eq(fsync(fd), 0);
#ifdef POSIX_FADV_DONTNEED
    posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
#endif
    close(fd);
    free(data);
}

/* Is p what the file of file_bytes has at [at, at + n), with zeros behind its end? (The words are those of a
 * little-endian machine.) */
static inline bool pattern_is(const uint8_t *p, uint64_t at, size_t n, uint64_t file_bytes)
{
    for (size_t i = 0; i < n; i++)
        if (p[i] != (at + i < file_bytes ? pattern_byte(at + i) : 0)) return false;
    return true;
}

#endif
