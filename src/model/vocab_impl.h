/* Inside the tokenizer: what vocab.c, vocab_special.c, vocab_merge.c, spm.c, bpe.c and pretok.c share.
 * Everybody else uses vocab.h. */
#ifndef PRIMA_MODEL_VOCAB_IMPL_H
#define PRIMA_MODEL_VOCAB_IMPL_H
#include "src/model/vocab.h"

/* Strings numbered 0, 1, 2, ... and found again by their bytes. The strings are borrowed. */
typedef struct {
    gguf_str *text;
    size_t n, cap;
    int32_t *slot;  /* open addressing; -1 is free */
    size_t n_slots; /* 0 or a power of two */
} str_table;

int32_t str_table_find(const str_table *t, const char *p, size_t n); /* -1: absent */
/* Number of s, which is appended when it is new (the empty string always is, and is never found); -1: out of
 * memory. */
int32_t str_table_add(str_table *t, gguf_str s);
void str_table_clear(str_table *t);

/* A string of the file for an error message, control characters escaped, cut to fit. Returns out. */
enum { SHOW_BYTES = 80 };
const char *show_text(char out[SHOW_BYTES], gguf_str s);

/* White space next to a special token that disappears with it. */
enum { STRIP_LEFT = 1, STRIP_RIGHT = 2 };

/* Special tokens (control, unknown, user-defined), as vocab_special.c looks for them. */
typedef struct {
    int32_t *order; /* ids, longest text first, then by id: the order in which they are cut out of a text */
    size_t n;
    uint32_t *sorted;    /* indices into order, by text: for finding which of them occur at all */
    uint32_t first[257]; /* sorted[first[c] .. first[c + 1]) begin with byte c */
} special_tokens;

typedef struct bpe bpe;

struct vocab {
    str_table table;      /* the tokens, then strings that only BPE merges know (malloc'ed, ours) */
    uint32_t n;           /* tokens */
    uint8_t *kind;        /* [n] token_kind */
    uint8_t *strip;       /* [n] STRIP_ flags */
    bool *is_eog;         /* [n] */
    float *score;         /* [n]; zero when the file has none */
    size_t longest_bytes; /* of all token texts */
    int32_t bos, eos, unk;
    bool add_bos, add_eos;
    special_tokens special;
    bool space_prefix;    /* spm */
    int32_t byte_id[256]; /* spm: byte fallback, -1 none */
    bpe *bpe;             /* NULL: this is an spm vocabulary */
    char describe[48];
};

/* --- vocab_special.c: text cut at special tokens ----------------------------------------------- */

typedef struct {
    int32_t id; /* -1: plain text */
    uint32_t start, len;
} fragment;

int special_init(vocab *v, pr_err *err);
void special_clear(special_tokens *s);
/* The fragments of text in order; *out is malloc'ed (NULL when there is none). */
int special_split(const vocab *v, const char *text, size_t n, bool parse_special, fragment **out,
                  size_t *n_out, pr_err *err);

/* --- vocab_merge.c: join the best neighbours until none is left -------------------------------- */

typedef struct {
    uint32_t start, len; /* bytes of the text; len 0: merged into its left neighbour */
    int32_t prev, next;  /* -1: none */
    int32_t id;          /* what the rule made of it */
} symbol;

/* Can l and the symbol to its right be joined? Smaller rank goes first. */
typedef bool (*merge_rule)(const vocab *v, const char *text, const symbol *l, const symbol *r, uint32_t *rank,
                           int32_t *id);

typedef struct {
    uint64_t order;
    uint32_t len;
    int32_t id;
} merge_candidate;

typedef struct { /* kept between words so that memory is taken once; {0} is empty */
    symbol *sym;
    size_t n_sym, cap_sym;
    merge_candidate *heap;
    size_t n_heap, cap_heap;
} merge_space;

/* Append a symbol that covers the next len bytes. false: out of memory. */
bool merge_push(merge_space *m, uint32_t len, int32_t id);
/* Merge all symbols; those that remain are chained from sym[0] by next. false: out of memory. */
bool merge_run(merge_space *m, const vocab *v, const char *text, merge_rule rule);
void merge_clear(merge_space *m);

/* --- the two models: one fragment of plain text each ------------------------------------------- */

int spm_init(vocab *v, const gguf *g, pr_err *err);
/* first: the fragment begins the text or follows a special token, where SPM puts a space. */
int spm_encode(const vocab *v, const char *text, size_t n, bool first, token_list *out, pr_err *err);
size_t spm_piece(const vocab *v, int32_t id, char *out, size_t max);

int bpe_init(vocab *v, const gguf *g, pr_err *err);
void bpe_free(bpe *b);
int bpe_encode(const vocab *v, const char *text, size_t n, token_list *out, pr_err *err);
size_t bpe_piece(const vocab *v, int32_t id, char *out, size_t max);

/* For a metadata key that may be absent: `pr_err e = {0}; if (key_failed(gguf_bool(g, key, &x, &e), &e, err))
 * return e.code;` */
static inline bool key_failed(bool got, const pr_err *e, pr_err *err)
{
    if (got || !e->code) return false;
    if (err) *err = *e;
    return true;
}

/* --- pretok.c: text cut into words ------------------------------------------------------------- */

typedef struct pre_tokenizer pre_tokenizer;

/* By tokenizer.ggml.pre; refuses a name it does not know. Sets v->describe, and v->add_bos to what goes with
 * the name. */
int pre_tokenizer_new(pre_tokenizer **out, vocab *v, const gguf *g, pr_err *err);
void pre_tokenizer_free(pre_tokenizer *t);
/* A word that is a token is taken whole, whatever the merges would make of it. */
bool pre_tokenizer_ignores_merges(const pre_tokenizer *t);

typedef struct {
    uint32_t *end;
    size_t n, cap;
    bool failed;
} cut_list; /* where the words end; {0} is empty */

/* The words of text[0, n), which is valid UTF-8. cuts->end is the caller's to free, also after an error. */
int pre_tokenizer_cut(const pre_tokenizer *t, const char *text, size_t n, cut_list *cuts, pr_err *err);

/* --- UTF-8 (pretok.c) -------------------------------------------------------------------------- */

/* Length of a character by its first byte, as llama.cpp counts it (1 for a stray continuation byte). */
static inline size_t utf8_len(unsigned char first)
{
    return first < 0xc0 ? 1 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
}

/* Write c in at most 4 bytes; returns how many. */
size_t utf8_put(char *out, uint32_t c);
/* Read one character of at most n bytes, overlong forms and surrogates included; 0 when the bytes do not make
 * one. */
size_t utf8_get(const unsigned char *p, size_t n, uint32_t *c);
bool utf8_is_valid(const char *text, size_t n);
/* A copy in proper UTF-8, malloc'ed: overlong forms shortened, U+FFFD for what is no character. NULL: out of
 * memory. */
char *utf8_repair(const char *text, size_t n, size_t *n_out);

#endif
