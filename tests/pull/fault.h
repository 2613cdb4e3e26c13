/* What the files of the fault server share: a request as it was read, an answer as it will be sent, and the
 * rules between the two. Strings are bounded; what is longer is cut or refused: the only clients are tests.
 */
#ifndef PRIMA_TESTS_PULL_FAULT_H
#define PRIMA_TESTS_PULL_FAULT_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { FAULT_TEXT = 1024, FAULT_HEADERS = 4096 };

typedef struct {
    const char *listener;    /* where it came in: "main", "six" (the same on ::1) or "cdn" */
    char method[16];         /* GET or HEAD */
    char target[FAULT_TEXT]; /* as sent, without spaces */
    char path[FAULT_TEXT];   /* decoded, begins with a slash; no query */
    char query[FAULT_TEXT];  /* as sent, "" when there is none */
    char host[256];
    char range[128], if_range[256], authorization[512], accept_encoding[128]; /* "" when not sent */
    bool is_proxied; /* the target was a whole URL: we are asked as a proxy */
} request;

/* A body is a file or a text; [first, end) of it is sent. */
typedef struct {
    int status;
    char headers[FAULT_HEADERS]; /* lines ending in \r\n, besides length, range and connection */
    char etag[256];              /* with its quotes; "" none */
    int fd;                      /* -1: the body is text */
    char *text;                  /* malloc'ed, or NULL: no body */
    uint64_t bytes;              /* of the whole file or text */
    bool takes_ranges;
} answer;

void answer_init(answer *a);
void answer_clear(answer *a);
void answer_header(answer *a, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Another body than before; a file that is not there becomes 404. */
void answer_text(answer *a, int status, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
void answer_file(answer *a, const char *path);

/* --- rules ---------------------------------------------------------------------------------- */

enum { CUT_NONE = -1 };
typedef struct {
    unsigned line;    /* in the rules file, from 1; 0: no rule */
    int status;       /* 0: as it would be */
    int64_t cut;      /* bytes of the body after which the connection is closed; CUT_NONE */
    int64_t stall;    /* bytes of the body after which nothing more is said; CUT_NONE */
    int64_t truncate; /* the body ends here, and the headers say so; CUT_NONE */
    int64_t length;   /* the Content-Length claimed; CUT_NONE: the right one */
    int64_t corrupt;  /* offset in the file of a byte that is sent wrong; CUT_NONE */
    int64_t shift;    /* bytes from so much further on than asked for; 0 none */
    uint64_t rate;    /* bytes a second; 0: as fast as it goes */
    bool no_ranges, chunked, reset;
    char redirect[FAULT_TEXT], etag[256], content_range[128], header[FAULT_TEXT];
} fault;

/* The rules file; may be NULL. Read again when it is another file than before (mv), and counts begin anew. */
void rules_open(const char *path, uint64_t seed);
/* The fault of the first line that fits and still holds; line 0 when there is none. */
void rules_match(fault *out, const request *q);

/* --- the hub (tests/pull/README.md) ----------------------------------------------------------- */

/* root: OWNER/REPO/.files and what it names. cdn: "127.0.0.1:PORT". Addresses of the CDN hold for expires_ms.
 */
void hub_open(const char *root, const char *cdn, unsigned page, unsigned expires_ms);
/* False: the path is none of the hub's. */
bool hub_answer(const request *q, answer *a);

/* --- what is answered --------------------------------------------------------------------------------- */

/* What the path names (the hub's, or a file of the folder), and what the fault makes of it. */
void answer_request(answer *a, const char *folder, const request *q, const fault *f);
/* The part [first, end) of the body that is asked for; status and Content-Range with it. */
void answer_range(answer *a, const request *q, const fault *f, uint64_t *first, uint64_t *end);

#endif
