/* The unit in which prima processes speak: a header of 64 bytes, little endian, and a payload.
 *
 *   0 magic "PRMA"    4 protocol u16      6 type u16        8 flags u32     12 payload_bytes u32
 *  16 session u64    24 batch u64        32 round u32      36 layer u32     40 rows u32      44 cols u32
 *  48 rank u16       50 elem u16         52 extra u32     56 eight bytes of zero
 *
 * No checksum: TLS authenticates every byte, and a plain connection is for one machine or for those who have
 * spelled out that they trust the wire. What the fields mean is the reader's and writer's business; here is
 * checked that a header is one of ours, of an expected type, no longer than the caller allows, and that a
 * matrix is as long as its rows and columns say. */
#ifndef PRIMA_NET_FRAME_H
#define PRIMA_NET_FRAME_H
#include "net/secure.h"
#include "src/base/err.h"
#include <stdint.h>

enum { FRAME_HEADER_BYTES = 64, FRAME_PROTOCOL = 1 };

typedef enum {
    FRAME_ECHO = 1, /* link probe: send this back without its payload */
    FRAME_GIVE,     /* link probe: send `batch` frames of this shape */
    FRAME_FILL,     /* link probe: such a frame; not answered */
    FRAME_BYE,      /* no more requests */
    FRAME_CONTROL,  /* a JSON object (src/run/control.h) */
    FRAME_BULK,     /* part of what a control message has announced */
    FRAME_JOIN,     /* opens a data connection: session and rank of the sender, payload: the run's token */
    FRAME_PASS,     /* hidden states of a micro-batch, and behind them what it is (src/run/wire.h) */
    FRAME_WALK,     /* collects the layers of each device that it comes by */
    FRAME_TYPES_END
} frame_type;
#define FRAME_BIT(type) (UINT32_C(1) << (type))
_Static_assert(FRAME_TYPES_END <= 32, "a set of types is 32 bits");

typedef enum { FRAME_NO_ELEM, FRAME_F32, FRAME_F16, FRAME_BF16 } frame_elem;

typedef struct {
    uint16_t type, rank, elem;
    uint32_t flags, payload_bytes, round, layer, rows, cols, extra;
    uint64_t session, batch;
} frame;

typedef struct {
    uint32_t max_payload_bytes; /* the caller's buffer */
    uint32_t types;             /* FRAME_BIT of those that may come now */
} frame_limits;

/* Bytes of rows x cols elements; 0 for FRAME_NO_ELEM or when 32 bits do not hold them. */
uint32_t frame_matrix_bytes(uint16_t elem, uint32_t rows, uint32_t cols);
void frame_encode(uint8_t out[FRAME_HEADER_BYTES], const frame *f);
/* PR_EMISMATCH: another version of the protocol. PR_EPEER: everything else that is wrong with it. */
int frame_decode(frame *f, const uint8_t in[FRAME_HEADER_BYTES], const frame_limits *limits, pr_err *err);

/* room: FRAME_HEADER_BYTES, filled here, and the payload behind them: one write, no copy. */
int frame_send(channel *c, uint8_t *room, const frame *f, uint64_t deadline_ns, pr_err *err);
/* payload: max_payload_bytes of room (may be NULL when 0). After an error the stream is out of step: close.
 */
int frame_recv(channel *c, frame *f, uint8_t *payload, const frame_limits *limits, uint64_t deadline_ns,
               pr_err *err);

#endif
