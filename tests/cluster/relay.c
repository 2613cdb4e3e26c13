/* What is between the devices of a box: every packet that a device sends comes by here, and is given to the
 * device it is for later, or never.
 *
 *     relay FILE      a line for each device:
 *                     NAME ADDRESS DELAY_US JITTER_US LOSS_PPM DRIBBLE_BYTES DRIBBLE_US up|down
 *
 * Each device is the network namespace /run/netns/NAME and gets a TUN interface "ring0" there, which lives as
 * long as this process; its address and rate are the box's business (ip, tc tbf). A line says what happens to
 * what the device sends: it takes DELAY_US +- JITTER_US, in order; LOSS_PPM of a million packets are lost;
 * where DRIBBLE_BYTES is not 0, TCP arrives in segments of so many bytes, DRIBBLE_US after each other; "down"
 * is a cable that has been pulled: nothing goes in or out, and nobody is told. "ready" is printed when all
 * interfaces are there. On SIGHUP the file is read again; devices and addresses stay what they were.
 *
 * Large TCP segments travel whole (virtio headers) as long as none are to be lost, so that a fast link costs
 * little. What a full queue cannot take is lost, as in a real one. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <linux/virtio_net.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

enum { MAX_DEVICES = 32, MAX_QUEUED = 8192, MAX_AT_ONCE = 64, HEADER_BYTES = sizeof(struct virtio_net_hdr) };
enum { IP_HEADER_BYTES = 20, IP_DESTINATION = 16, MAX_PACKET_BYTES = HEADER_BYTES + 65536 };
/* Places in an IPv4 header and in a TCP header, bits of the latter. */
enum {
    AT_IP_LENGTH = 2,
    AT_IP_ID = 4,
    AT_IP_PROTOCOL = 9,
    AT_IP_CHECKSUM = 10,
    AT_IP_SOURCE = 12,
    TCP_HEADER_BYTES = 20
};
enum {
    AT_TCP_SEQUENCE = 4,
    AT_TCP_OFFSET = 12,
    AT_TCP_FLAGS = 13,
    AT_TCP_CHECKSUM = 16,
    TCP_FIN = 1,
    TCP_PSH = 8
};

typedef struct packet {
    struct packet *next;
    uint64_t due_ns;
    size_t to, n_bytes;
    size_t n_dribbled; /* bytes of its TCP payload that have been delivered */
    uint8_t bytes[];
} packet;

typedef struct {
    char name[64];
    uint32_t address; /* network byte order */
    uint64_t delay_ns, jitter_ns;
    uint32_t loss_ppm, dribble_bytes;
    uint64_t dribble_ns;
    bool is_up;
    int fd;
    packet *first, *last; /* on their way from here, in order */
    size_t n_queued;
    uint64_t last_due_ns;
} device;

static device devices[MAX_DEVICES];
static size_t n_devices;
static volatile sig_atomic_t read_again;
static uint64_t random_state = 88172645463325252u;

static void die(const char *what, const char *name)
{
    fprintf(stderr, "relay: %s %s: %s\n", what, name, strerror(errno));
    exit(1);
}

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* xorshift64 */
static uint64_t random_u64(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    return random_state ^= random_state << 17;
}

/* --- the file ------------------------------------------------------------------------------------------ */
static void set(device *d, const device *now)
{
    d->delay_ns = now->delay_ns;
    d->jitter_ns = now->jitter_ns;
    d->loss_ppm = now->loss_ppm;
    d->dribble_bytes = now->dribble_bytes;
    d->dribble_ns = now->dribble_ns;
    d->is_up = now->is_up;
}

static void read_file(const char *path, bool first_time)
{
    FILE *f = fopen(path, "r");
    char line[256];

    if (!f) die("cannot open", path);
    while (fgets(line, sizeof line, f)) {
        char address[64], up[8];
        unsigned long long delay_us, jitter_us, dribble_us;
        device d = {.fd = -1};
        struct in_addr a;
        if (sscanf(line, "%63s %63s %llu %llu %u %u %llu %7s", d.name, address, &delay_us, &jitter_us,
                   &d.loss_ppm, &d.dribble_bytes, &dribble_us, up) != 8 ||
            inet_pton(AF_INET, address, &a) != 1) {
            errno = EINVAL;
            die("cannot read", path);
        }
        d.address = a.s_addr;
        d.delay_ns = delay_us * 1000;
        d.jitter_ns = jitter_us * 1000;
        d.dribble_ns = dribble_us * 1000;
        d.is_up = strcmp(up, "up") == 0;
        if (first_time && n_devices < MAX_DEVICES) devices[n_devices++] = d;
        for (size_t i = 0; i < n_devices; i++) {
            if (devices[i].address == d.address) set(&devices[i], &d);
        }
    }
    fclose(f);
}

static void on_hangup(int sig)
{
    (void)sig;
    read_again = 1;
}

/* --- interfaces ---------------------------------------------------------------------------------------- */
static void open_interface(device *d, int home)
{
    struct ifreq r = {.ifr_name = "ring0", .ifr_flags = IFF_TUN | IFF_NO_PI | IFF_VNET_HDR};
    unsigned offload = TUN_F_CSUM | (d->loss_ppm ? 0 : TUN_F_TSO4);
    char path[128];
    int ns;

    snprintf(path, sizeof path, "/run/netns/%.63s", d->name);
    if ((ns = open(path, O_RDONLY | O_CLOEXEC)) < 0 || setns(ns, CLONE_NEWNET)) die("cannot enter", path);
    close(ns);
    if ((d->fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC)) < 0)
        die("cannot open", "/dev/net/tun");
    if (ioctl(d->fd, TUNSETIFF, &r) || ioctl(d->fd, TUNSETOFFLOAD, offload)) die("no interface in", d->name);
    if (setns(home, CLONE_NEWNET)) die("cannot go back from", d->name);
}

/* --- packets ------------------------------------------------------------------------------------------- */
/* The device with the packet's destination; n_devices: none. */
static size_t whose(const uint8_t *bytes, size_t n)
{
    uint32_t to;
    size_t i = 0;

    if (n < HEADER_BYTES + IP_HEADER_BYTES || bytes[HEADER_BYTES] >> 4 != 4) return n_devices;
    memcpy(&to, bytes + HEADER_BYTES + IP_DESTINATION, sizeof to);
    while (i < n_devices && devices[i].address != to) i++;
    return i;
}

static void deliver(size_t to, const uint8_t *bytes, size_t n)
{
    /* A device that does not take it has lost it. */
    if (devices[to].is_up && write(devices[to].fd, bytes, n) < 0 && errno == EBADF)
        die("lost", "an interface");
}

/* --- dribbling ----------------------------------------------------------------------------------------- */
static void put_be16(uint8_t *p, unsigned v)
{
    p[0] = (uint8_t)(v >> 8);
    p[1] = (uint8_t)v;
}

static unsigned be16(const uint8_t *p)
{
    return (unsigned)p[0] << 8 | p[1];
}

static void put_be32(uint8_t *p, uint32_t v)
{
    put_be16(p, v >> 16);
    put_be16(p + 2, v & 0xffff);
}

static uint32_t be32(const uint8_t *p)
{
    return (uint32_t)be16(p) << 16 | be16(p + 2);
}

/* Ones' complement sum of these bytes, on top of `sum` (RFC 1071); a checksum is its complement. */
static uint32_t sum_of(const uint8_t *p, size_t n, uint32_t sum)
{
    for (size_t i = 0; i + 1 < n; i += 2) sum += be16(p + i);
    if (n % 2) sum += (uint32_t)p[n - 1] << 8;
    while (sum >> 16) sum = (sum & 0xffff) + (sum >> 16);
    return sum;
}

/* Bytes of IP and TCP header; 0: not TCP, or nothing in it. */
static size_t tcp_headers(const uint8_t *ip, size_t n)
{
    size_t ip_bytes = (size_t)(ip[0] & 15) * 4, all;

    if (ip[AT_IP_PROTOCOL] != IPPROTO_TCP || ip_bytes < IP_HEADER_BYTES || n < ip_bytes + TCP_HEADER_BYTES)
        return 0;
    all = ip_bytes + (size_t)(ip[ip_bytes + AT_TCP_OFFSET] >> 4) * 4;
    return all >= ip_bytes + TCP_HEADER_BYTES && n > all ? all : 0;
}

/* The next bytes of a packet's payload as a segment of their own. true: that was the last one. */
static bool deliver_piece(const device *d, packet *p)
{
    static uint8_t out[MAX_PACKET_BYTES];
    const uint8_t *ip = p->bytes + HEADER_BYTES;
    size_t n = p->n_bytes - HEADER_BYTES, headers = tcp_headers(ip, n), ip_bytes = (size_t)(ip[0] & 15) * 4;
    size_t left = headers ? n - headers - p->n_dribbled : 0,
           piece = left < d->dribble_bytes ? left : d->dribble_bytes;
    uint8_t *o = out + HEADER_BYTES, *tcp = o + ip_bytes;
    size_t tcp_bytes = headers - ip_bytes + piece;
    uint32_t pseudo; /* header: addresses, protocol, length */

    if (!headers || !d->dribble_bytes) {
        deliver(p->to, p->bytes, p->n_bytes);
        return true;
    }
    memset(out, 0, HEADER_BYTES); /* no offload: checksums are whole */
    memcpy(o, ip, headers);
    memcpy(o + headers, ip + headers + p->n_dribbled, piece);
    put_be16(o + AT_IP_LENGTH, (unsigned)(headers + piece));
    put_be16(o + AT_IP_ID, be16(ip + AT_IP_ID) + (unsigned)p->n_dribbled);
    put_be16(o + AT_IP_CHECKSUM, 0);
    put_be16(o + AT_IP_CHECKSUM, ~sum_of(o, ip_bytes, 0) & 0xffff);
    put_be32(tcp + AT_TCP_SEQUENCE, be32(tcp + AT_TCP_SEQUENCE) + (uint32_t)p->n_dribbled);
    if (piece < left) tcp[AT_TCP_FLAGS] &= (uint8_t) ~(TCP_FIN | TCP_PSH);
    put_be16(tcp + AT_TCP_CHECKSUM, 0);
    pseudo = sum_of(o + AT_IP_SOURCE, 8, IPPROTO_TCP + (uint32_t)tcp_bytes);
    put_be16(tcp + AT_TCP_CHECKSUM, ~sum_of(tcp, tcp_bytes, pseudo) & 0xffff);
    deliver(p->to, out, HEADER_BYTES + headers + piece);
    p->n_dribbled += piece;
    return piece == left;
}

/* --- the way ------------------------------------------------------------------------------------------- */
static void send_later(device *d, size_t to, const uint8_t *bytes, size_t n, uint64_t due_ns)
{
    packet *p = d->n_queued < MAX_QUEUED ? malloc(sizeof *p + n) : NULL;

    if (!p) return;
    *p = (packet){.due_ns = due_ns, .to = to, .n_bytes = n};
    memcpy(p->bytes, bytes, n);
    if (d->last) d->last->next = p;
    else d->first = p;
    d->last = p;
    d->n_queued++;
    d->last_due_ns = due_ns;
}

static void take(device *d, const uint8_t *bytes, size_t n)
{
    size_t to = whose(bytes, n);
    uint64_t due_ns;

    if (to == n_devices || !d->is_up) return;
    if (d->loss_ppm && random_u64() % 1000000 < d->loss_ppm) return;
    if (!d->delay_ns && !d->first && !d->dribble_bytes) {
        deliver(to, bytes, n);
        return;
    }
    due_ns = now_ns() + d->delay_ns;
    if (d->jitter_ns) {
        due_ns += random_u64() % (2 * d->jitter_ns);
        due_ns -= d->jitter_ns < d->delay_ns ? d->jitter_ns : d->delay_ns;
    }
    send_later(d, to, bytes, n, due_ns > d->last_due_ns ? due_ns : d->last_due_ns);
}

static void read_packets(device *d)
{
    static uint8_t bytes[MAX_PACKET_BYTES];

    for (int i = 0; i < MAX_AT_ONCE; i++) {
        ssize_t n = read(d->fd, bytes, sizeof bytes);
        if (n <= 0) return;
        take(d, bytes, (size_t)n);
    }
}

static void send_due(device *d)
{
    uint64_t now = d->first ? now_ns() : 0;

    while (d->first && d->first->due_ns <= now) {
        packet *p = d->first;
        bool is_last = !d->is_up || deliver_piece(d, p);
        if (d->dribble_bytes) p->due_ns += d->dribble_ns;
        if (!is_last) continue;
        if (d->dribble_bytes && p->next && p->next->due_ns < p->due_ns) p->next->due_ns = p->due_ns;
        d->first = p->next;
        if (!d->first) d->last = NULL;
        d->n_queued--;
        free(p);
    }
}

/* --- the loop ------------------------------------------------------------------------------------------ */
static struct timespec until_next(void)
{
    uint64_t next = UINT64_MAX, now = now_ns();

    for (size_t i = 0; i < n_devices; i++) {
        if (devices[i].first && devices[i].first->due_ns < next) next = devices[i].first->due_ns;
    }
    if (next == UINT64_MAX) return (struct timespec){.tv_sec = 3600};
    if (next <= now) return (struct timespec){0};
    return (struct timespec){.tv_sec = (time_t)((next - now) / 1000000000u),
                             .tv_nsec = (long)((next - now) % 1000000000u)};
}

static void run(const char *path, const sigset_t *while_waiting)
{
    struct pollfd p[MAX_DEVICES];

    for (size_t i = 0; i < n_devices; i++) p[i] = (struct pollfd){.fd = devices[i].fd, .events = POLLIN};
    for (;;) {
        struct timespec t = until_next();
        int n = ppoll(p, n_devices, &t, while_waiting);
        if (n < 0 && errno != EINTR) die("cannot wait", "for packets");
        if (read_again) {
            read_again = 0;
            read_file(path, false);
        }
        for (size_t i = 0; i < n_devices; i++) {
            if (n > 0 && p[i].revents) read_packets(&devices[i]);
            send_due(&devices[i]);
        }
    }
}

int main(int argc, char **argv)
{
    const struct sigaction a = {.sa_handler = on_hangup};
    sigset_t blocked, before;
    int home = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);

    if (argc != 2) {
        fprintf(stderr, "usage: relay FILE\n");
        return 2;
    }
    if (home < 0) die("cannot open", "/proc/self/ns/net");
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGHUP);
    sigprocmask(SIG_BLOCK, &blocked, &before);
    sigaction(SIGHUP, &a, NULL);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    prctl(PR_SET_TIMERSLACK, 1000);
    read_file(argv[1], true);
    for (size_t i = 0; i < n_devices; i++) open_interface(&devices[i], home);
    puts("ready");
    fflush(stdout);
    run(argv[1], &before);
}
