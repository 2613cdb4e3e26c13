/* One model, start to end; see pull.h. The order is the point: everything that can be refused is refused
 * before the first byte, and nothing has its final name before everything is known to be right. */
#include "src/pull/pull.h"
#include "src/base/log.h"
#include "src/model/gguf.h"
#include "src/model/tensor_list.h"
#include "src/pull/pull_file.h"
#include "src/pull/verify.h"
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define RESERVE_BYTES ((uint64_t)1 << 30)
/* The header of a large file is looked at before the rest is fetched; headers of real models have some 20 MiB
 * at most. */
#define HEAD_BYTES    ((uint64_t)64 << 20)

typedef struct {
    const source *s;
    const pull_options *o;
    fetch *f;
    pull_file *file; /* [s->n_files] */
    size_t n;
} pull;

/* --- before the first byte ----------------------------------------------------------------------------- */
/* What server and hub say of a file must be one thing. */
static int agree(const pull *p, pull_file *x, pr_err *err)
{
    const fetch_facts *facts = &x->facts;
    const source_file *from = x->from;

    if (!facts->has_bytes)
        return pr_fail(err, PR_ENETWORK,
                       "%s: the server does not say how long it is, so it cannot be checked", from->name);
    if (from->has_bytes && from->bytes != facts->bytes)
        return pr_fail(err, PR_EINTEGRITY, "%s: the server has %" PRIu64 " bytes, listed are %" PRIu64,
                       from->name, facts->bytes, from->bytes);
    if (!facts->bytes) return pr_fail(err, PR_EINTEGRITY, "%s: the server has an empty file", from->name);
    if (*from->sha256 && *facts->sha256 && strcmp(from->sha256, facts->sha256) != 0)
        return pr_fail(err, PR_EINTEGRITY, "%s: the server names SHA-256 %s, listed is %s", from->name,
                       facts->sha256, from->sha256);
    if (p->s->commit && *facts->commit && strcmp(p->s->commit, facts->commit) != 0)
        return pr_fail(err, PR_EINTEGRITY, "%s: the server answers with commit %s, asked for was %s",
                       from->name, facts->commit, p->s->commit);
    x->bytes = facts->bytes;
    return PR_OK;
}

static int expect(const pull *p, pull_file *x, pr_err *err)
{
    const char *sha256 = *x->from->sha256 ? x->from->sha256 : x->facts.sha256;

    x->expected_from = p->s->repo ? "the hub's" : "the source's";
    if (p->o->sha256 && *sha256 && strcmp(p->o->sha256, sha256) != 0)
        return pr_fail(err, PR_EMISMATCH,
                       "%s: --sha256 says %s, the source says %s: another file, or another revision?",
                       x->from->name, p->o->sha256, sha256);
    if (p->o->sha256) x->expected_from = "--sha256";
    snprintf(x->expected, sizeof x->expected, "%s", p->o->sha256 ? p->o->sha256 : sha256);
    return PR_OK;
}

static int ask(pull *p, pr_err *err)
{
    int rc = PR_OK;

    for (size_t i = 0; i < p->n && !rc; i++) {
        pull_file *x = &p->file[i];

        if (p->o->stop && *p->o->stop) return pr_fail(err, PR_EINTERRUPTED, "interrupted");
        if (!(rc = fetch_head(p->f, x->from->url, &x->facts, err)) && !(rc = agree(p, x, err)))
            rc = expect(p, x, err);
    }
    return rc;
}

/* All of every file that is not there yet. */
static int choose_all(pull *p, pr_err *err)
{
    int rc;

    for (size_t i = 0; i < p->n; i++) {
        pull_file *x = &p->file[i];

        if ((rc = pull_file_look(x, p->o->meter, p->o->stop, err))) return rc;
        if (x->is_there) continue;
        if (!(x->get.range = malloc(sizeof *x->get.range)))
            return pr_fail(err, PR_ERESOURCE, "out of memory");
        x->get.range[0] = (fetch_range){0, x->bytes};
        x->get.n = 1;
    }
    return PR_OK;
}

static int choose_some(pull *p, pr_err *err)
{
    const pull_selection *only = p->o->only;
    fetch_facts *facts = calloc(p->n, sizeof *facts);
    const char **path = calloc(p->n, sizeof *path);
    pull_ranges *out = calloc(p->n, sizeof *out);
    int rc;

    for (size_t i = 0; facts && path && i < p->n; i++) {
        facts[i] = p->file[i].facts;
        path[i] = p->file[i].path;
    }
    rc = facts && path && out ? only->choose(only->arg, p->f, facts, path, p->n, out, err)
                              : pr_fail(err, PR_ERESOURCE, "out of memory");
    for (size_t i = 0; out && i < p->n; i++) {
        p->file[i].get = out[i];
        p->file[i].is_there = out[i].is_there;
    }
    free(facts);
    free(path);
    free(out);
    return rc;
}

/* For all files together: fetch sees one at a time. */
static int check_room(const pull *p, pr_err *err)
{
    uint64_t need = 0, room;
    struct statvfs v;

    for (size_t i = 0; i < p->n; i++) need += pull_file_missing(&p->file[i]);
    if (!need) return PR_OK;
    if (statvfs(p->o->dir, &v)) return pr_fail_errno(err, PR_ERESOURCE, "%s", p->o->dir);
    room = (uint64_t)v.f_bavail * v.f_frsize;
    if (room >= need + RESERVE_BYTES) return PR_OK;
    return pr_fail(err, PR_ERESOURCE,
                   "%s has %.2f GiB free; needed are %.2f GiB, and 1 GiB shall stay free. Make room, or give "
                   "a folder on "
                   "another disk with -o",
                   p->o->dir, (double)room / 0x1p30, (double)need / 0x1p30);
}

/* --- bytes --------------------------------------------------------------------------------------------- */
/* Whether the first bytes of .part are a header that this prima reads. */
static int look_at_head(const pull_file *x, pr_err *err)
{
    uint64_t header, all = 0;
    int fd = open(x->part, O_RDONLY | O_CLOEXEC), rc;
    void *p = fd < 0 ? MAP_FAILED : mmap(NULL, (size_t)HEAD_BYTES, PROT_READ, MAP_SHARED, fd, 0);

    if (p == MAP_FAILED) rc = pr_fail_errno(err, PR_ERESOURCE, "%s", x->part);
    else rc = gguf_measure(p, (size_t)HEAD_BYTES, &header, &all, err);
    if (p != MAP_FAILED) munmap(p, (size_t)HEAD_BYTES);
    if (fd >= 0) close(fd);
    if (!rc && all > x->bytes)
        rc = pr_fail(err, PR_EINTEGRITY, "its tensors reach to byte %" PRIu64 " and it has %" PRIu64, all,
                     x->bytes);
    if (rc == PR_EINTEGRITY)
        pr_wrap(err, "%s: not a GGUF model for prima, as its first %d MiB show", x->from->name,
                (int)(HEAD_BYTES >> 20));
    return rc;
}

/* A file that turns out to be none costs 64 MiB, not all of it. */
static int fetch_head_first(const pull *p, pull_file *x, pr_err *err)
{
    const fetch_range head = {0, HEAD_BYTES};
    int rc;

    if (p->o->only || !x->facts.has_ranges || x->bytes < 2 * HEAD_BYTES) return PR_OK;
    if ((rc = fetch_ranges(p->f, &x->facts, x->path, &head, 1, NULL, err))) return rc;
    if ((rc = look_at_head(x, err)) == PR_EINTEGRITY) fetch_discard(x->path);
    return rc;
}

static uint64_t wanted_bytes(const pull_file *x)
{
    uint64_t sum = 0;

    for (size_t i = 0; !x->is_there && i < x->get.n; i++) sum += x->get.range[i].end - x->get.range[i].first;
    return sum;
}

static void announce(const pull *p, uint64_t total)
{
    log_info("%s%s%.12s%s%s%s: %.2f GB", p->s->repo ? p->s->repo : "", p->s->commit ? " at " : "",
             p->s->commit ? p->s->commit : "", p->s->repo ? ", " : "", p->s->file[0].name,
             p->n > 1 ? " and the other parts" : "", (double)total / 1e9);
}

static int fetch_all(pull *p, pr_err *err)
{
    uint64_t total = 0, before = 0, resumed;
    int rc = PR_OK;

    for (size_t i = 0; i < p->n; i++) total += wanted_bytes(&p->file[i]);
    announce(p, total);
    meter_begin(p->o->meter, total);
    for (size_t i = 0; i < p->n && !rc; i++) {
        pull_file *x = &p->file[i];

        if (x->is_there) continue;
        meter_file(p->o->meter, "fetching", x->from->name, before);
        resumed = 0;
        if ((rc = fetch_head_first(p, x, err)) ||
            (rc = fetch_ranges(p->f, &x->facts, x->path, x->get.range, x->get.n, &resumed, err)))
            break;
        if (resumed) log_debug("%s: %" PRIu64 " bytes were there already", x->part, resumed);
        before += wanted_bytes(x);
    }
    meter_end(p->o->meter);
    return rc;
}

/* --- checks -------------------------------------------------------------------------------------------- */
/* The file that was fetched last is still locked by fetch. */
static int lock_others(pull *p, pr_err *err)
{
    size_t last = p->n;
    int rc = PR_OK;

    for (size_t i = 0; i < p->n; i++) {
        if (!p->file[i].is_there) last = i;
    }
    for (size_t i = 0; i < last && !rc; i++) {
        if (!p->file[i].is_there) rc = pull_file_lock(&p->file[i], err);
    }
    return rc;
}

/* All of them, also when one is wrong: what is right need not come again. */
static int check_hashes(pull *p, pr_err *err)
{
    uint64_t before = 0, total = 0;
    int rc = PR_OK, one;

    for (size_t i = 0; i < p->n; i++) total += p->file[i].is_there ? 0 : p->file[i].bytes;
    meter_begin(p->o->meter, total);
    for (size_t i = 0; i < p->n && rc != PR_EINTERRUPTED; i++) {
        pull_file *x = &p->file[i];
        pr_err e = {0};

        if (x->is_there) continue;
        meter_file(p->o->meter, "checking", x->from->name, before);
        one = pull_file_check(x, p->o->meter, p->o->stop, &e);
        before += x->bytes;
        if (one && rc) log_error("%s", e.msg);
        if (one && !rc) rc = pr_fail(err, (pr_code)one, "%s", e.msg);
    }
    meter_end(p->o->meter);
    return rc;
}

static void set_aside_all(pull *p)
{
    for (size_t i = 0; i < p->n; i++) {
        if (p->file[i].is_there) continue;
        pull_file_set_aside(&p->file[i]);
        log_warn("what came is in %s; the next call fetches it anew", p->file[i].bad);
    }
}

static int check_structure(pull *p, pr_err *err)
{
    const pull_selection *only = p->o->only;
    const char **now = calloc(2 * p->n, sizeof *now), **path;
    int rc;

    if (!now) return pr_fail(err, PR_ERESOURCE, "out of memory");
    path = now + p->n;
    for (size_t i = 0; i < p->n; i++) {
        path[i] = p->file[i].path;
        now[i] = p->file[i].is_there ? path[i] : p->file[i].part;
    }
    if ((rc = verify_gguf(now, path, p->n, err)) == PR_EINTEGRITY) pr_wrap(err, "not a GGUF model for prima");
    if (!rc && only) rc = only->check(only->arg, now, path, p->n, err);
    if (rc == PR_EINTEGRITY || rc == PR_EMISMATCH) set_aside_all(p);
    free(now);
    return rc;
}

static int place_all(pull *p, pr_err *err)
{
    int rc = PR_OK;

    for (size_t i = 0; i < p->n && !rc; i++) {
        if (!p->file[i].is_there) rc = pull_file_place(&p->file[i], err);
    }
    return rc;
}

/* The list of a shard that once stood here would make a whole model one again. */
static void forget_list(const pull *p)
{
    char *list = tensor_list_path(p->file[0].path);

    if (list) unlink(list);
    free(list);
}

/* --- all of it ----------------------------------------------------------------------------------------- */
static bool all_there(const pull *p)
{
    for (size_t i = 0; i < p->n; i++) {
        if (!p->file[i].is_there) return false;
    }
    return true;
}

static void report(const pull *p, bool was_there)
{
    for (size_t i = 0; i < p->n; i++) {
        const pull_file *x = &p->file[i];
        const char *what = was_there ? "already complete" : "complete";

        if (p->o->only) log_info("%s: %s, what this device needs of it", x->path, what);
        else if (*x->expected)
            log_info("%s: %s, SHA-256 as %s", x->path, what,
                     strcmp(x->expected_from, "--sha256") ? x->expected_from : "given");
        else if (x->is_known) log_info("%s: %s, SHA-256 as its .sha256", x->path, what);
        else
            log_warn("%s: %s by size and structure; the source names no SHA-256 to compare with%s%s", x->path,
                     what, *x->found ? ", it is " : "", x->found);
    }
}

static int get(pull *p, pr_err *err)
{
    bool was_there;
    int rc = ask(p, err);

    if (!rc) rc = p->o->only ? choose_some(p, err) : choose_all(p, err);
    was_there = !rc && all_there(p);
    if (!rc && !was_there) {
        if ((rc = check_room(p, err)) || (rc = fetch_all(p, err)) || (rc = lock_others(p, err))) return rc;
        if (!p->o->only && (rc = check_hashes(p, err))) return rc;
    }
    if (!rc && (!was_there || !p->o->only)) rc = check_structure(p, err);
    if (!rc) rc = place_all(p, err);
    if (!rc && !p->o->only && !was_there) forget_list(p);
    if (!rc) report(p, was_there);
    return rc;
}

static int make_folder(const char *dir, pr_err *err)
{
    struct stat st;

    if (mkdir(dir, 0777) == 0) return PR_OK;
    if (errno != EEXIST) return pr_fail_errno(err, PR_ERESOURCE, "%s: making this folder", dir);
    if (stat(dir, &st)) return pr_fail_errno(err, PR_ERESOURCE, "%s", dir);
    return S_ISDIR(st.st_mode) ? PR_OK : pr_fail(err, PR_EUSAGE, "%s: not a folder", dir);
}

int pull_model(const source *s, fetch *f, const pull_options *o, pr_err *err)
{
    pull p = {.s = s, .o = o, .f = f};
    int rc;

    if (o->sha256 && s->n_files > 1)
        return pr_fail(err, PR_EUSAGE, "--sha256 is for a model of one file, and this one has %zu",
                       s->n_files);
    if ((rc = make_folder(o->dir, err))) return rc;
    if (!(p.file = calloc(s->n_files, sizeof *p.file))) return pr_fail(err, PR_ERESOURCE, "out of memory");
    for (; p.n < s->n_files && !rc; p.n++) rc = pull_file_init(&p.file[p.n], &s->file[p.n], o->dir, err);
    if (!rc) rc = get(&p, err);
    for (size_t i = 0; i < p.n; i++) pull_file_clear(&p.file[i]);
    free(p.file);
    return rc;
}

int pull_offline(const source *s, const pull_options *o, pr_err *err)
{
    const verify_options vo = {.sha256 = o->sha256, .meter = o->meter, .stop = o->stop};
    pull_file x;
    int rc = pull_file_init(&x, &s->file[0], o->dir, err);

    if (!rc && access(x.path, F_OK))
        rc = pr_fail(err, PR_ENETWORK, "offline: %s is not there%s, and nothing is fetched", x.path,
                     access(x.part, F_OK) ? "" : " whole");
    if (!rc) rc = verify_model(x.path, &vo, err);
    pull_file_clear(&x);
    return rc;
}
