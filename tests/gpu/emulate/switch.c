/* The switch in assembly, for the two instruction sets that prima is built for. */
#include "tests/gpu/emulate/switch.h"
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/common_interface_defs.h>
#endif

/* Push what must be kept, *save = stack pointer, stack pointer = load, pop, return. */
void emu_switch_stacks(void **save, void *load);
#if defined(__x86_64__)
enum { FRAME_WORDS = 8, RETURN_WORD = 6 }; /* 6 registers, entry, and where entry must not return to */
__asm__(".text\n"
        ".globl emu_switch_stacks\n"
        ".type emu_switch_stacks, @function\n"
        "emu_switch_stacks:\n"
        "    push %rbp\n"
        "    push %rbx\n"
        "    push %r12\n"
        "    push %r13\n"
        "    push %r14\n"
        "    push %r15\n"
        "    mov %rsp, (%rdi)\n"
        "    mov %rsi, %rsp\n"
        "    pop %r15\n"
        "    pop %r14\n"
        "    pop %r13\n"
        "    pop %r12\n"
        "    pop %rbx\n"
        "    pop %rbp\n"
        "    ret\n"
        ".size emu_switch_stacks, . - emu_switch_stacks\n");
#elif defined(__aarch64__)
enum { FRAME_WORDS = 20, RETURN_WORD = 11 }; /* x19 .. x30, d8 .. d15 */
__asm__(".text\n"
        ".globl emu_switch_stacks\n"
        ".type emu_switch_stacks, %function\n"
        "emu_switch_stacks:\n"
        "    sub sp, sp, #160\n"
        "    stp x19, x20, [sp, #0]\n"
        "    stp x21, x22, [sp, #16]\n"
        "    stp x23, x24, [sp, #32]\n"
        "    stp x25, x26, [sp, #48]\n"
        "    stp x27, x28, [sp, #64]\n"
        "    stp x29, x30, [sp, #80]\n"
        "    stp d8, d9, [sp, #96]\n"
        "    stp d10, d11, [sp, #112]\n"
        "    stp d12, d13, [sp, #128]\n"
        "    stp d14, d15, [sp, #144]\n"
        "    mov x9, sp\n"
        "    str x9, [x0]\n"
        "    mov sp, x1\n"
        "    ldp x19, x20, [sp, #0]\n"
        "    ldp x21, x22, [sp, #16]\n"
        "    ldp x23, x24, [sp, #32]\n"
        "    ldp x25, x26, [sp, #48]\n"
        "    ldp x27, x28, [sp, #64]\n"
        "    ldp x29, x30, [sp, #80]\n"
        "    ldp d8, d9, [sp, #96]\n"
        "    ldp d10, d11, [sp, #112]\n"
        "    ldp d12, d13, [sp, #128]\n"
        "    ldp d14, d15, [sp, #144]\n"
        "    add sp, sp, #160\n"
        "    ret\n"
        ".size emu_switch_stacks, . - emu_switch_stacks\n");
#else
#error "the emulated GPU knows how to switch stacks on x86-64 and aarch64 only"
#endif

/* Stacks begin at different places of their pages, or all would fall into the same few sets of the caches. */
bool fiber_init(fiber *f)
{
    static size_t n;
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    char *p =
        mmap(NULL, page + FIBER_STACK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (p == MAP_FAILED) return false;
    if (mprotect(p, page, PROT_NONE)) return false;
    *f = (fiber){.stack = p + page, .stack_bytes = FIBER_STACK_BYTES - n++ % 32 * 832};
    return true;
}

/* A frame that the switch pops: all zeros but for the place where it returns to. */
void fiber_begin(fiber *f, void (*entry)(void))
{
    void **frame = (void **)(void *)(f->stack + f->stack_bytes) - FRAME_WORDS;

    memset(frame, 0, FRAME_WORDS * sizeof *frame);
    frame[RETURN_WORD] = (void *)(uintptr_t)entry;
    f->stack_pointer = frame;
    f->fake_stack = NULL;
}

#ifdef __SANITIZE_ADDRESS__
void fiber_switch(fiber *from, fiber *to, bool ends)
{
    __sanitizer_start_switch_fiber(ends ? NULL : &from->fake_stack, to->stack, to->stack_bytes);
    emu_switch_stacks(&from->stack_pointer, to->stack_pointer);
    __sanitizer_finish_switch_fiber(from->fake_stack, NULL, NULL);
}

void fiber_entered(fiber *main)
{
    const void *stack;
    size_t bytes;

    __sanitizer_finish_switch_fiber(NULL, &stack, &bytes);
    if (main->stack) return;
    main->stack = (char *)stack;
    main->stack_bytes = bytes;
}
#else
void fiber_switch(fiber *from, fiber *to, bool ends)
{
    (void)ends;
    emu_switch_stacks(&from->stack_pointer, to->stack_pointer);
}

void fiber_entered(fiber *main)
{
    (void)main;
}
#endif
