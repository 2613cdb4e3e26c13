/* Fibers: a stack each, and a switch from one to the other, which saves what the calling convention asks a
 * function to keep and nothing else (swapcontext also asks the kernel for the signal mask: 100 times slower).
 * AddressSanitizer is told of each. */
#ifndef PRIMA_TESTS_GPU_EMULATE_SWITCH_H
#define PRIMA_TESTS_GPU_EMULATE_SWITCH_H
#include <stdbool.h>
#include <stddef.h>

#ifdef __SANITIZE_ADDRESS__
enum { FIBER_STACK_BYTES = 256 << 10 };
#else
enum { FIBER_STACK_BYTES = 64 << 10 };
#endif

typedef struct {
    void *stack_pointer; /* while it does not run */
    char *stack;         /* lowest address */
    size_t stack_bytes;
    void *fake_stack; /* AddressSanitizer's */
} fiber;

/* Gives f a stack, with an unmapped page below it, for as long as the process runs; false: no memory. */
bool fiber_init(fiber *f);
/* The next switch to f begins entry, which must not return. */
void fiber_begin(fiber *f, void (*entry)(void));
/* From the one that runs to another. ends: `from` will not be switched to before fiber_begin. */
void fiber_switch(fiber *from, fiber *to, bool ends);
/* First thing in entry. main: what the first of all switches came from, which has its stack from elsewhere.
 */
void fiber_entered(fiber *main);

#endif
