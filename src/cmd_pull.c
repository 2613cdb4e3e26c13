/* prima pull: get a model once, whole, and know that it is the right one. */
#include "src/base/log.h"
#include "src/cmd.h"
#include "src/options.h"
#include "src/pull/pull.h"
#include "src/pull/shard.h"
#include "src/pull/source.h"
#include "src/pull/verify.h"
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { MAX_JOBS = 32, SHA256_DIGITS = 64 };

typedef struct {
    const char *what, *dir, *sha256_text, *plan, *device;
    char sha256[SHA256_DIGITS + 1]; /* "" none */
    size_t jobs;
    bool offline, list, insecure_http, verify, header;
} cmd_options;

static volatile sig_atomic_t stop;

/* The second signal ends at once; what is on disk is what the next call goes on from. */
static void on_signal(int sig)
{
    if (stop) _exit(128 + sig);
    stop = sig;
}

/* --- options ------------------------------------------------------------------------------------------- */
static int check(cmd_options *o, pr_err *err)
{
    const char *hex = o->sha256_text;
    size_t n = hex ? strspn(hex, "0123456789abcdefABCDEF") : 0;

    if (hex && (n != SHA256_DIGITS || hex[n]))
        return pr_fail(err, PR_EUSAGE, "--sha256 %.80s: expected 64 hexadecimal digits", hex);
    for (size_t i = 0; i < n; i++)
        o->sha256[i] = (char)(hex[i] >= 'A' && hex[i] <= 'F' ? hex[i] + 'a' - 'A' : hex[i]);
    if (o->verify && (o->list || o->plan || o->device || o->header))
        return pr_fail(err, PR_EUSAGE, "--verify goes with a file and --sha256 only");
    if (!o->plan != !o->device) return pr_fail(err, PR_EUSAGE, "--plan and --device go together");
    if (o->plan && o->header) return pr_fail(err, PR_EUSAGE, "--header is for planning: not with --plan");
    if ((o->plan || o->header) && (o->list || hex || o->offline))
        return pr_fail(err, PR_EUSAGE,
                       "--list, --sha256 and --offline are for whole models: not with --plan or --header");
    return PR_OK;
}

static int parse(cmd_options *o, int argc, char **argv, pr_err *err)
{
    const opt table[] = {
        {"output", 'o', OPT_STRING, &o->dir, "DIR", 0, 0, "folder for the model (.)"},
        {"sha256", 0, OPT_STRING, &o->sha256_text, "HEX", 0, 0,
         "what the file must have, where the source does not say"},
        {"jobs", 0, OPT_COUNT, &o->jobs, "N", 1, MAX_JOBS, "connections at once (4)"},
        {"list", 0, OPT_FLAG, &o->list, NULL, 0, 0, "show the models of a repository and fetch nothing"},
        {"verify", 0, OPT_FLAG, &o->verify, NULL, 0, 0,
         "check a model that is here: its structure, and SHA-256 against FILE.sha256"},
        {"plan", 0, OPT_STRING, &o->plan, "PLAN.yaml", 0, 0,
         "with --device: only the tensors that a device of this plan needs"},
        {"device", 0, OPT_STRING, &o->device, "NAME", 0, 0, "that device"},
        {"header", 0, OPT_FLAG, &o->header, NULL, 0, 0,
         "only the header, in a file that prima plan -m and inspect read and nothing computes with"},
        {"offline", 0, OPT_FLAG, &o->offline, NULL, 0, 0,
         "only what is complete in DIR: verify it (as HF_HUB_OFFLINE=1)"},
        {"insecure-http", 0, OPT_FLAG, &o->insecure_http, NULL, 0, 0, "http:// also to other machines"},
        {0}};
    const opt_spec spec = {
        "SOURCE [options]   |   prima pull --list SOURCE   |   prima pull --verify FILE",
        "Fetches a model, checks it, and prints the path of its first file. SOURCE is one of\n"
        "  owner/repo               the Q4_K_M model of a repository of the hub\n"
        "  owner/repo:QUANT         another quantisation\n"
        "  owner/repo/file.gguf     a file of it, also in folders; owner/repo@REVISION... is a branch, tag "
        "or commit\n"
        "  hf://owner/repo@REVISION/file.gguf\n"
        "  https://... file://...   an address (http:// to this machine); a path\n"
        "A split model is all of its parts, whichever is named. Nothing has its final name before it is "
        "known to be\n"
        "right; the same command goes on where one was interrupted. DIR/FILE.sha256 is for sha256sum -c.\n"
        "The hub is HF_ENDPOINT (" HUB_DEFAULT
        "); the token HF_TOKEN, else the file HF_TOKEN_PATH or HF_HOME/token.\n"
        "--verify without FILE.sha256 checks the structure and prints the SHA-256: exit status 0.\n"
        "Exit status: 0 complete, 2 usage or no such model, 5 another file has the name, 7 gated or refused, "
        "8 wrong bytes,\n"
        "9 disk, or another prima pull is at it, 10 network or server, 130 or 143 interrupted.",
        table, 1, 1};
    int first, rc = options_parse(&spec, argc, argv, &first, err);

    if (rc) return rc;
    o->what = argv[first];
    return check(o, err);
}

/* --- what there is to do ------------------------------------------------------------------------------- */
static int verify(const cmd_options *o, meter *m, pr_err *err)
{
    const verify_options vo = {
        .sha256 = *o->sha256 ? o->sha256 : NULL, .print = true, .meter = m, .stop = &stop};

    return shard_is(o->what) && !*o->sha256 ? shard_verify(o->what, err) : verify_model(o->what, &vo, err);
}

static int get_whole(const source *s, fetch *f, const cmd_options *o, meter *m, pr_err *err)
{
    const pull_options po = {
        .dir = o->dir, .sha256 = *o->sha256 ? o->sha256 : NULL, .stop = &stop, .meter = m};

    return s->offline ? pull_offline(s, &po, err) : pull_model(s, f, &po, err);
}

static int get_shard(const source *s, fetch *f, const cmd_options *o, meter *m, pr_err *err)
{
    pull_selection only;
    pull_options po = {.dir = o->dir, .stop = &stop, .meter = m, .only = &only};
    plan *p = NULL;
    shard *sh = NULL;
    int rc = o->header ? PR_OK : plan_read(&p, o->plan, err);

    if (!rc && s->offline) rc = pr_fail(err, PR_ENETWORK, "offline: nothing is fetched");
    if (!rc) rc = p ? shard_new(&sh, p, o->device, err) : shard_header_new(&sh, err);
    if (!rc) {
        only = shard_selection(sh);
        rc = pull_model(s, f, &po, err);
    }
    shard_free(sh);
    plan_free(p);
    return rc;
}

static void print_path(const source *s, const char *dir)
{
    bool slash = *dir && dir[strlen(dir) - 1] == '/';

    if (!strcmp(dir, ".")) printf("%s\n", s->file[0].name);
    else printf("%s%s%s\n", dir, slash ? "" : "/", s->file[0].name);
}

static int get(const cmd_options *o, const hub *h, fetch *f, meter *m, pr_err *err)
{
    source *s = NULL;
    int rc = source_resolve(&s, o->what, h, f, o->dir, err);

    if (rc) return rc;
    rc = o->plan || o->header ? get_shard(s, f, o, m, err) : get_whole(s, f, o, m, err);
    if (rc == PR_EAUTH && s->repo) rc = hub_refused(h, s->repo, err);
    if (!rc) print_path(s, o->dir);
    source_free(s);
    return rc;
}

static int run(const cmd_options *o, pr_err *err)
{
    meter m = {.is_terminal = isatty(STDERR_FILENO)};
    fetch_options fo = {.jobs = (unsigned)o->jobs, .insecure_http = o->insecure_http, .stop = &stop};
    hub h;
    fetch *f = NULL;
    int rc;

    if (o->verify) return verify(o, &m, err);
    if ((rc = hub_from_env(&h, err))) return rc;
    h.offline = h.offline || o->offline;
    fo.token = h.token;
    fo.token_origin = h.origin;
    fo.progress = meter_fetched;
    fo.progress_arg = &m;
    rc = fetch_new(&f, &fo, err);
    if (!rc && o->list && h.offline)
        rc = pr_fail(err, PR_ENETWORK, "offline: the hub is not asked what it has");
    if (!rc) rc = o->list ? source_print_list(o->what, &h, f, err) : get(o, &h, f, &m, err);
    fetch_free(f);
    hub_clear(&h);
    return rc;
}

int cmd_pull(int argc, char **argv, pr_err *err)
{
    const struct sigaction a = {.sa_handler = on_signal};
    cmd_options o = {.dir = ".", .jobs = 4};
    int rc = parse(&o, argc, argv, err);

    if (rc) return rc == OPTIONS_HELP ? PR_OK : rc;
    sigaction(SIGINT, &a, NULL);
    sigaction(SIGTERM, &a, NULL);
    rc = run(&o, err);
    if (rc != PR_EINTERRUPTED) return rc;
    log_progress("%s", "");
    pr_fail(err, PR_EINTERRUPTED, "interrupted; the same command goes on where this one stopped");
    return -(128 + (stop ? (int)stop : SIGINT));
}
