/* What `prima run` tells a worker that it starts (`prima worker --stdio`): one JSON line on its standard
 * input, so that nothing is copied by hand and the key is in no file, argument or environment. The input then
 * stays open: its end is the end of the run. */
#ifndef PRIMA_RUN_LAUNCH_ORDER_H
#define PRIMA_RUN_LAUNCH_ORDER_H
#include "net/key.h"
#include "net/sock.h"

typedef struct {
    sock_addr listen;
    bool has_key, insecure;
    cluster_key key;  /* as derived, not the file's bytes */
    int threads;      /* 0 = all */
    char isa[16];     /* "" = the best of that CPU */
    char model[1024]; /* its copy of the model; "" = the plan's path */
} launch_order;

/* PR_EPEER: nobody reads. */
int launch_order_write(int fd, const launch_order *o, pr_err *err);
/* PR_EPEER: no line came in time; PR_EINTERRUPTED: `stop` was raised; PR_EUSAGE: it is not an order. No
 * message quotes it: it holds a key. The caller clears the key. */
int launch_order_read(launch_order *out, int fd, const wake *stop, uint64_t deadline_ns, pr_err *err);

#endif
