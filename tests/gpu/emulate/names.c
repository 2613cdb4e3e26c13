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

/* The program's table of symbols. */
typedef struct {
    const ElfW(Sym) * symbol;
    const char *text;
    size_t n;
    ElfW(Addr) base;
} table;

static table find_table(void)
{
    const ElfW(Ehdr) * header;
    table t = {0};

    if (!file) map_program();
    if (!file || file_bytes < sizeof *header) return t;
    header = (const void *)file;
    dl_iterate_phdr(first_base, &t.base);
    if (header->e_shoff + (uint64_t)header->e_shnum * sizeof(ElfW(Shdr)) > file_bytes) return t;
    const ElfW(Shdr) *section = (const void *)(file + header->e_shoff);
    for (size_t i = 0; i < header->e_shnum; i++) {
        if (section[i].sh_type != SHT_SYMTAB) continue;
        t.symbol = (const void *)(file + section[i].sh_offset);
        t.n = section[i].sh_size / sizeof *t.symbol;
        t.text = file + section[section[i].sh_link].sh_offset;
    }
    return t;
}

static int kind_of(const ElfW(Sym) * s)
{
    return s->st_info & 0xf;
}

/* Which symbol a function is; t->n: none. */
static size_t find_code(const table *t, const void *code)
{
    size_t i = 0;

    while (i < t->n &&
           (kind_of(&t->symbol[i]) != STT_FUNC || t->base + t->symbol[i].st_value != (ElfW(Addr))code))
        i++;
    return i;
}

const char *emu_symbol(const void *code)
{
    table t = find_table();
    size_t at = find_code(&t, code);

    return at < t.n ? t.text + t.symbol[at].st_name : NULL;
}

const char *emu_name(const void *code)
{
    static char name[200];
    const char *symbol = emu_symbol(code);

    if (symbol) readable(name, sizeof name, symbol);
    else snprintf(name, sizeof name, "kernel %p", code);
    return name;
}

/* The arrays of "_ZL4tileILi4EEvPf" are "_ZZL4tileILi4EEvPfE1x", and stand with it: between its source file's
 * symbol and the next one's. */
size_t emu_static_shared(const void *kernel)
{
    table t = find_table();
    size_t at = find_code(&t, kernel), bytes = 0, n;
    const char *name;

    if (at == t.n) return 0;
    name = t.text + t.symbol[at].st_name + 2;
    n = strlen(name);
    while (at > 0 && kind_of(&t.symbol[at]) != STT_FILE) at--;
    for (size_t i = at + 1; i < t.n && kind_of(&t.symbol[i]) != STT_FILE; i++) {
        const char *array = t.text + t.symbol[i].st_name;
        if (kind_of(&t.symbol[i]) == STT_OBJECT && !strncmp(array, "_ZZ", 3) &&
            !strncmp(array + 3, name, n) && array[3 + n] == 'E')
            bytes += t.symbol[i].st_size;
    }
    return bytes;
}
