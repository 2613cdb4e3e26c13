/* Errors: a code and a message, returned as a value and printed once, by src/main.c.
 *
 * A function that can fail returns PR_OK (0) or a negative code and takes `pr_err *err` as its last
 * parameter, which may be NULL. The code is the negated exit status (conventions: exit codes), so
 * there is one table of them. */
#ifndef PRIMA_BASE_ERR_H
#define PRIMA_BASE_ERR_H

typedef enum {
    PR_OK = 0,
    PR_EINTERNAL = -1,     /* a bug of ours */
    PR_EUSAGE = -2,        /* options, configuration syntax, an input file refused as a whole */
    PR_EPARTIAL = -3,      /* finished, some requests failed */
    PR_EINFEASIBLE = -4,   /* no plan fits; the message says which budget and by how much */
    PR_EMISMATCH = -5,     /* plan, model, profile or manifest differ */
    PR_EPEER = -6,         /* a peer is lost or late */
    PR_EAUTH = -7,         /* key file or handshake */
    PR_EINTEGRITY = -8,    /* malformed, truncated or corrupted file */
    PR_ERESOURCE = -9,     /* disk full, out of memory, I/O error */
    PR_ENETWORK = -10,     /* HTTP or network failure of `pull` */
    PR_EINTERRUPTED = -130 /* a signal; state is saved */
} pr_code;

#define PR_MSG_BYTES 480
typedef struct {
    pr_code code;
    char msg[PR_MSG_BYTES]; /* a longer message is cut and ends in "..." */
} pr_err;

/* Set code and message; returns the code so that `return pr_fail(err, PR_EUSAGE, ...)` reads well. */
int pr_fail(pr_err *err, pr_code code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* Like pr_fail, with ": strerror(errno)" at the end. Call it before anything that may change errno. */
int pr_fail_errno(pr_err *err, pr_code code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* Put "context: " in front of the message on the way up; keeps and returns the code (PR_EINTERNAL when err is
 * NULL). */
int pr_wrap(pr_err *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
