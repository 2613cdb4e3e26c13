/* Bytes of one resource over HTTP(S) or from a file into a local file: in parallel ranges, resumable, never a
 * wrong byte (libcurl's multi interface; conventions 12).
 *
 * PATH.part is made as long as the whole at once (sparse; reserved when all of it is fetched); every byte
 * received lands at its own offset. PATH.part.json, the journal, says what of it is done, and of which
 * version of the resource: it never claims a byte that a crash or a loss of power could take away. Renaming
 * PATH.part to PATH, hashes and what the bytes mean are the caller's affair.
 *
 * The lock is the descriptor of PATH.part: two processes never fetch the same file. fetch_ranges takes it and
 * keeps it until it is called with another path or fetch_free, so that the caller can check and rename
 * PATH.part in peace.
 *
 * URLs: https://, http:// (loopback, else insecure_http), file:// and plain paths, which behave like a server
 * with ranges. Proxies: libcurl's environment variables; certificates: the system's, or those of
 * SSL_CERT_FILE. A token is sent to the scheme, host and port it is for, and to nobody
 * else, whatever a server redirects to. At most 10 redirects; from https to http only where http is allowed.
 *
 * Asked again (with back-off, as long as bytes come without limit): lost and stalled connections, 408, 425,
 * 429, 5xx; Retry-After is obeyed up to 10 minutes. Failed for good: every other 4xx, certificates that do
 * not fit, answers that are not what was asked for. One thread at a time may use a handle; the process
 * ignores SIGPIPE. */
#ifndef PRIMA_NET_FETCH_H
#define PRIMA_NET_FETCH_H
#include "src/base/err.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct {
    uint64_t first, end; /* bytes [first, end) */
} fetch_range;

typedef struct {
    unsigned jobs;      /* connections at once, 1..64 (0: 1) */
    bool insecure_http; /* http:// also where it is not loopback */
    const char *
        token; /* bearer token, NULL none; only for URLs of token_origin. Trimmed: blanks in it are refused */
    const char *token_origin; /* "https://huggingface.co": scheme, host, port; needed when there is a token */
    uint64_t stall_bytes_s;   /* a connection slower than this ... (0: 1024) */
    double stall_s;           /* ... for so long is given up and made again (0: 30 s) */
    unsigned tries;           /* in a row without a new byte, before giving up (0: 8) */
    double backoff_s;         /* before the second try; doubles, with jitter, at most 60 s (0: 1 s) */
    const volatile int *stop; /* not NULL: when it becomes non-zero the journal is saved and PR_EINTERRUPTED
                                 returned, within about 0.1 s and the time that the disk takes to sync */
    void (*progress)(void *arg, uint64_t done,
                     uint64_t total); /* NULL, or called by fetch_ranges some times a second,
       first and last: bytes of the ranges asked for; done never falls within a call */
    void *progress_arg;
} fetch_options;

typedef struct fetch fetch;
int fetch_new(fetch **out, const fetch_options *o, pr_err *err); /* *o is copied, its strings too */
void fetch_free(fetch *f);

/* What a server says of a resource before a byte is taken. Owned by the caller: fetch_facts_clear. */
typedef struct {
    char *url;  /* as asked for: ranges are asked here again, so that addresses that expire are renewed */
    char *etag; /* validator for If-Range: the strong ETag with its quotes, else a Last-Modified that was a
                   minute old; behind a hub's redirect to another host its X-Linked-Etag in quotes; "" when
                   there is none, then nothing is resumed in another process */
    uint64_t bytes; /* of the whole */
    bool has_bytes; /* false: fetch_ranges refuses it (nobody could tell a part from the whole) */
    bool has_ranges;
    char sha256[65]; /* X-Linked-Etag where it is one, in lower case, else "" (a CDN's ETag is never taken for
                        a hash) */
    char commit[65]; /* X-Repo-Commit, else "" */
} fetch_facts;
/* HEAD, with redirects on the host of the url followed; at a redirect to another host the hub's X- fields are
 * the answer, and without them (or where HEAD is refused or tells too little) one byte is asked for. Errors
 * as fetch_ranges; PR_EUSAGE: not an address that may be fetched. */
int fetch_head(fetch *f, const char *url, fetch_facts *out, pr_err *err);
void fetch_facts_clear(fetch_facts *x);

/* A small body (an API's answer), at most max bytes, NUL-terminated; caller frees. link_next (may be NULL):
 * the URL of `Link: <...>; rel="next"`, made absolute, caller frees, NULL when there is none. */
int fetch_text(fetch *f, const char *url, size_t max, char **text, size_t *n, char **link_next, pr_err *err);

/* One range into memory: for headers that are read before the rest. PR_EINTEGRITY also when the resource is
 * shorter. */
int fetch_bytes(fetch *f, const fetch_facts *x, uint64_t first, size_t n, void *dst, pr_err *err);

/* These ranges (rising, disjoint) into PATH.part; what the journal has already is not fetched again. When
 * done, all is on the disk (fsync). *resumed (may be NULL): bytes that were there already. May be called
 * again with more ranges of the same resource.
 *
 * Errors: PR_ENETWORK refused, not found, unreachable, gave up (says status, host, what to do and that the
 * next call goes on where this one stopped); PR_EAUTH 401 and 403 of the host that was asked (of one that it
 * sends us to: PR_ENETWORK); PR_EINTEGRITY the resource has changed (look at it again: fetch_head, then
 * fetch_ranges starts over) or the server sends what was not asked for; PR_ERESOURCE disk full (before the
 * first byte where it can be known: 1 GiB shall stay free), not writable, or another process fetches this
 * file; PR_EINTERRUPTED. After every error what has been fetched is kept, journal included. */
int fetch_ranges(fetch *f, const fetch_facts *x, const char *path, const fetch_range *r, size_t n,
                 uint64_t *resumed, pr_err *err);

/* The journal's view of PATH.part, for resuming without the network: are these ranges done? Of x only what is
 * set is compared (url, bytes, etag). false also when there is no journal that can be read. */
bool fetch_is_done(const char *path, const fetch_facts *x, const fetch_range *r, size_t n);
/* Removes PATH.part and its journal (also when PATH.part has been renamed). */
void fetch_discard(const char *path);

#endif
