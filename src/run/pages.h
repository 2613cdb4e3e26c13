/* Who owns which KV page; pages of a common beginning are shared.
 *
 * A page holds KV_PAGE consecutive tokens of a sequence. A full page can be registered under (the page before
 * it, its tokens): a later sequence that begins with the same tokens finds it and computes nothing. A page
 * without owners keeps its registration until its place is needed; the longest unused goes first. Because a
 * token's keys and values depend only on the tokens up to it (rule 3 of kernels.h), sharing changes no bit of
 * any completion. */
#ifndef PRIMA_RUN_PAGES_H
#define PRIMA_RUN_PAGES_H
#include <stddef.h>
#include <stdint.h>

typedef struct pages pages;

pages *pages_new(size_t n_pages); /* NULL: out of memory */
void pages_free(pages *p);

/* Pages that pages_take can still give. */
size_t pages_available(const pages *p);
/* An unregistered page with one owner; -1 when none is left. */
int32_t pages_take(pages *p);
/* One owner less. */
void pages_release(pages *p, int32_t page);
/* The registered page that follows `parent` (-1: the first of a sequence) with these KV_PAGE tokens, with one
 * owner more; -1: none. */
int32_t pages_find(pages *p, int32_t parent, const int32_t *tokens);
/* Make an owned page findable; nothing happens when the same content is registered already (or the parent is
 * not). */
void pages_register(pages *p, int32_t page, int32_t parent, const int32_t *tokens);
/* No page's content counts any more (the caches are lost); owners keep their pages. */
void pages_forget_all(pages *p);

#endif
