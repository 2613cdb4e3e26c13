/* What is between the devices of a box: every packet that a device sends comes by here, and is given to the
 * device it is for later, or never.
 *
 *     relay FILE      a line for each device: NAME ADDRESS DELAY_US JITTER_US LOSS_PPM up|down
 *
 * Each device is the network namespace /run/netns/NAME and gets a TUN interface "ring0" there, which lives as
 * long as this process; its address and rate are the box's business (ip, tc tbf). A line says what happens to
 * what the device sends: it takes DELAY_US +- JITTER_US, in order; LOSS_PPM of a million packets are lost;
 * "down" is a cable that has been pulled: nothing goes in or out, and nobody is told. "ready" is printed when
 * all interfaces are there. On SIGHUP the file is read again; devices and addresses stay what they were.
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

typedef struct packet {
    struct packet *next;
    uint64_t due_ns;
    size_t to, n_bytes;
    uint8_t bytes[];
} packet;

typedef struct {
    char name[64];
    uint32_t address; /* network byte order */
    uint64_t delay_ns, jitter_ns;
    uint32_t loss_ppm;
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
    d->is_up = now->is_up;
}

static void read_file(const char *path, bool first_time)
{
    FILE *f = fopen(path, "r");
    char line[256];

    if (!f) die("cannot open", path);
    while (fgets(line, sizeof line, f)) {
        char address[64], up[8];
        unsigned long long delay_us, jitter_us;
        device d = {.fd = -1};
        struct in_addr a;
        if (sscanf(line, "%63s %63s %llu %llu %u %7s", d.name, address, &delay_us, &jitter_us, &d.loss_ppm,
                   up) != 6 ||
            inet_pton(AF_INET, address, &a) != 1) {
            errno = EINVAL;
            die("cannot read", path);
        }
        d.address = a.s_addr;
        d.delay_ns = delay_us * 1000;
        d.jitter_ns = jitter_us * 1000;
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
    if (!d->delay_ns && !d->first) {
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
        if (d->is_up) deliver(p->to, p->bytes, p->n_bytes);
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
