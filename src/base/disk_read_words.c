/* How a disk is read, in four words: "uring direct 1048576 16" is engine, mode, block bytes and depth. */
#include "src/base/disk_read.h"
#include <stdio.h>
#include <string.h>

static const char *const engine_word[] = {
    [DISK_READ_AUTO] = "auto", [DISK_READ_URING] = "uring", [DISK_READ_PREAD] = "pread"};
static const char *const mode_word[] = {[DISK_READ_DIRECT] = "direct", [DISK_READ_BUFFERED] = "buffered"};

void disk_read_words(const disk_read_options *o, char out[DISK_READ_WORDS_BYTES])
{
    snprintf(out, DISK_READ_WORDS_BYTES, "%s %s %zu %u", engine_word[o->engine], mode_word[o->mode],
             o->block_bytes, o->depth);
}

bool disk_read_parse(disk_read_options *o, const char *words)
{
    char engine[8], mode[12];
    int e = DISK_READ_AUTO, m = DISK_READ_DIRECT, end = 0;
    unsigned long block;
    unsigned depth;

    if (sscanf(words, "%7s %11s %10lu %6u%n", engine, mode, &block, &depth, &end) != 4 || words[end])
        return false;
    while (e <= DISK_READ_PREAD && strcmp(engine, engine_word[e])) e++;
    while (m <= DISK_READ_BUFFERED && strcmp(mode, mode_word[m])) m++;
    if (e > DISK_READ_PREAD || m > DISK_READ_BUFFERED || block > DISK_READ_MAX_BLOCK ||
        depth > DISK_READ_MAX_DEPTH || (block && (block < DISK_READ_ALIGN || block & (block - 1))))
        return false;
    o->engine = (disk_read_engine)e;
    o->mode = (disk_read_mode)m;
    o->block_bytes = block;
    o->depth = depth;
    return true;
}
