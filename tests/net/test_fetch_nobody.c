/* Hosts that are not there: what is given up at once, what is tried again, and how often. The resolver is
 * this file's own: libcurl and net/fetch get the answers that a test wants, without any network. */
#include "net/fetch.h"
#include "tests/net/fetch_rig.h"
#include <criterion/criterion.h>
#include <netdb.h>
#include <stdatomic.h>

static atomic_int verdict, asked; /* verdict 0: everything is this machine */
static uint16_t nobody_listens;

/* In place of the C library's, for every library of this program. */
int getaddrinfo(const char *node, const char *service, const struct addrinfo *hints, struct addrinfo **found)
{
    struct {
        struct addrinfo info;
        struct sockaddr_in address;
    } * one;

    (void)node;
    asked++;
    if (verdict) return verdict;
    one = calloc(1, sizeof *one);
    if (!one) return EAI_MEMORY;
    one->address = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (service) one->address.sin_port = htons((uint16_t)atoi(service));
    one->info = (struct addrinfo){.ai_family = AF_INET,
                                  .ai_socktype = hints ? hints->ai_socktype : SOCK_STREAM,
                                  .ai_addr = (struct sockaddr *)&one->address,
                                  .ai_addrlen = sizeof one->address};
    *found = &one->info;
    return 0;
}

void freeaddrinfo(struct addrinfo *found)
{
    free(found);
}

/* A port that was free a moment ago. */
static void find_free_port(void)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof a;
    int s = socket(AF_INET, SOCK_STREAM, 0);

    cr_assert(s >= 0 && !bind(s, (struct sockaddr *)&a, n) && !getsockname(s, (struct sockaddr *)&a, &n));
    nobody_listens = ntohs(a.sin_port);
    close(s);
}

static void setup(void)
{
    rig_setup();
    find_free_port();
    options.tries = 8;
    options.backoff_s = 0.001;
    options.insecure_http = true;
    rig_open();
}

TestSuite(fetch_nobody, .init = setup, .fini = rig_clear, .timeout = 60);

static void ask(const char *host, uint16_t port)
{
    char url[200];

    snprintf(url, sizeof url, "http://%s:%u/f", host, port);
    asked = 0;
    cr_expect_eq(fetch_head(f, url, &facts, &err), PR_ENETWORK, "%s", err.msg);
}

/* Once by libcurl, once for the reason. */
Test(fetch_nobody, a_name_that_does_not_exist_is_asked_for_once)
{
    verdict = EAI_NONAME;
    ask("hugginface.example", 80);
    cr_expect_leq(asked, 2);
    cr_expect(strstr(err.msg, "no host named hugginface.example"), "%s", err.msg);
    verdict = EAI_NODATA;
    ask("no-address.example", 80);
    cr_expect_leq(asked, 2);
    cr_expect(strstr(err.msg, "no host named no-address.example"), "%s", err.msg);
}

/* The name server is silent: all tries. */
Test(fetch_nobody, a_silent_name_server_is_asked_again)
{
    verdict = EAI_AGAIN;
    ask("models.example", 80);
    cr_expect_geq(asked, 8, "%d", (int)asked);
    cr_expect(strstr(err.msg, "models.example") && strstr(err.msg, "8 tries"), "%s", err.msg);
}

Test(fetch_nobody, a_refused_connection_is_tried_three_times)
{
    ask("models.example", nobody_listens);
    cr_expect(strstr(err.msg, "models.example") && strstr(err.msg, "refused") && strstr(err.msg, "3 tries"),
              "%s", err.msg);
    options.tries = 1;
    rig_close();
    rig_open();
    ask("models.example", nobody_listens);
    cr_expect(strstr(err.msg, "refused") && strstr(err.msg, "1 tries"), "%s", err.msg);
}

/* Who has answered before will be back: all tries, also when its name is gone for a while. */
Test(fetch_nobody, a_host_that_has_answered_is_trusted)
{
    cr_assert_eq(fetch_head(f, http_url(&site, "/f"), &facts, &err), PR_OK, "%s", err.msg);
    fetch_facts_clear(&facts);
    ask("models.example", nobody_listens);
    cr_expect(strstr(err.msg, "8 tries"), "%s", err.msg);
    verdict = EAI_NONAME;
    ask("other.example", 80);
    cr_expect(strstr(err.msg, "8 tries"), "%s", err.msg);
}
