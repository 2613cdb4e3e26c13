/* A memory control group of Linux (v1 or v2) around a process of a benchmark: what it may take, and what it
 * took. */
#ifndef PRIMA_BENCH_CAGE_H
#define PRIMA_BENCH_CAGE_H
#include <stdbool.h>
#include <stdint.h>

typedef struct {
    char dir[256];
    bool v2;
} bench_cage;

/* false: there is none to be had here (not root, no controller); why says so. */
bool bench_cage_make(bench_cage *c, uint64_t bytes, char why[160]);
/* The calling process, from here on. */
bool bench_cage_enter(const bench_cage *c);
uint64_t bench_cage_peak(const bench_cage *c); /* bytes, page cache included; 0: not known */
void bench_cage_remove(const bench_cage *c);   /* when the process has ended */

#endif
