/* Is an answer what was asked for? Checked before a byte of it is taken: that it is of the version that was
 * looked at, and of the bytes that were asked for.
 *
 * A version is known by the validator (strong ETag, or a date) of the host that has the bytes. A hub's
 * X-Linked-Etag names the content itself; the hosts behind a hub have tags of their own, which then only have
 * to stay the same for one address. */
#include "net/fetch_impl.h"
#include "src/base/log.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

void ranges_forget_address(ranges *r)
{
    free(r->address);
    r->address = NULL;
    *r->served = 0;
}

/* Nothing that is here counts any more. */
static int restart(ranges *r, pr_err *err)
{
    char shown[FETCH_SHOWN_BYTES];

    fetch_url_show(shown, r->x->url);
    if (r->have) log_warn("%s: the server gives neither ranges nor a version: from the start again", shown);
    r->have = 0;
    if (r->writer) journal_writer_wait(r->writer); /* what it writes must not come after "nothing is done" */
    if (r->part) return part_restart(r->part, err);
    set_clear(r->done);
    return PR_OK;
}

static int changed(const ranges *r, const char *what, pr_err *err)
{
    char shown[FETCH_SHOWN_BYTES];

    fetch_url_show(shown, r->x->url);
    return pr_fail(
        err, PR_EINTEGRITY,
        "%s: has changed on the server since it was looked at (%s); call again to fetch the new version",
        shown, what);
}

/* Both are there, of one kind (a tag, a date), and say different things. */
static bool differ(const char *a, const char *b)
{
    return *a && *b && (*a == '"') == (*b == '"') && strcmp(a, b) != 0;
}

static int check_version(ranges *r, slot *s, pr_err *err)
{
    const fetch_facts *x = r->x;
    const char *linked = s->a.linked_etag, *now = answer_validator(&s->a);

    if (fetch_names_content(x->etag, x)) r->hub = true;
    if (!s->start_at && *linked && (*x->etag || *x->sha256)) {
        if (!answer_tag_is(x->etag, linked) && strcasecmp(x->sha256, linked) != 0 &&
            strcmp(x->etag, now) != 0)
            return changed(r, "X-Linked-Etag", err);
        r->hub = true;
    }
    if (s->start_at && differ(r->served, now)) {
        if (!r->hub) return changed(r, "ETag", err);
        ranges_forget_address(r); /* the content has its name from the hub; ask it again */
        s->again = true;
        return PR_OK;
    }
    if (!s->start_at && !r->hub && differ(x->etag, now)) return changed(r, "ETag", err);
    snprintf(r->served, sizeof r->served, "%s", now);
    return PR_OK;
}

static int wrong_range(const slot *s, const char *what, pr_err *err)
{
    char shown[FETCH_SHOWN_BYTES];

    fetch_url_show(shown, s->at ? s->at : s->start_at ? s->start_at : s->url);
    return pr_fail(err, PR_EINTEGRITY,
                   "%s: the server sends what was not asked for: asked for bytes %llu-%llu, %s", shown,
                   (unsigned long long)s->first, (unsigned long long)s->end - 1, what);
}

static int unexpected(const slot *s, pr_err *err)
{
    char shown[FETCH_SHOWN_BYTES];

    fetch_url_show(shown, s->url);
    return pr_fail(err, PR_ENETWORK, "%s: HTTP %ld: not an answer to what was asked", shown, s->a.status);
}

static int begin_part(ranges *r, slot *s, pr_err *err)
{
    const answer *a = &s->a;
    char what[120];
    int rc;

    if (!s->ranged) return unexpected(s, err);
    if ((rc = check_version(r, s, err)) || s->again) return rc;
    if (!a->has_range || a->range_malformed)
        return wrong_range(s, "and it does not say which bytes it sends", err);
    if (a->has_total && r->x->has_bytes && a->total != r->x->bytes) return changed(r, "its size", err);
    if (a->first != s->first || a->end != s->end) {
        snprintf(what, sizeof what, "it sends %llu-%llu", (unsigned long long)a->first,
                 (unsigned long long)a->end - 1);
        return wrong_range(s, what, err);
    }
    r->proven = true;
    if (s->at && (!r->address || strcmp(r->address, s->at) != 0)) {
        free(r->address);
        r->address = strdup(s->at);
    }
    return PR_OK;
}

/* 200: the whole, from its first byte. */
static int begin_whole(ranges *r, slot *s, pr_err *err)
{
    const answer *a = &s->a;
    const char *now = answer_validator(a);
    bool same;
    int rc;

    if ((rc = check_version(r, s, err)) || s->again) return rc;
    if (a->has_length && r->x->has_bytes && a->length != r->x->bytes) return changed(r, "its size", err);
    if (r->proven) { /* there are ranges: If-Range did not hold, or another server answered */
        if (*s->if_range && !*now && !r->hub) return changed(r, "If-Range", err);
        ranges_forget_address(r);
        s->again = true;
        return PR_OK;
    }
    same = r->hub || (*now && strcmp(now, r->x->etag) == 0);
    r->single = true;
    r->stream = 0;
    return same || !r->done->total ? PR_OK : restart(r, err);
}

int ranges_begin(void *arg, slot *s, pr_err *err)
{
    ranges *r = arg;

    if (s->a.status == 206) return begin_part(r, s, err);
    if (s->a.status == 200) return begin_whole(r, s, err);
    if (s->a.status == 416 && s->a.has_total && s->a.total != r->x->bytes) return changed(r, "its size", err);
    if (s->a.status == 416) return wrong_range(s, "and it says that there are none (416)", err);
    return unexpected(s, err);
}
