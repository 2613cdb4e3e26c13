/* What gguf.c, gguf_parse.c and gguf_kv.c share; nobody else includes it but the fuzzer and tests. */
#ifndef PRIMA_MODEL_GGUF_IMPL_H
#define PRIMA_MODEL_GGUF_IMPL_H
#include "src/model/gguf.h"
#include <sys/types.h>

/* One metadata entry; pointers go into the file. */
typedef struct {
    gguf_str key;
    uint32_t type;    /* gguf_value_type */
    uint32_t elem;    /* type of an array's elements */
    uint64_t n;       /* bytes of a string, elements of an array, else 1 */
    const uint8_t *p; /* string bytes, first element, or the number */
} gguf_kv;

typedef struct {
    gguf_kv *kv;            /* in file order */
    const gguf_kv **sorted; /* by key */
    size_t n;
} gguf_meta;

typedef struct {
    char *path;
    const uint8_t *p; /* the whole file */
    size_t n;
    bool mapped;  /* p is a memory map of ours, else the caller's memory */
    dev_t device; /* mapped: which file, and when it was written last */
    ino_t inode;
    int64_t written_ns;
    bool header_only; /* tensors lie behind what is in memory: their data is NULL */
    uint32_t version;
    uint64_t alignment;
    uint64_t header_bytes; /* magic .. end of the tensor directory */
    uint64_t data_start;   /* tensor offsets count from here */
} gguf_part;

struct gguf {
    gguf_part *part;
    size_t n_parts;
    gguf_meta meta;      /* of part 0 */
    gguf_tensor *tensor; /* of all parts, in directory order */
    size_t n_tensors, cap_tensors;
    const gguf_tensor **sorted; /* by name */
};

/* gguf_parse.c: read the header of part `i` (p, n are set): its metadata into *meta, its tensors appended to
 * g->tensor. */
int gguf_part_parse(gguf *g, size_t i, gguf_meta *meta, pr_err *err);
void gguf_meta_clear(gguf_meta *m);

/* gguf_kv.c: the getter that opening a split model needs before there is a gguf; as gguf_u32. */
bool gguf_meta_u32(const gguf_meta *m, const char *key, uint32_t *v, pr_err *err);
size_t gguf_value_bytes(uint32_t type); /* of one number or bool; 0 for strings, arrays and unknown types */

/* A name from the file inside an error message: printable ASCII, the rest as \xNN, cut to fit. Returns out.
 */
enum { GGUF_SHOW_BYTES = 96 };
const char *gguf_show(char out[GGUF_SHOW_BYTES], const void *p, size_t n);

/* gguf.c: a whole unsplit file in memory (data outlives it): the fuzzer's way in. Never gguf_drop_pages on
 * such a model. */
int gguf_open_memory(gguf **out, const void *data, size_t n, pr_err *err);

#endif
