/* One progress display over all files of a pull: "fetching qwq-32b.gguf: 12.3 of 19.9 GB, 11.2 MB/s, 11 min
 * 20 s left". A line on a terminal (log_progress), else a log line at most every 10 s. One thread. */
#ifndef PRIMA_PULL_METER_H
#define PRIMA_PULL_METER_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { METER_POINTS = 16, METER_LINE_BYTES = 200, METER_WHAT_BYTES = 80 };

typedef struct {
    char what[METER_WHAT_BYTES]; /* "fetching NAME" */
    bool is_terminal;
    uint64_t before, total; /* bytes of the files before this one; of all */
    uint64_t done;          /* of the phase; never falls */
    uint64_t said_ns;       /* when the last log line was written, or the phase began */
    struct {
        uint64_t at_ns, done;
    } point[METER_POINTS]; /* half a second apart, a ring */
    size_t n;              /* points ever */
} meter;

/* A phase ("fetching", "checking") over `total` bytes begins. */
void meter_begin(meter *m, uint64_t total);
/* The next file of the phase; `before` bytes of the phase lie before it. */
void meter_file(meter *m, const char *verb, const char *name, uint64_t before);
/* `done` bytes of this file are there. */
void meter_note(meter *m, uint64_t done);
/* The same as a callback of fetch; arg is the meter. */
void meter_fetched(void *arg, uint64_t done, uint64_t total);
/* The line goes away. */
void meter_end(meter *m);

/* What meter_note does at a moment of clock_ns(), without showing it; and what is shown then: for tests. */
void meter_count(meter *m, uint64_t now_ns, uint64_t done);
void meter_text(const meter *m, uint64_t now_ns, char *out, size_t n);

#endif
