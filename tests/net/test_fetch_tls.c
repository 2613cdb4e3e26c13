/* https: whom the fetch engine trusts, and that nothing leads it from https to plain http or carries the
 * token there. The server's certificate is made here, for localhost, and is nobody's. */
#include "tests/net/fetch_rig.h"
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

TestSuite(fetch_tls, .init = rig_setup, .fini = rig_clear, .timeout = 30);

static SSL_CTX *context;
static char certificate[120], location[300], secure_url[100];
static unsigned handshakes, tokens;

static void make_certificate(void)
{
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *x = X509_new();
    X509_EXTENSION *names = X509V3_EXT_conf_nid(NULL, NULL, NID_subject_alt_name, "DNS:localhost");
    FILE *out;

    X509_set_version(x, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(x), 1);
    X509_gmtime_adj(X509_getm_notBefore(x), -60);
    X509_gmtime_adj(X509_getm_notAfter(x), 3600);
    X509_NAME_add_entry_by_txt(X509_get_subject_name(x), "CN", MBSTRING_ASC,
                               (const unsigned char *)"localhost", -1, -1, 0);
    X509_set_issuer_name(x, X509_get_subject_name(x));
    X509_set_pubkey(x, key);
    X509_add_ext(x, names, -1);
    cr_assert(X509_sign(x, key, EVP_sha256()));
    context = SSL_CTX_new(TLS_server_method());
    cr_assert(SSL_CTX_use_certificate(context, x) == 1 && SSL_CTX_use_PrivateKey(context, key) == 1);
    snprintf(certificate, sizeof certificate, "%s/cert.pem", folder);
    cr_assert((out = fopen(certificate, "w")));
    PEM_write_X509(out, x);
    fclose(out);
    X509_EXTENSION_free(names);
    X509_free(x);
    EVP_PKEY_free(key);
}

/* One request a connection: /go leads to `location`, everything else is "hello". */
static void answer_one(SSL *ssl)
{
    char text[8192], out[600];
    size_t n = 0, got;

    while (n + 1 < sizeof text && SSL_read_ex(ssl, text + n, sizeof text - 1 - n, &got)) {
        n += got;
        text[n] = 0;
        if (strstr(text, "\r\n\r\n")) break;
    }
    if (!n) return;
    tokens += strstr(text, "Authorization: Bearer") != NULL;
    if (strncmp(text, "GET /go", 7) == 0)
        snprintf(out, sizeof out,
                 "HTTP/1.1 302 T\r\nLocation: %s\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
                 location);
    else snprintf(out, sizeof out, "HTTP/1.1 200 T\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello");
    SSL_write_ex(ssl, out, strlen(out), &got);
    SSL_shutdown(ssl);
}

static void *serve(void *arg)
{
    int listener = *(int *)arg;

    for (int fd; (fd = accept(listener, NULL, NULL)) >= 0; close(fd)) {
        SSL *ssl = SSL_new(context);
        SSL_set_fd(ssl, fd);
        handshakes++;
        if (SSL_accept(ssl) == 1) answer_one(ssl);
        SSL_free(ssl);
    }
    return NULL;
}

static void start(void)
{
    static int listener;
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t n = sizeof a;
    pthread_t t;

    make_certificate();
    listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert(!bind(listener, (struct sockaddr *)&a, n) && !listen(listener, 8));
    getsockname(listener, (struct sockaddr *)&a, &n);
    snprintf(secure_url, sizeof secure_url, "https://localhost:%u", ntohs(a.sin_port));
    cr_assert_eq(pthread_create(&t, NULL, serve, &listener), 0);
    pthread_detach(t);
    setenv("SSL_CERT_FILE", certificate, 1);
    options.token = "hf_secret";
    options.token_origin = secure_url;
    options.backoff_s = 0.01;
}

static int get(const char *name)
{
    char url[200], *text;
    size_t n;
    int rc;

    snprintf(url, sizeof url, "%s%s", secure_url, name);
    rc = fetch_text(f, url, 1000, &text, &n, NULL, &err);
    if (!rc) free(text);
    return rc;
}

Test(fetch_tls, certificate_of_the_environment)
{
    start();
    rig_open();
    cr_expect_eq(get("/f"), PR_OK, "%s", err.msg);
    cr_expect_eq(tokens, 1);
}

Test(fetch_tls, certificate_of_nobody)
{
    start();
    unsetenv("SSL_CERT_FILE");
    rig_open();
    cr_expect_eq(get("/f"), PR_ENETWORK);
    cr_expect(strstr(err.msg, "certificate"), "%s", err.msg);
    cr_expect_eq(handshakes, 1, "tried again");
    cr_expect_eq(tokens, 0);
}

Test(fetch_tls, certificate_of_another_host)
{
    start();
    memcpy(secure_url, "https://127.0.0.1", 17); /* "localhost" is as long as the address */
    rig_open();
    cr_expect_eq(get("/f"), PR_ENETWORK);
    cr_expect_eq(tokens, 0);
}

Test(fetch_tls, not_from_https_to_http)
{
    start();
    strcpy(location, "http://192.0.2.1/f");
    rig_open();
    cr_expect_eq(get("/go"), PR_ENETWORK);
    cr_expect(strstr(err.msg, "redirect") && strstr(err.msg, "plain http"), "%s", err.msg);
}

/* Loopback may be plain; but it is not the origin that the token is for, whatever its name. */
Test(fetch_tls, no_token_over_http)
{
    start();
    snprintf(location, sizeof location, "http://localhost:%u/f", site.port);
    rig_open();
    site.n = 100;
    cr_expect_eq(get("/go"), PR_OK, "%s", err.msg);
    cr_expect_eq(tokens, 1);
    cr_expect_eq(site.requests, 1);
    cr_expect_eq(site.tokens, 0);
}
