/* A Hugging Face-like hub: where it is and who we are there (from the environment), and its public API: the
 * commit of a revision, the files of a repository. */
#ifndef PRIMA_PULL_HUB_H
#define PRIMA_PULL_HUB_H
#include "net/fetch.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define HUB_DEFAULT "https://huggingface.co"
enum { HUB_COMMIT_BYTES = 65 };

typedef struct {
    char *endpoint;   /* HF_ENDPOINT or the default, without a slash at the end */
    char *origin;     /* its scheme, host and port: what the token is for */
    char *token;      /* NULL: none. In no message, no log, no argument of a process */
    char *token_from; /* where it is from, for messages: "HF_TOKEN" or a path */
    bool offline;     /* HF_HUB_OFFLINE */
} hub;
/* HF_ENDPOINT; the token from HF_TOKEN, else the file HF_TOKEN_PATH, else HF_HOME/token
 * (~/.cache/huggingface/token). PR_EUSAGE: not an address; PR_EAUTH: what is there can be no token. */
int hub_from_env(hub *out, pr_err *err);
void hub_clear(hub *h);

typedef struct {
    char *path; /* in the repository, checked: no component that leads anywhere else */
    uint64_t bytes;
    char sha256[65]; /* "" when the hub does not say */
} hub_entry;
typedef struct {
    hub_entry *entry; /* the GGUF files, in the hub's order */
    size_t n;
    char commit[HUB_COMMIT_BYTES];
} hub_tree;
/* The GGUF files of a repository at a revision, and the commit that this is. *out is empty after an error.
 * PR_EAUTH: gated, private or unknown; the message says what to do. */
int hub_tree_get(hub_tree *out, const hub *h, fetch *f, const char *repo, const char *rev, pr_err *err);
void hub_tree_clear(hub_tree *t);

/* Answers of the API as they come, for tests and the fuzzer. hub_tree_parse appends. PR_EINTEGRITY: not such
 * an answer. */
int hub_commit_parse(char commit[HUB_COMMIT_BYTES], const char *json, size_t n, pr_err *err);
int hub_tree_parse(hub_tree *t, const char *json, size_t n, pr_err *err);

/* ENDPOINT/REPO/resolve/REV/PATH, encoded; caller frees. NULL: out of memory. */
char *hub_file_url(const hub *h, const char *repo, const char *rev, const char *path);
/* What a 401 or 403 of this repository means, in place of *err's own message, which is added in short.
 * Returns PR_EAUTH. */
int hub_refused(const hub *h, const char *repo, pr_err *err);

#endif
