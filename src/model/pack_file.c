/* Opening a pack: each layer that was asked for is there, or is checked or built now, one after the other.
 *
 * The state of a layer and what follows from it:
 *
 *   here      written, its line is there, and nobody has touched the file since     nothing to do
 *   doubted   the same, but somebody may have touched it                            read, digest compared:
 * here or lost absent    never built, torn, or lost                                            built, read
 * back: here
 *
 * The lock is given back after each layer, so that several processes build in turns. */
#include "src/model/pack_file.h"
#include "src/base/clock.h"
#include "src/base/file.h"
#include "src/base/log.h"
#include "src/base/units.h"
#include "src/model/pack_file_impl.h"
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    PASSES = 4, /* until nothing is left to do; more only when others keep changing the files */
    NAP_SHARE = 50,
    NAP_MAX_US = 25000 /* longer than others wait between two looks at the lock */
};

/* --- the object ---------------------------------------------------------------------------------------- */
static int read_shape(pack_file *f, const hparams *hp, pr_err *err)
{
    f->n_layers = hp->n_layers;
    f->layout = calloc(f->n_layers + 1u, sizeof *f->layout);
    f->at = calloc(f->n_layers + 1u, sizeof *f->at);
    f->asked = calloc(f->n_layers + 1u, sizeof *f->asked);
    f->checked = calloc(f->n_layers + 1u, sizeof *f->checked);
    f->mark = calloc(f->n_layers + 1u, sizeof *f->mark);
    if (!f->layout || !f->at || !f->asked || !f->checked || !f->mark)
        return pr_fail(err, PR_ERESOURCE, "out of memory");
    for (uint32_t i = 0; i < f->n_layers; i++) {
        layer_layout_of(&f->layout[i], &hp->layer[i]);
        f->at[i + 1] = f->at[i] + f->layout[i].bytes;
    }
    return PR_OK;
}

int pack_file_new(pack_file **out, const model *m, const uint32_t *first, const uint32_t *end, size_t n,
                  const pack_file_options *o, pr_err *err)
{
    pack_file *f = calloc(1, sizeof *f);
    int rc;

    if (!f) return pr_fail(err, PR_ERESOURCE, "out of memory");
    f->m = m;
    f->fd = f->journal = f->direct = -1;
    f->verify = o->verify;
    snprintf(f->label, sizeof f->label, "%s", o->label ? o->label : "packing");
    if ((rc = read_shape(f, &m->hp, err))) {
        pack_file_close(f);
        return rc;
    }
    for (size_t i = 0; i < n; i++) {
        assert(first[i] <= end[i] && end[i] <= f->n_layers);
        for (uint32_t il = first[i]; il < end[i]; il++) f->asked[il] = true;
    }
    *out = f;
    return PR_OK;
}

void pack_file_close(pack_file *f)
{
    if (!f) return;
    pack_folder_close(f);
    pack_journal_clear(&f->j);
    free(f->lines);
    free(f->mark);
    free(f->checked);
    free(f->asked);
    free(f->at);
    free(f->layout);
    free(f);
}

const char *pack_file_path(const pack_file *f)
{
    return f->path;
}

uint64_t pack_file_at(const pack_file *f, uint32_t layer)
{
    return f->at[layer];
}

const layer_layout *pack_file_layout(const pack_file *f, uint32_t layer)
{
    return &f->layout[layer];
}

/* --- one layer ----------------------------------------------------------------------------------------- */
int pack_interrupted(const pack_file *f, pr_err *err)
{
    return pr_fail(err, PR_EINTERRUPTED, "interrupted while packing layers into %s; what is there stays",
                   f->folder);
}

static const char *mark_of(pack_file *f, uint32_t layer)
{
    const layer_tensors *t = &f->m->hp.layer[layer];
    const gguf_tensor *all[LAYER_VECTORS + LAYER_MATRICES];
    size_t n = 0;

    if (!f->mark[layer][0]) {
        for (layer_vector v = 0; v < LAYER_VECTORS; v++) all[n++] = layer_vector_of(t, v);
        for (layer_matrix m = 0; m < LAYER_MATRICES; m++) all[n++] = layer_matrix_of(t, m);
        gguf_mark_all(all, n, f->mark[layer]);
    }
    return f->mark[layer];
}

/* A doubted layer: here or lost afterwards. A disk that cannot read it has lost it too. */
static int check_layer(pack_file *f, uint32_t layer, pr_err *err)
{
    pack_entry e = f->j.layer[layer];
    char sha[HASH_HEX_BYTES];
    pr_err why = {.msg = "its digest has changed"};
    int rc = pack_record_digest(f, layer, sha, &why);

    if (rc == PR_EINTERRUPTED) return pr_fail(err, rc, "%s", why.msg);
    if (!rc && !strcmp(sha, e.sha256)) {
        f->n_checked++;
        e.state = PACK_HERE;
        return pack_keep(f, layer, &e, false, err);
    }
    log_warn("%s: layer %" PRIu32 " is damaged and will be packed again: %s", f->path, layer, why.msg);
    return pack_lose(f, layer, err);
}

static int build_layer(pack_file *f, uint32_t layer, pr_err *err)
{
    pack_entry e = {.state = PACK_HERE, .bytes = f->layout[layer].bytes};
    char sha[HASH_HEX_BYTES];
    uint64_t free_bytes;
    int rc;

    if (f->read_only)
        return pr_fail(err, PR_ERESOURCE,
                       "%s: layer %" PRIu32
                       " is not there, and the folder cannot be written to; name another with "
                       "--pack-dir",
                       f->folder, layer);
    snprintf(e.mark, sizeof e.mark, "%s", mark_of(f, layer));
    if ((rc = pack_check_room(f, &free_bytes, err))) return rc;
    if (!(rc = pack_record_build(f, layer, e.sha256, err)) &&
        !(rc = pack_record_digest(f, layer, sha, err)) && strcmp(sha, e.sha256))
        rc = pr_fail(err, PR_EINTEGRITY,
                     "%s: layer %" PRIu32
                     " reads back other than it was written: disk or memory of this machine "
                     "are failing",
                     f->path, layer);
    if (rc) {
        pack_give_up(f);
        return rc;
    }
    f->n_built++;
    f->built_bytes += e.bytes;
    return pack_keep(f, layer, &e, true, err);
}

static bool is_here(const pack_file *f, uint32_t layer)
{
    return f->j.layer[layer].state == PACK_HERE && (!f->verify || f->checked[layer]);
}

/* With the lock. */
static int ensure_layer(pack_file *f, uint32_t layer, pr_err *err)
{
    int rc;

    if (f->j.layer[layer].state == PACK_ABSENT) return build_layer(f, layer, err);
    if ((rc = check_layer(f, layer, err)) || f->j.layer[layer].state == PACK_HERE) return rc;
    return build_layer(f, layer, err);
}

/* --- all of them --------------------------------------------------------------------------------------- */
/* Time for others, which look at the lock again and again: little of what the layer has cost. */
static int take_turns(pack_file *f, uint64_t start_ns, pr_err *err)
{
    double us = clock_ms_since(start_ns) * 1e3 / NAP_SHARE;
    int rc;

    pack_unlock(f);
    usleep(us < NAP_MAX_US ? (useconds_t)us : NAP_MAX_US);
    rc = pack_lock(f, err);
    return rc ? rc : pack_load(f, err);
}

static bool is_foreign(pack_file *f, uint32_t layer)
{
    const pack_entry *e = &f->j.layer[layer];

    return e->state != PACK_ABSENT && strcmp(e->mark, mark_of(f, layer));
}

static int ensure_all(pack_file *f, bool *changed, pr_err *err)
{
    int rc = PR_OK;

    *changed = false;
    for (uint32_t i = 0; i < f->n_layers && !rc; i++) {
        uint64_t start_ns = clock_ns();
        if (!f->asked[i]) continue;
        if (is_foreign(f, i)) rc = pack_reset(f, err);
        if (rc || is_here(f, i)) continue;
        *changed = true;
        if (!(rc = ensure_layer(f, i, err))) rc = take_turns(f, start_ns, err);
    }
    return rc;
}

static int fill(pack_file *f, pr_err *err)
{
    bool changed = true;
    int rc = pack_load(f, err);

    for (uint32_t i = 0; i < f->n_layers && !rc; i++) f->n_todo += f->asked[i] && !is_here(f, i);
    for (int pass = 0; pass < PASSES && changed && !rc; pass++) rc = ensure_all(f, &changed, err);
    if (!rc && changed)
        rc = pr_fail(err, PR_EINTEGRITY, "%s: keeps changing; another program writes to it", f->path);
    return rc;
}

static void say_what_was_done(const pack_file *f, double s)
{
    char built[UNITS_TEXT_BYTES];

    if (f->n_checked)
        log_info("%s: read %" PRIu32 " layer%s again, as written", f->label, f->n_checked,
                 f->n_checked == 1 ? "" : "s");
    if (f->n_built)
        log_info("%s: wrote %" PRIu32 " layer%s, %s in %.1f s (%.0f MB/s%s): %s", f->label, f->n_built,
                 f->n_built == 1 ? "" : "s", units_text(built, f->built_bytes), s,
                 s > 0 ? (double)f->built_bytes / 1e6 / s : 0,
                 f->buffered ? ", through the page cache: O_DIRECT is refused there" : "", f->path);
}

int pack_file_open(pack_file **out, const model *m, const uint32_t *first, const uint32_t *end, size_t n,
                   const pack_file_options *o, pool *p, const volatile int *stop, pr_err *err)
{
    uint64_t start_ns = clock_ns();
    pack_file *f;
    int rc = pack_file_new(&f, m, first, end, n, o, err);

    if (rc) return rc;
    f->p = p;
    f->stop = stop;
    if (!(rc = pack_folder_open(f, o->dir, err))) rc = fill(f, err);
    log_progress("%s", "");
    if (rc) {
        pack_file_close(f);
        return rc;
    }
    say_what_was_done(f, clock_ms_since(start_ns) / 1e3);
    pack_folder_settle(f);
    f->m = NULL;
    f->p = NULL;
    f->stop = NULL;
    *out = f;
    return PR_OK;
}

/* --- for people ---------------------------------------------------------------------------------------- */
/* path is the folder or either of its files. */
static int name_files(char journal[PATH_MAX], char pack[PATH_MAX], const char *path, pr_err *err)
{
    static const char tail[] = ".pack";
    struct stat st;
    size_t n = strlen(path), cut;

    if (stat(path, &st)) return pr_fail_errno(err, PR_ERESOURCE, "%s", path);
    if (n > PATH_MAX - sizeof "/layers.pack")
        return pr_fail(err, PR_ERESOURCE, "%s: the path is too long", path);
    cut = n >= sizeof tail && !strcmp(path + n - (sizeof tail - 1), tail) ? n - (sizeof tail - 1) : n;
    snprintf(journal, PATH_MAX, "%.*s%s", (int)(S_ISDIR(st.st_mode) ? n : cut), path,
             S_ISDIR(st.st_mode) ? "/layers" : "");
    snprintf(pack, PATH_MAX, "%.*s%s", (int)(PATH_MAX - sizeof tail), journal, tail);
    return PR_OK;
}

static bool has_time(const char *path, int64_t seconds)
{
    struct stat st;

    return seconds && !stat(path, &st) && st.st_mtime == (time_t)seconds;
}

static int count_layers(pack_file_facts *out, const pack_journal *j, pr_err *err)
{
    out->here = calloc(j->n_layers + 1u, 1);
    if (!out->here) return pr_fail(err, PR_ERESOURCE, "out of memory");
    snprintf(out->header_sha256, sizeof out->header_sha256, "%s", j->header_sha256);
    out->layout = j->layout;
    out->n_layers = j->n_layers;
    for (uint32_t i = 0; i < j->n_layers; i++) {
        out->here[i] = j->layer[i].state != PACK_ABSENT;
        if (j->layer[i].state == PACK_DOUBTED) out->sealed = false;
        out->n_here += out->here[i];
        out->bytes_here += j->layer[i].bytes;
    }
    return PR_OK;
}

int pack_file_about(pack_file_facts *out, const char *path, pr_err *err)
{
    char journal[PATH_MAX], pack[PATH_MAX], *text;
    pack_journal j;
    size_t n;
    int rc;

    *out = (pack_file_facts){0};
    if ((rc = name_files(journal, pack, path, err)) ||
        (rc = file_slurp(&text, &n, journal, PACK_JOURNAL_MAX_BYTES, err)))
        return rc;
    if ((rc = pack_journal_parse(&j, text, n, err))) pr_wrap(err, "%s", journal);
    free(text);
    if (rc) return rc;
    out->sealed = has_time(pack, j.sealed);
    rc = count_layers(out, &j, err);
    pack_journal_clear(&j);
    return rc;
}

void pack_file_facts_clear(pack_file_facts *x)
{
    free(x->here);
    *x = (pack_file_facts){0};
}
