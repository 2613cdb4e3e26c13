/* Frames: field by field, so that neither padding nor byte order of a machine is on the wire. */
#include "net/frame.h"
#include "src/base/bytes.h"
#include <assert.h>
#include <string.h>

static const uint8_t magic[4] = {'P', 'R', 'M', 'A'};
enum { RESERVED_AT = 56, RESERVED_BYTES = FRAME_HEADER_BYTES - RESERVED_AT };

uint32_t frame_matrix_bytes(uint16_t elem, uint32_t rows, uint32_t cols)
{
    uint64_t n = (uint64_t)rows * cols;

    if (elem == FRAME_NO_ELEM || n > UINT32_MAX / 4) return 0;
    return (uint32_t)(elem == FRAME_F32 ? n * 4 : n * 2);
}

/* --- writing -----------------------------------------------------------------------------------------------
 */
static uint8_t *put(uint8_t *at, uint64_t v, unsigned n)
{
    for (unsigned i = 0; i < n; i++) at[i] = (uint8_t)(v >> (8 * i));
    return at + n;
}

void frame_encode(uint8_t out[FRAME_HEADER_BYTES], const frame *f)
{
    uint8_t *at = out + sizeof magic;

    memcpy(out, magic, sizeof magic);
    at = put(at, FRAME_PROTOCOL, 2);
    at = put(at, f->type, 2);
    at = put(at, f->flags, 4);
    at = put(at, f->payload_bytes, 4);
    at = put(at, f->session, 8);
    at = put(at, f->batch, 8);
    at = put(at, f->round, 4);
    at = put(at, f->layer, 4);
    at = put(at, f->rows, 4);
    at = put(at, f->cols, 4);
    at = put(at, f->rank, 2);
    at = put(at, f->elem, 2);
    at = put(at, f->extra, 4);
    assert(at == out + RESERVED_AT);
    memset(at, 0, RESERVED_BYTES);
}

/* --- reading -----------------------------------------------------------------------------------------------
 */
static int not_ours(const uint8_t in[4], pr_err *err)
{
    if (in[0] == 0x16 && in[1] == 3)
        return pr_fail(err, PR_EPEER,
                       "a TLS greeting where a plain frame was expected: the other side has a key, "
                       "this one runs with --insecure");
    return pr_fail(err, PR_EPEER, "not a prima frame: begins with %02x %02x %02x %02x, expected \"PRMA\"",
                   in[0], in[1], in[2], in[3]);
}

static int check_shape(const frame *f, pr_err *err)
{
    uint64_t matrix = frame_matrix_bytes(f->elem, f->rows, f->cols);

    if (f->elem > FRAME_BF16) return pr_fail(err, PR_EPEER, "malformed frame: element type %u", f->elem);
    if ((f->elem == FRAME_NO_ELEM) == (!f->rows && !f->cols) && (matrix > 0) == (f->elem != FRAME_NO_ELEM) &&
        matrix + f->extra == f->payload_bytes)
        return PR_OK;
    return pr_fail(err, PR_EPEER, "malformed frame: %u bytes for %u x %u elements of type %u and %u more",
                   f->payload_bytes, f->rows, f->cols, f->elem, f->extra);
}

static int check(const frame *f, uint16_t protocol, const frame_limits *limits, pr_err *err)
{
    if (protocol != FRAME_PROTOCOL)
        return pr_fail(err, PR_EMISMATCH,
                       "the peer speaks version %u of the protocol and we version %u: install "
                       "the same prima on both",
                       protocol, FRAME_PROTOCOL);
    if (!f->type || f->type >= FRAME_TYPES_END || !(limits->types & FRAME_BIT(f->type)))
        return pr_fail(err, PR_EPEER, "a frame of type %u is not expected here", f->type);
    if (f->payload_bytes > limits->max_payload_bytes)
        return pr_fail(err, PR_EPEER, "a frame of %u bytes; at most %u are allowed here", f->payload_bytes,
                       limits->max_payload_bytes);
    return check_shape(f, err);
}

int frame_decode(frame *f, const uint8_t in[FRAME_HEADER_BYTES], const frame_limits *limits, pr_err *err)
{
    bytes b = bytes_of(in, FRAME_HEADER_BYTES);
    const uint8_t *m = bytes_take(&b, sizeof magic);
    uint16_t protocol;

    *f = (frame){0};
    if (memcmp(m, magic, sizeof magic)) return not_ours(m, err);
    protocol = bytes_u16(&b);
    f->type = bytes_u16(&b);
    f->flags = bytes_u32(&b);
    f->payload_bytes = bytes_u32(&b);
    f->session = bytes_u64(&b);
    f->batch = bytes_u64(&b);
    f->round = bytes_u32(&b);
    f->layer = bytes_u32(&b);
    f->rows = bytes_u32(&b);
    f->cols = bytes_u32(&b);
    f->rank = bytes_u16(&b);
    f->elem = bytes_u16(&b);
    f->extra = bytes_u32(&b);
    for (int i = RESERVED_AT; i < FRAME_HEADER_BYTES; i++)
        if (in[i] && protocol == FRAME_PROTOCOL)
            return pr_fail(err, PR_EPEER, "malformed frame: byte %d is %u, expected 0", i, in[i]);
    return check(f, protocol, limits, err);
}

/* --- over a channel
 * ------------------------------------------------------------------------------------------
 */
int frame_send(channel *c, uint8_t *room, const frame *f, uint64_t deadline_ns, pr_err *err)
{
    frame_encode(room, f);
    return channel_write(c, room, FRAME_HEADER_BYTES + (size_t)f->payload_bytes, deadline_ns, err);
}

int frame_recv(channel *c, frame *f, uint8_t *payload, const frame_limits *limits, uint64_t deadline_ns,
               pr_err *err)
{
    uint8_t header[FRAME_HEADER_BYTES];
    int rc = channel_read(c, header, sizeof header, deadline_ns, err);

    if (rc) return rc;
    if ((rc = frame_decode(f, header, limits, err))) {
        pr_wrap(err, "%s", channel_peer(c));
        return rc;
    }
    return f->payload_bytes ? channel_read(c, payload, f->payload_bytes, deadline_ns, err) : PR_OK;
}
