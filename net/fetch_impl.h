/* Parts of the fetch engine, for net/fetch*.c alone. From below to above: addresses (fetch_url.c), what a
 * server answers (fetch_answer.c), sets of ranges (fetch_set.c), the journal (fetch_journal.c), PATH.part
 * (fetch_part.c), requests with redirects and retries (fetch_loop.c), and the functions of fetch.h (fetch.c,
 * fetch_ranges.c). */
#ifndef PRIMA_NET_FETCH_IMPL_H
#define PRIMA_NET_FETCH_IMPL_H
#include "net/fetch.h"
#include <curl/curl.h>

enum {
    FETCH_MOST_JOBS = 64,
    FETCH_MOST_HOPS = 10,
    FETCH_SHOWN_BYTES = 200,  /* an address in a message */
    FETCH_ORIGIN_BYTES = 300, /* scheme://host:port */
    FETCH_VALIDATOR_BYTES = 160
};

/* --- addresses (fetch_url.c) ------------------------------------------------------------------------ */
/* An address for people: no user name, password, query or control characters. */
void fetch_url_show(char out[FETCH_SHOWN_BYTES], const char *url);
/* "https://host:443" in lower case; false when it is no such address. */
bool fetch_url_origin(char out[FETCH_ORIGIN_BYTES], const char *url);
/* Its name or address, without brackets. */
bool fetch_url_host(char out[FETCH_ORIGIN_BYTES], const char *url);
/* There is no such name, says the system's resolver, and asking again will not help; false: it is known, or
 * nobody can tell at this moment. Takes as long as the resolver does. (fetch_host.c) */
bool fetch_host_is_unknown(const char *host);
bool fetch_url_same_origin(const char *a, const char *b);
/* May it be asked? http and https only; plain http only on loopback or when it is allowed. */
int fetch_url_check(const char *url, bool insecure_http, pr_code code, pr_err *err);
/* ref, which may be relative, as seen from base; NULL when it is no address. Caller frees. */
char *fetch_url_join(const char *base, const char *ref);
/* For the journal: no user name, password or fragment, and of the query only its hash, for it may hold a
 * signature. NULL: out of memory. Caller frees. */
char *fetch_url_key(const char *url);
/* The path when url is file:// or a plain path (true); *path is NULL when it is file:// but not a path of
 * this machine. Caller frees. */
bool fetch_url_local(const char *url, char **path);

/* --- answers (fetch_answer.c) ----------------------------------------------------------------------- */
typedef struct {
    long status;   /* 0: no answer yet */
    bool complete; /* all of the header is here */
    bool has_length, has_range, range_malformed, has_total, accepts_ranges, accepts_none, encoded;
    uint64_t length;                      /* Content-Length */
    uint64_t first, end, total;           /* Content-Range: [first, end) of total; 416 has the total alone */
    double retry_after_s;                 /* -1: not said */
    char etag[FETCH_VALIDATOR_BYTES];     /* strong, with its quotes, else "" */
    char modified[FETCH_VALIDATOR_BYTES]; /* Last-Modified as it is */
    int64_t date_s, modified_s;           /* -1: not said */
    char *location, *next;                /* as sent; answer_clear */
    /* On the way: kept from one answer to the next of a chain, the first value counts. */
    char linked_etag[FETCH_VALIDATOR_BYTES]; /* X-Linked-Etag, without W/ and quotes */
    bool has_linked_size;
    uint64_t linked_size;
    char commit[65];
} answer;
void answer_clear(answer *a);
/* One header line as it came. trusted: X- fields are believed (the asked host sent it). */
void answer_line(answer *a, const char *line, size_t n, bool trusted);
/* What If-Range may say: the strong ETag, else a Last-Modified that is old enough to be one, else "". */
const char *answer_validator(const answer *a);
bool answer_is_redirect(const answer *a);
bool answer_tag_is(const char *quoted, const char *bare);

/* --- sets of ranges (fetch_set.c) ------------------------------------------------------------------- */
typedef struct {
    fetch_range *r; /* rising, disjoint, not touching */
    size_t n, room;
    uint64_t total; /* bytes in all of them */
} range_set;
void set_clear(range_set *s);
bool set_add(range_set *s, uint64_t first, uint64_t end);    /* false: out of memory, nothing changed */
bool set_remove(range_set *s, uint64_t first, uint64_t end); /* false: out of memory, nothing changed */
bool set_copy(range_set *to, const range_set *from);         /* false: out of memory, nothing changed */
bool set_covers(const range_set *s, uint64_t first, uint64_t end);
/* The first part of [first, end) that is (in: true) or is not in the set; false when there is none. */
bool set_next(const range_set *s, bool in, uint64_t first, uint64_t end, fetch_range *out);

/* --- the journal (fetch_journal.c) ------------------------------------------------------------------ */
typedef struct {
    char *url; /* fetch_url_key */
    char *etag, *commit;
    uint64_t size;
    range_set done;
} journal;
void journal_clear(journal *j);
/* Any bytes: PR_OK, or why they are no journal. */
int journal_parse(journal *out, const char *text, size_t n, pr_err *err);
int journal_read(journal *out, const char *path, pr_err *err); /* PR_ERESOURCE too: no such file */
char *journal_text(const char *url_key, const char *etag, const char *commit, uint64_t size,
                   const range_set *done);

/* Saves the journal beside the download: a thread of its own, for syncing a disk may take long. */
typedef struct journal_writer journal_writer;
int journal_writer_new(journal_writer **out, int fd, const char *part_path, const char *path, pr_err *err);
/* Takes text (also when it fails): first the data of fd so far goes to the disk, then the text to the
 * journal. */
bool journal_writer_busy(journal_writer *w);
void journal_writer_save(journal_writer *w, char *text);
void journal_writer_wait(journal_writer *w); /* until it is not busy: somebody else writes the journal now */
/* The first failure so far, PR_OK when there is none. *lost: it was the data that could not be synced. */
int journal_writer_check(journal_writer *w, bool *lost, pr_err *err);
/* Waits for what it does. *full: the last text found no room. */
void journal_writer_free(journal_writer *w, bool *lost, bool *full);

/* --- PATH.part (fetch_part.c) ----------------------------------------------------------------------- */
typedef struct {
    char *path, *part, *journal; /* PATH, PATH.part, PATH.part.json */
    int fd;                      /* holds the lock */
    char *key, *etag, *commit;   /* whose bytes they are */
    uint64_t size;
    range_set done, saved,
        before; /* received; what the journal may already tell; and did before the last time */
    bool full;  /* the last write found no room */
    bool lost;  /* syncing failed: nothing more may be claimed */
} part;
/* The etag is the hash that a hub gave for the content of x: it holds wherever the bytes are, and is no
 * host's own. */
bool fetch_names_content(const char *etag, const fetch_facts *x);
/* Open, lock, read the journal; starts over when it is of something else. */
int part_open(part **out, const char *path, const fetch_facts *x, pr_err *err);
bool part_is(const part *p, const char *path, const fetch_facts *x);
void part_close(part *p);
/* Room for what is missing of want; whole: keep it reserved. */
int part_reserve(part *p, const range_set *want, bool whole, pr_err *err);
int part_put(part *p, uint64_t offset, const void *data, size_t n, pr_err *err);
/* Nothing of it is valid any more. */
int part_restart(part *p, pr_err *err);
/* The data, then the journal, on the disk. */
int part_save(part *p, pr_err *err);
/* For a journal that somebody else writes now. NULL: out of memory. Caller frees. */
char *part_journal_text(part *p);
void part_not_journaled(part *p); /* the disk had no room for that text */

/* --- requests (fetch_loop.c) ------------------------------------------------------------------------ */
typedef struct slot slot;
typedef struct {
    void *arg;
    /* What to ask next into s (url ... if_range); false: nothing at this moment. */
    bool (*ask)(void *arg, slot *s);
    bool (*finished)(void *arg);
    /* The header of the last answer of a chain is here: 2xx, and 416 when the slot says so. Sets s->again to
     * have it asked again. */
    int (*begin)(void *arg, slot *s, pr_err *err);
    int (*body)(void *arg, slot *s, const char *data, size_t n, pr_err *err);
    /* The answer is over; false: it was too short, ask again. */
    bool (*end)(void *arg, slot *s);
    uint64_t (*news)(void *arg);         /* grows with every byte that was not here before; NULL: never */
    int (*tick)(void *arg, pr_err *err); /* some times a second; NULL: nothing */
} client;

typedef enum { SLOT_IDLE, SLOT_WAITING, SLOT_BUSY } slot_state;
struct slot {
    fetch *f;
    const client *c;
    unsigned i;
    CURL *easy;
    struct curl_slist *headers;
    char curl_error[CURL_ERROR_SIZE];
    slot_state state;
    uint64_t due_ns;
    /* asked */
    const char *url;            /* the caller's, valid while the slot is in use */
    char *start_at;             /* a redirect's target that is known already, NULL: url; the slot's own */
    bool is_head, ranged, stay; /* stay: do not leave the host of url: the redirect itself is the answer */
    bool takes_416;
    bool proven; /* the client has had good answers of this resource before */
    uint64_t first, end;
    char if_range[FETCH_VALIDATOR_BYTES];
    /* the chain so far */
    char *at; /* where it is, NULL: nowhere yet */
    unsigned hops;
    answer a;
    bool accepted, enough; /* begin has been; the rest of the body is not wanted */
    bool again;            /* of begin: as if the connection had been lost */
    bool renew;            /* a known target (start_at) does not answer any more: the client forgets it */
    int rc;                /* failed for good in a callback */
    pr_err err;
    /* pace */
    uint64_t window_ns, window_bytes, discarded;
    unsigned own_failures, failures;
    uint64_t news_seen;
    bool had_bytes;
};
/* Runs n slots until c->finished; on return nothing is in flight. */
int fetch_run(fetch *f, slot *s, unsigned n, const client *c, pr_err *err);
bool fetch_stopped(const fetch *f);
int fetch_interrupted(pr_err *err);

struct fetch {
    fetch_options o;
    char token_origin[FETCH_ORIGIN_BYTES];
    CURLM *multi;
    uint64_t random;
    bool reached;     /* somebody has answered */
    uint64_t hold_ns; /* nothing is asked before: a server said Retry-After */
    part *open;       /* of the last fetch_ranges: keeps the lock */
};

/* --- ranges (fetch_ranges.c; what they are checked for: fetch_check.c) --- */
typedef struct {
    uint64_t pos, end; /* still to come: [pos, end) */
    uint64_t asked;    /* end of the request under way: behind `end` when somebody has taken the rest over */
    uint64_t began_ns;
} piece;

typedef struct {
    fetch *f;
    const fetch_facts *x;
    range_set want, todo; /* todo: wanted, not done, in no piece */
    range_set *done;
    uint64_t total, have, most; /* bytes of want; of these done; the most that have ever been */
    /* Where the bytes go: a file, or memory. */
    part *part;
    char *memory;
    uint64_t memory_first;
    range_set memory_done;
    /* What the answers have shown. */
    bool proven, single, hub;           /* ranges work; there are none; the hub names the content */
    char *address;                      /* behind the redirects */
    char served[FETCH_VALIDATOR_BYTES]; /* validator of the host behind `address` */
    uint64_t stream;                    /* single: how far the whole has been read */
    piece piece[FETCH_MOST_JOBS];
    unsigned jobs;
    uint64_t piece_bytes;
    journal_writer *writer;
    uint64_t journaled_ns, journaled_bytes, shown_ns;
} ranges;

/* client.begin with a ranges as arg. */
int ranges_begin(void *arg, slot *s, pr_err *err);
void ranges_forget_address(ranges *r);

/* --- files as a source (fetch_local.c) -------------------------------------------------------------- */
int local_head(const char *url, const char *path, fetch_facts *out, pr_err *err);
/* Bytes [first, end) of the file that x is of, in pieces, to take; PR_EINTEGRITY when it has changed. */
typedef int (*local_take)(void *arg, uint64_t offset, const char *data, size_t n, pr_err *err);
int local_read(const char *path, const fetch_facts *x, uint64_t first, uint64_t end, local_take take,
               void *arg, pr_err *err);

#endif
