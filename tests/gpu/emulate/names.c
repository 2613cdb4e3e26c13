/* Names of kernels, which are static functions: from the table of symbols in the program's own file (ELF). */
#include "tests/gpu/emulate/emulate.h"
#include <elf.h>
#include <fcntl.h>
#include <link.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *file;
static size_t file_bytes;

static void map_program(void)
{
    struct stat st;
    int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    void *p =
        fd < 0 || fstat(fd, &st) ? MAP_FAILED : mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);

    if (fd >= 0) close(fd);
    if (p == MAP_FAILED) return;
    file = p;
    file_bytes = (size_t)st.st_size;
}

/* What the loader has added to the file's addresses: the program itself comes first. */
static int first_base(struct dl_phdr_info *info, size_t size, void *out)
{
    (void)size;
    *(ElfW(Addr) *)out = info->dlpi_addr;
    return 1;
}

/* "_ZL6matmulILi4EEvPf" has the name behind its length; what follows tells instances apart. */
static void readable(char *out, size_t bytes, const char *symbol)
{
    const char *p = symbol;
    size_t n;
    char *rest;

    while (*p && (*p < '0' || *p > '9')) p++;
    n = strtoul(p, &rest, 10);
    if (strncmp(symbol, "_Z", 2) || !n || n > strlen(rest)) snprintf(out, bytes, "%s", symbol);
    else snprintf(out, bytes, "%.*s %s", (int)n, rest, rest + n);
}

const char *emu_name(const void *code)
{
    static char name[200];
    const ElfW(Ehdr) * header;
    ElfW(Addr) base = 0;

    snprintf(name, sizeof name, "kernel %p", code);
    if (!file) map_program();
    if (!file || file_bytes < sizeof *header) return name;
    header = (const void *)file;
    dl_iterate_phdr(first_base, &base);
    if (header->e_shoff + (uint64_t)header->e_shnum * sizeof(ElfW(Shdr)) > file_bytes) return name;
    const ElfW(Shdr) *section = (const void *)(file + header->e_shoff);
    for (size_t i = 0; i < header->e_shnum; i++) {
        if (section[i].sh_type != SHT_SYMTAB) continue;
        const ElfW(Sym) *symbol = (const void *)(file + section[i].sh_offset);
        const char *text = file + section[section[i].sh_link].sh_offset;
        for (size_t k = 0; k < section[i].sh_size / sizeof *symbol; k++) {
            if ((symbol[k].st_info & 0xf) == STT_FUNC && base + symbol[k].st_value == (ElfW(Addr))code)
                readable(name, sizeof name, text + symbol[k].st_name);
        }
    }
    return name;
}
