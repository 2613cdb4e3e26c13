/* GGUF v3 writer; see gguf_write.h. The header grows in memory (it is small but for the vocabulary), tensor
 * data go straight to the file. */
#include "src/model/gguf_write.h"
#include "kernels/quant.h"
#include "src/base/file.h"
#include "src/base/mem.h"
#include "src/model/gguf.h"
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { ALIGNMENT = 32, VERSION = 3 };

typedef struct {
    uint8_t *p;
    size_t n, cap;
    bool failed;
} buffer;

struct gguf_writer {
    buffer kv, tensors;
    uint64_t n_kv, n_tensors;
    uint64_t *tensor_bytes; /* of each declared tensor */
    uint64_t data_bytes;    /* of all declared tensors, padded */
    int fd;
    char *path, *part;
    uint64_t current, written; /* tensor being written, bytes of it so far */
};

static void put(buffer *b, const void *data, size_t n)
{
    if (b->n + n > b->cap && !b->failed) {
        size_t cap = 2 * (b->n + n) + 256;
        uint8_t *p = realloc(b->p, cap);
        if (p) {
            b->p = p;
            b->cap = cap;
        } else {
            b->failed = true;
        }
    }
    if (b->failed) return;
    memcpy(b->p + b->n, data, n);
    b->n += n;
}

static void put_int(buffer *b, uint64_t v, size_t bytes)
{
    uint8_t le[8];

    for (size_t i = 0; i < bytes; i++) le[i] = (uint8_t)(v >> (8 * i));
    put(b, le, bytes);
}

static void put_text(buffer *b, const char *s)
{
    put_int(b, strlen(s), 8);
    put(b, s, strlen(s));
}

static void put_f32(buffer *b, float v)
{
    uint32_t u;
    memcpy(&u, &v, sizeof u);
    put_int(b, u, 4);
}

static void put_key(gguf_writer *w, const char *key, gguf_value_type type)
{
    put_text(&w->kv, key);
    put_int(&w->kv, type, 4);
    w->n_kv++;
}

static void put_array(gguf_writer *w, const char *key, gguf_value_type type, size_t n)
{
    put_key(w, key, GGUF_ARRAY);
    put_int(&w->kv, type, 4);
    put_int(&w->kv, n, 8);
}

/* --- metadata ---------------------------------------------------------------------------------------- */
gguf_writer *gguf_writer_new(void)
{
    gguf_writer *w = calloc(1, sizeof *w);
    if (w) w->fd = -1;
    return w;
}

void gguf_put_u32(gguf_writer *w, const char *key, uint32_t v)
{
    put_key(w, key, GGUF_U32);
    put_int(&w->kv, v, 4);
}

void gguf_put_f32(gguf_writer *w, const char *key, float v)
{
    put_key(w, key, GGUF_F32);
    put_f32(&w->kv, v);
}

void gguf_put_bool(gguf_writer *w, const char *key, bool v)
{
    put_key(w, key, GGUF_BOOL);
    put_int(&w->kv, v, 1);
}

void gguf_put_string(gguf_writer *w, const char *key, const char *v)
{
    put_key(w, key, GGUF_STRING);
    put_text(&w->kv, v);
}

void gguf_put_strings(gguf_writer *w, const char *key, const char *const *v, size_t n)
{
    put_array(w, key, GGUF_STRING, n);
    for (size_t i = 0; i < n; i++) put_text(&w->kv, v[i]);
}

void gguf_put_f32s(gguf_writer *w, const char *key, const float *v, size_t n)
{
    put_array(w, key, GGUF_F32, n);
    for (size_t i = 0; i < n; i++) put_f32(&w->kv, v[i]);
}

void gguf_put_i32s(gguf_writer *w, const char *key, const int32_t *v, size_t n)
{
    put_array(w, key, GGUF_I32, n);
    for (size_t i = 0; i < n; i++) put_int(&w->kv, (uint32_t)v[i], 4);
}

void gguf_put_tensor(gguf_writer *w, const char *name, uint32_t type, uint64_t ne0, uint64_t ne1)
{
    uint64_t bytes = quant_row_bytes(type, ne0) * (ne1 ? ne1 : 1);
    uint64_t *grown = realloc(w->tensor_bytes, (w->n_tensors + 1) * sizeof *grown);

    if (!grown || !bytes) {
        w->tensors.failed = true;
        return;
    }
    w->tensor_bytes = grown;
    w->tensor_bytes[w->n_tensors++] = bytes;
    put_text(&w->tensors, name);
    put_int(&w->tensors, ne1 ? 2 : 1, 4);
    put_int(&w->tensors, ne0, 8);
    if (ne1) put_int(&w->tensors, ne1, 8);
    put_int(&w->tensors, type, 4);
    put_int(&w->tensors, w->data_bytes, 8);
    w->data_bytes += MEM_ALIGN_UP(bytes, (uint64_t)ALIGNMENT);
}

/* --- the file ------------------------------------------------------------------------------------------- */
static int write_padding(gguf_writer *w, size_t n, pr_err *err)
{
    static const uint8_t zeros[ALIGNMENT];
    return file_write_all(w->fd, zeros, n, w->part, err);
}

static size_t padding(uint64_t n)
{
    return (size_t)(MEM_ALIGN_UP(n, (uint64_t)ALIGNMENT) - n);
}

int gguf_writer_begin(gguf_writer *w, const char *path, pr_err *err)
{
    buffer head = {0};
    int rc;

    w->path = strdup(path);
    w->part = malloc(strlen(path) + 6);
    put(&head, "GGUF", 4);
    put_int(&head, VERSION, 4);
    put_int(&head, w->n_tensors, 8);
    put_int(&head, w->n_kv, 8);
    if (!w->path || !w->part || head.failed || w->kv.failed || w->tensors.failed) {
        free(head.p);
        return pr_fail(err, PR_EINTERNAL, "%s: out of memory, or a tensor of no whole blocks", path);
    }
    sprintf(w->part, "%s.part", path);
    w->fd = open(w->part, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (w->fd < 0) rc = pr_fail_errno(err, PR_ERESOURCE, "cannot create %s", w->part);
    else if ((rc = file_write_all(w->fd, head.p, head.n, w->part, err)) ||
             (rc = file_write_all(w->fd, w->kv.p, w->kv.n, w->part, err)) ||
             (rc = file_write_all(w->fd, w->tensors.p, w->tensors.n, w->part, err)))
        ;
    else rc = write_padding(w, padding(head.n + w->kv.n + w->tensors.n), err);
    free(head.p);
    return rc;
}

int gguf_writer_data(gguf_writer *w, const void *data, size_t n, pr_err *err)
{
    const uint8_t *p = data;

    while (n) {
        uint64_t left = w->current < w->n_tensors ? w->tensor_bytes[w->current] - w->written : 0;
        size_t now = n < left ? n : (size_t)left;
        int rc;
        if (!now) return pr_fail(err, PR_EINTERNAL, "%s: more data than tensors", w->path);
        if ((rc = file_write_all(w->fd, p, now, w->part, err))) return rc;
        p += now;
        n -= now;
        w->written += now;
        if (w->written < w->tensor_bytes[w->current]) continue;
        if ((rc = write_padding(w, padding(w->written), err))) return rc;
        w->current++;
        w->written = 0;
    }
    return PR_OK;
}

int gguf_writer_finish(gguf_writer *w, pr_err *err)
{
    int fd = w->fd;

    if (w->current != w->n_tensors) return pr_fail(err, PR_EINTERNAL, "%s: tensor data are missing", w->path);
    w->fd = -1;
    if (fsync(fd) || close(fd) || rename(w->part, w->path))
        return pr_fail_errno(err, PR_ERESOURCE, "cannot finish %s", w->path);
    return PR_OK;
}

void gguf_writer_free(gguf_writer *w)
{
    if (!w) return;
    if (w->fd >= 0) {
        close(w->fd);
        unlink(w->part);
    }
    free(w->kv.p);
    free(w->tensors.p);
    free(w->tensor_bytes);
    free(w->path);
    free(w->part);
    free(w);
}
