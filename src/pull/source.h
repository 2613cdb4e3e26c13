/* What the user names as a model, resolved to files.
 *
 *   owner/repo  owner/repo:QUANT  owner/repo/folder/file.gguf   each also owner/repo@REVISION...
 *   hf://owner/repo[@REVISION][:QUANT | /file.gguf]             the same as an address: %XX is decoded
 *   https://...  http://... (loopback, else --insecure-http)  file://...  a local path
 *
 * A path that exists is a path; what looks like owner/repo otherwise is a repository. Addresses of the hub's
 * pages and files
 * (/blob/, /resolve/, /tree/) are taken apart the same way, so that they are pinned and their hashes known.
 * For other addresses /blob/ becomes /resolve/. A split model is all of its parts, whichever is named. */
#ifndef PRIMA_PULL_SOURCE_H
#define PRIMA_PULL_SOURCE_H
#include "net/fetch.h"
#include "src/pull/hub.h"
#include "src/pull/source_name.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* --- the words ----------------------------------------------------------------------------------------- */
typedef enum {
    SOURCE_QUANT, /* repo, rev, what = the quantisation as name_quant_typed has it */
    SOURCE_FILE,  /* repo, rev, what = a path in the repository */
    SOURCE_URL,   /* what = the address */
    SOURCE_PATH   /* what = a local path */
} source_kind;

typedef struct {
    source_kind kind;
    char *repo, *rev; /* "owner/repo"; "main" when none was given; NULL for addresses and paths */
    char *what;
} source_spec;
/* PR_EUSAGE: none of the above. */
int source_parse(source_spec *out, const char *text, const hub *h, pr_err *err);
void source_spec_clear(source_spec *s);

/* --- the files of one model ------------------------------------------------------------------------------
 */
typedef struct {
    char *url;  /* to fetch from; NULL when resolved without the network */
    char *name; /* file name under the target folder: checked (name_check) */
    bool has_bytes;
    uint64_t bytes;  /* as the hub says */
    char sha256[65]; /* "" when not known yet */
} source_file;

typedef struct {
    char *repo, *commit; /* NULL for addresses and paths; commit NULL without the network */
    bool offline;        /* only names are known: for what is in the folder already (pull_offline) */
    source_file *file;   /* [n_files] in order of the parts */
    size_t n_files;
} source;

/* PR_EUSAGE: not a source, nothing matches (what there is is logged), or several do (they are logged);
 * PR_ERESOURCE: a local path that is no file; else as hub_tree_get. With h->offline the network is not asked
 * (f may be NULL): what is no path gives the names in the text, or for a quantisation the one model in `dir`
 * whose name begins like the repository's and that is so quantised; PR_ENETWORK: there is none. */
int source_resolve(source **out, const char *text, const hub *h, fetch *f, const char *dir, pr_err *err);
void source_free(source *s);

/* --- what a repository has -------------------------------------------------------------------------------
 */
typedef struct {
    const char *path, *kind; /* path of the first part that is there; "model", "mmproj", "imatrix", "vocab".
                                Of the tree and static */
    char quant[NAME_QUANT_BYTES]; /* "" when the name does not say */
    uint64_t bytes;               /* of all parts that are there */
    uint32_t n_parts, n_there;
    const char *sha256; /* of a model of one file, else "" */
} source_model;
/* The GGUF files of a repository, parts of a split model as one, in order of their paths; caller frees, and
 * keeps the tree as long. NULL: out of memory. */
source_model *source_models(const hub_tree *t, size_t *n);
/* --list: source_models as a table on stdout. PR_EUSAGE: `text` is no repository. */
int source_print_list(const char *text, const hub *h, fetch *f, pr_err *err);

#endif
