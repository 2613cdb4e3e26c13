/* What this machine is: names, counts and sizes as the system tells them. What it does not tell becomes
 * "unknown" or 1, never an error: a profile needs none of it to be right. */
#include "kernels/kernels.h"
#include "src/base/mem.h"
#include "src/probe.h"
#include <ctype.h>
#include <dirent.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#ifdef __linux__
#include <sys/sysmacros.h>
#endif
#include <sys/utsname.h>
#include <unistd.h>

enum { MAX_CORES = 4096 };

/* First line of a file without its end, "" when it cannot be read. */
static void first_line(char *out, size_t n, const char *path)
{
    FILE *f = fopen(path, "re");

    out[0] = 0;
    if (!f) return;
    if (!fgets(out, (int)n, f)) out[0] = 0;
    fclose(f);
    out[strcspn(out, "\n")] = 0;
}

/* Printable ASCII only: the names go into a JSON file as they are. */
static void copy_text(char *out, size_t n, const char *text)
{
    size_t k = 0;

    for (; *text && k + 1 < n; text++)
        if (*text >= 0x20 && *text < 0x7F) out[k++] = *text;
    out[k] = 0;
}

/* "model name" of /proc/cpuinfo (x86), else what a board calls itself (Arm). */
static void cpu_model(char *out, size_t n)
{
    FILE *f = fopen("/proc/cpuinfo", "re");
    char line[256] = "", board[256];

    snprintf(out, n, "unknown");
    while (f && fgets(line, sizeof line, f)) {
        char *value = strchr(line, ':');
        if (strncmp(line, "model name", 10) || !value) continue;
        copy_text(out, n, value + 1 + (value[1] == ' '));
        break;
    }
    if (f) fclose(f);
    first_line(board, sizeof board, "/proc/device-tree/model");
    if (strcmp(out, "unknown") == 0 && *board) copy_text(out, n, board);
}

/* A small number of /sys/devices/system/cpu/cpuN/NAME; -1 when it is not there. */
static long cpu_number(int cpu, const char *name)
{
    char path[128], text[32];

    snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/%s", cpu, name);
    first_line(text, sizeof text, path);
    return *text ? strtol(text, NULL, 10) : -1;
}

/* Cores: hardware threads that share a (package, core) pair count once. */
static uint32_t physical_cores(void)
{
    static long seen[MAX_CORES];
    long n_cpus = sysconf(_SC_NPROCESSORS_CONF);
    uint32_t n = 0;

    for (int cpu = 0; cpu < n_cpus && n < MAX_CORES; cpu++) {
        long core = cpu_number(cpu, "topology/core_id"),
             package = cpu_number(cpu, "topology/physical_package_id");
        long id = (package << 20) + core;
        uint32_t i = 0;
        if (core < 0) continue;
        while (i < n && seen[i] != id) i++;
        if (i == n) seen[n++] = id;
    }
    return n ? n : n_cpus > 0 ? (uint32_t)n_cpus : 1;
}

static uint32_t numa_nodes(void)
{
    DIR *d = opendir("/sys/devices/system/node");
    struct dirent *e;
    uint32_t n = 0;

    while (d && (e = readdir(d))) n += !strncmp(e->d_name, "node", 4) && isdigit((unsigned char)e->d_name[4]);
    if (d) closedir(d);
    return n ? n : 1;
}

void probe_note(profile *p, const char *fmt, ...)
{
    size_t n = strlen(p->note);
    va_list args;

    if (n) n += (size_t)snprintf(p->note + n, sizeof p->note - n, "; ");
    if (n >= sizeof p->note) return;
    va_start(args, fmt);
    vsnprintf(p->note + n, sizeof p->note - n, fmt, args);
    va_end(args);
    for (char *c = p->note; *c; c++)
        if (*c < 0x20 || *c > 0x7E) *c = '?';
}

void probe_machine(profile *p, int n_threads)
{
    struct utsname u = {0};
    kernel_table k;

    kernels_init(&k, cpu_features());
    uname(&u);
    copy_text(p->host, sizeof p->host, *u.nodename ? u.nodename : "unknown");
    copy_text(p->os, sizeof p->os, *u.sysname ? u.sysname : "unknown");
    copy_text(p->kernel, sizeof p->kernel, *u.release ? u.release : "unknown");
    cpu_model(p->cpu_model, sizeof p->cpu_model);
    copy_text(p->isa, sizeof p->isa, k.isa);
    p->cores_physical = physical_cores();
    p->threads = (uint32_t)n_threads;
    p->numa_nodes = numa_nodes();
    p->ram_total_bytes = mem_total_bytes();
    p->ram_available_bytes = mem_available_bytes();
}

/* --- the drive ------------------------------------------------------------------------------------------ */
#ifdef __linux__
/* Type and source of the mounted file system with this device number: "ext4 on /dev/sda1". */
static bool mounted(char *out, size_t n, unsigned major_no, unsigned minor_no)
{
    FILE *f = fopen("/proc/self/mountinfo", "re");
    char line[4096];
    bool found = false;

    while (f && !found && fgets(line, sizeof line, f)) {
        unsigned a, b;
        char type[32], source[96], text[160];
        const char *dash = strstr(line, " - ");
        if (sscanf(line, "%*d %*d %u:%u", &a, &b) != 2 || a != major_no || b != minor_no) continue;
        if (!dash || sscanf(dash, " - %31s %95s", type, source) != 2) continue;
        snprintf(text, sizeof text, "%s on %s", type, source);
        copy_text(out, n, text);
        found = true;
    }
    if (f) fclose(f);
    return found;
}

/* ", MODEL, 512110190592 bytes" of a block device, as far as it is known. */
static void add_drive(char *out, size_t n, unsigned major_no, unsigned minor_no)
{
    static const char *const models[] = {"device/model", "../device/model"}; /* of a disk, of a partition */
    char path[128], text[160] = "", part[96];

    for (size_t i = 0; i < 2 && !*text; i++) {
        snprintf(path, sizeof path, "/sys/dev/block/%u:%u/%s", major_no, minor_no, models[i]);
        first_line(part, sizeof part, path);
        for (size_t k = strlen(part); k && part[k - 1] == ' '; k--) part[k - 1] = 0;
        if (*part) snprintf(text, sizeof text, ", %s", part);
    }
    snprintf(path, sizeof path, "/sys/dev/block/%u:%u/size", major_no, minor_no);
    first_line(part, sizeof part, path);
    if (*part)
        snprintf(text + strlen(text), sizeof text - strlen(text), ", %llu bytes",
                 strtoull(part, NULL, 10) * 512);
    copy_text(out + strlen(out), n - strlen(out), text);
}
#endif

void probe_disk_name(profile *p, const char *path)
{
#ifdef __linux__
    char at[4096];
    struct stat st;

    p->disk_name[0] = 0;
    snprintf(at, sizeof at, "%s%s", *path == '/' ? "" : "./", path);
    while (stat(at, &st)) {
        char *slash = strrchr(at, '/');
        if (!slash || slash == at) return;
        *slash = 0;
    }
    if (mounted(p->disk_name, sizeof p->disk_name, major(st.st_dev), minor(st.st_dev)))
        add_drive(p->disk_name, sizeof p->disk_name, major(st.st_dev), minor(st.st_dev));
#else
    (void)path;
    p->disk_name[0] = 0;
#endif
}

/* --- caches --------------------------------------------------------------------------------------------- */
/* Bits set in a mask such as "00000000,0000ffff". */
static size_t mask_bits(const char *mask)
{
    size_t n = 0;

    for (; *mask; mask++) {
        char digit[2] = {*mask, 0};
        for (long v = strtol(digit, NULL, 16); v; v &= v - 1) n++;
    }
    return n;
}

size_t probe_cache_bytes(int n_threads)
{
    char path[128], size[32], shared[1024];
    size_t bytes = 0;

    /* The levels are index0 .. indexN; the last is the largest. */
    for (int i = 0; i < 8; i++) {
        char *unit;
        size_t n, sharers;
        snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu0/cache/index%d/size", i);
        first_line(size, sizeof size, path);
        snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu0/cache/index%d/shared_cpu_map", i);
        first_line(shared, sizeof shared, path);
        n = (size_t)strtoull(size, &unit, 10);
        n <<= *unit == 'K' ? 10 : *unit == 'M' ? 20 : 0;
        sharers = mask_bits(shared);
        if (!sharers) sharers = 1;
        n *= ((size_t)n_threads + sharers - 1) / sharers;
        if (n > bytes) bytes = n;
    }
    return bytes ? bytes : (size_t)32 << 20;
}
