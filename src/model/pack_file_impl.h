/* Inside pack_file*.c: the open pack and what its files do for each other. */
#ifndef PRIMA_MODEL_PACK_FILE_IMPL_H
#define PRIMA_MODEL_PACK_FILE_IMPL_H
#include "src/model/pack_file.h"
#include "src/model/pack_file_journal.h"
#include <limits.h>

struct pack_file {
    const model *m; /* while opening only */
    const volatile int *stop;
    pool *p;
    char label[64];
    bool verify;
    /* What the model alone says. */
    uint32_t n_layers;
    layer_layout *layout; /* [n_layers] */
    uint64_t *at;         /* [n_layers + 1] the last one: bytes of the file */
    bool *asked;          /* [n_layers] */
    /* The folder. */
    char folder[PATH_MAX], path[PATH_MAX], journal_path[PATH_MAX];
    int fd; /* layers.pack; a shared lock of it is held as long as it is open: who would put other records in
             */
    int journal; /* locked by who builds; -1 when all is there */
    int direct;  /* layers.pack past the page cache; -1: through it */
    bool read_only, buffered /* O_DIRECT was refused */, unsealable;
    pack_journal j;
    char *lines; /* to be appended to the journal */
    size_t n_lines, cap_lines;
    /* What this process knows. */
    char (*mark)[GGUF_MARK_BYTES];       /* [n_layers] of the model; "": not looked at yet */
    bool *checked;                       /* [n_layers] read and compared by us */
    int64_t seen_ns;                     /* time of layers.pack when that was so */
    uint32_t n_todo, n_built, n_checked; /* layers, for the progress line and the log */
    uint64_t built_bytes;
};

static inline bool pack_stopped(const pack_file *f)
{
    return f->stop && *f->stop;
}
/* What the model and the wish say; no file is touched. */
int pack_file_new(pack_file **out, const model *m, const uint32_t *first, const uint32_t *end, size_t n,
                  const pack_file_options *o, pr_err *err);
int pack_interrupted(const pack_file *f, pr_err *err);

/* --- pack_file_folder.c: the two files and the lock ---------------------------------------------------- */
int pack_folder_names(pack_file *f, const char *dir, pr_err *err);
/* Opens both files, makes them when they are missing; the lock is held afterwards. */
int pack_folder_open(pack_file *f, const char *dir, pr_err *err);
void pack_folder_close(pack_file *f);
/* All is there: the journal and its lock are given back, layers.pack stays open. */
void pack_folder_settle(pack_file *f);
int pack_lock(pack_file *f, pr_err *err);
void pack_unlock(pack_file *f);
/* With the lock: what is there, by the journal and the file as they are now. */
int pack_load(pack_file *f, pr_err *err);
/* With the lock: nothing is there any more. PR_ERESOURCE while another process uses the pack. */
int pack_reset(pack_file *f, pr_err *err);
/* With the lock: a layer is there (its entry), or is lost; on the disk on return. */
int pack_keep(pack_file *f, uint32_t layer, const pack_entry *e, bool written, pr_err *err);
int pack_lose(pack_file *f, uint32_t layer, pr_err *err);
/* With the lock: a layer was begun and given up; the others are as they were. */
void pack_give_up(pack_file *f);
/* PR_ERESOURCE with what is missing when the asked layers that are absent do not fit on the disk. */
int pack_check_room(const pack_file *f, uint64_t *free_bytes, pr_err *err);
/* With the lock: is this the only process that has the pack open? */
bool pack_is_ours_alone(pack_file *f);

/* --- pack_file_record.c: the bytes of one layer -------------------------------------------------------- */
/* Past the page cache from here on, where that is allowed. */
void pack_direct_open(pack_file *f);
void pack_direct_close(pack_file *f);
/* Packed, written, on the disk; sha256 is that of the bytes that were meant. */
int pack_record_build(pack_file *f, uint32_t layer, char sha256[HASH_HEX_BYTES], pr_err *err);
/* As it is in the file. PR_EINTEGRITY: the file ends before it. */
int pack_record_digest(pack_file *f, uint32_t layer, char sha256[HASH_HEX_BYTES], pr_err *err);

#endif
