/* Limits on processor time are for the optimised build. */
#ifndef PRIMA_TESTS_PLANNER_SLOWER_H
#define PRIMA_TESTS_PLANNER_SLOWER_H
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { SLOWER = 20 };
#else
enum { SLOWER = 1 };
#endif
#endif
