/* Threads have the room that planning needs, whatever the system's own choice is. */
#include "src/base/thread.h"
#include <criterion/criterion.h>

enum { ROOM_BYTES = 6 << 20, STEP_BYTES = 64 << 10 };

/* Touches the stack step by step; not a loop that a compiler could make of it. */
static int reach_down(size_t left)
{
    volatile char block[STEP_BYTES];

    block[0] = (char)left;
    if (left <= sizeof block) return block[0];
    return reach_down(left - sizeof block) + block[0];
}

static void *reach(void *arg)
{
    *(int *)arg = reach_down(ROOM_BYTES) | 1;
    return NULL;
}

/* Where the choice can be made another one, it is as small as musl's here. */
Test(thread, has_room)
{
    pthread_t t;
    int done = 0;

#ifdef __GLIBC__
    pthread_attr_t small;
    cr_assert_eq(pthread_attr_init(&small), 0);
    cr_assert_eq(pthread_attr_setstacksize(&small, 128 << 10), 0);
    cr_assert_eq(pthread_setattr_default_np(&small), 0);
#endif
    cr_assert_eq(thread_start(&t, reach, &done), 0);
    cr_assert_eq(pthread_join(t, NULL), 0);
    cr_expect(done);
}
