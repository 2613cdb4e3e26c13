/* prima eval: tokens, chat prompts, logits and perplexity, line by line, so that anyone can hold prima
 * against another implementation. A bad line is answered by {"error"} in its place. */
#include "src/base/file.h"
#include "src/base/json.h"
#include "src/cmd.h"
#include "src/options.h"
#include "src/run/engine.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CHUNK = 64, TOP = 10, MAX_INPUT_BYTES = 1 << 30 };

typedef struct {
    const char *output, *isa, *kv_type, *chat_template;
    size_t threads, ctx, greedy, windows;
} eval_options;

/* One sequence on one engine. */
typedef struct {
    const eval_options *o;
    model m;
    engine *e;
    int32_t *pages; /* the sequence owns all pages, in order */
    size_t n_ctx;
    FILE *out;
} session;

/* --- the engine --------------------------------------------------------------------------------------- */
static int start_engine(session *s, size_t n_ctx, pr_err *err)
{
    size_t n_pages = (n_ctx + KV_PAGE - 1) / KV_PAGE;
    engine_options eo = {.isa = s->o->isa,
                         .n_threads = (int)s->o->threads,
                         .n_pages = n_pages,
                         .max_tokens = CHUNK,
                         .max_out = CHUNK,
                         .n_windows = (uint32_t)s->o->windows};

    if (!kv_type_parse(s->o->kv_type, &eo.kv))
        return pr_fail(err, PR_EUSAGE, "--kv-type %s: expected f16, q8_0 or f32", s->o->kv_type);
    s->n_ctx = n_ctx;
    s->pages = malloc((n_pages + 1) * sizeof *s->pages);
    if (!s->pages) return pr_fail(err, PR_ERESOURCE, "out of memory");
    for (size_t i = 0; i < n_pages; i++) s->pages[i] = (int32_t)i;
    return engine_new(&s->e, &s->m, &eo, err);
}

/* Called with the logits of each position in order. */
typedef void (*on_logits)(void *arg, size_t pos, const float *logits);

/* Compute tokens id[0, n) at positions pos.. of the session's sequence; logits of all of them. */
static void evaluate(session *s, const int32_t *id, size_t n, size_t pos, on_logits fn, void *arg)
{
    int32_t out[CHUNK];

    for (size_t i = 0; i < CHUNK; i++) out[i] = (int32_t)i;
    for (size_t done = 0; done < n; done += CHUNK) {
        size_t now = n - done < CHUNK ? n - done : CHUNK;
        batch_run run = {.first = 0, .n = now, .pos = pos + done, .pages = s->pages};
        batch b = {.n_tokens = now, .token = id + done, .n_runs = 1, .run = &run, .n_out = now, .out = out};
        engine_forward(s->e, &b, NULL); /* resident weights: cannot fail */
        for (size_t i = 0; i < now; i++) fn(arg, pos + done + i, engine_logits(s->e, i));
    }
}

/* --- JSON in, JSON out -----------------------------------------------------------------------------------
 */
static json_t *error_json(const char *message)
{
    return json_pack("{s:s}", "error", message);
}

/* The ids of a line as an array of token ids of this vocabulary; NULL and *error otherwise. Caller frees. */
static int32_t *read_ids(const session *s, const json_t *line, size_t *n, json_t **error)
{
    const json_t *a = json_object_get(line, "ids");
    int32_t *id;

    if (!json_is_array(a)) {
        *error = error_json("\"ids\" must be an array of token ids");
        return NULL;
    }
    *n = json_array_size(a);
    id = malloc((*n + 1) * sizeof *id);
    for (size_t i = 0; id && i < *n; i++) {
        const json_t *v = json_array_get(a, i);
        if (!json_is_integer(v) || json_integer_value(v) < 0 ||
            json_integer_value(v) >= (json_int_t)vocab_size(s->m.vocab)) {
            *error = error_json("\"ids\" holds something that is not a token of this vocabulary");
            free(id);
            return NULL;
        }
        id[i] = (int32_t)json_integer_value(v);
    }
    if (!id) *error = error_json("out of memory");
    return id;
}

static json_t *hex_json(const char *bytes, size_t n)
{
    char *hex = malloc(2 * n + 1);
    json_t *v;

    if (!hex) return NULL;
    for (size_t i = 0; i < n; i++) snprintf(hex + 2 * i, 3, "%02x", (unsigned char)bytes[i]);
    hex[2 * n] = 0;
    v = json_string(hex);
    free(hex);
    return v;
}

static char *unhex(const char *hex, size_t *n)
{
    size_t len = strlen(hex);
    char *out = len % 2 ? NULL : malloc(len / 2 + 1);

    *n = len / 2;
    for (size_t i = 0; out && i < *n; i++) {
        unsigned v;
        char pair[3] = {hex[2 * i], hex[2 * i + 1], 0};
        if (strspn(pair, "0123456789abcdefABCDEF") != 2 || sscanf(pair, "%2x", &v) != 1) {
            free(out);
            return NULL;
        }
        out[i] = (char)v;
    }
    return out;
}

/* --- tokens ------------------------------------------------------------------------------------------------
 */
static json_t *pieces_line(const session *s, const json_t *line)
{
    bool special = json_is_true(json_object_get(line, "special"));
    char *text = NULL;
    size_t n, len = 0, cap = 0;
    json_t *error = NULL, *out;
    int32_t *id = read_ids(s, line, &n, &error);

    if (!id) return error;
    for (size_t i = 0; i < n; i++) {
        size_t more = vocab_piece(s->m.vocab, id[i], special, NULL, 0);
        if (len + more > cap) {
            char *grown = realloc(text, cap = 2 * (len + more));
            if (!grown) break;
            text = grown;
        }
        len += vocab_piece(s->m.vocab, id[i], special, text + len, cap - len);
    }
    out = json_pack("{s:o}", "text_hex", hex_json(text ? text : "", len));
    free(text);
    free(id);
    return out;
}

static json_t *encode_text(const session *s, const json_t *line, const char *text, size_t n)
{
    token_list ids = {0};
    pr_err err = {0};
    json_t *a;

    if (vocab_encode(s->m.vocab, text, n, json_is_true(json_object_get(line, "add_special")),
                     json_is_true(json_object_get(line, "parse_special")), &ids, &err)) {
        free(ids.id);
        return error_json(err.msg);
    }
    a = json_array();
    for (size_t i = 0; i < ids.n; i++) json_array_append_new(a, json_integer(ids.id[i]));
    free(ids.id);
    return json_pack("{s:o}", "ids", a);
}

static json_t *tokens_line(session *s, const json_t *line)
{
    const json_t *text = json_object_get(line, "text");
    const char *hex = json_string_value(json_object_get(line, "text_hex"));
    json_t *out;
    char *raw;
    size_t n;

    if (json_is_string(text)) return encode_text(s, line, json_string_value(text), json_string_length(text));
    if (!hex && json_object_get(line, "ids")) return pieces_line(s, line);
    if (!hex || !(raw = unhex(hex, &n)))
        return error_json("expected \"text\", \"text_hex\" (pairs of hex digits) or \"ids\"");
    out = encode_text(s, line, raw, n);
    free(raw);
    return out;
}

/* --- chat
 * --------------------------------------------------------------------------------------------------- */
static json_t *apply_chat(const session *s, const json_t *line, chat_message *msg, size_t n_msg)
{
    const json_t *messages = json_object_get(line, "messages"),
                 *generate = json_object_get(line, "add_generation_prompt");
    pr_err err = {0};
    char *text;
    size_t n;
    json_t *out;

    for (size_t i = 0; i < n_msg; i++) {
        const json_t *m = json_array_get(messages, i), *content = json_object_get(m, "content");
        msg[i].role = json_string_value(json_object_get(m, "role"));
        msg[i].content = json_string_value(content);
        msg[i].content_len = json_string_length(content);
        if (!msg[i].role || !msg[i].content)
            return error_json("a message needs \"role\" and \"content\", both strings");
    }
    if (chat_apply(s->m.chat, msg, n_msg, !generate || json_is_true(generate), &text, &n, &err))
        return error_json(err.msg);
    out = json_pack("{s:s%}", "prompt", text, n);
    free(text);
    return out;
}

static json_t *chat_line(session *s, const json_t *line)
{
    size_t n_msg = json_array_size(json_object_get(line, "messages"));
    chat_message *msg = calloc(n_msg + 1, sizeof *msg);
    json_t *out;

    if (!n_msg || !msg) out = error_json("expected \"messages\", an array that is not empty");
    else out = apply_chat(s, line, msg, n_msg);
    free(msg);
    return out;
}

/* --- logits
 * -------------------------------------------------------------------------------------------------- */
typedef struct {
    size_t n_vocab, last;
    json_t *top10, *last_logits;
    int32_t best;
    bool broken; /* a logit is no finite number, which JSON has no word for */
} logits_sink;

/* The largest TOP logits in order, ties to the lower id. */
static json_t *top_logits(const float *logits, size_t n_vocab, int32_t *best)
{
    int32_t top[TOP] = {0};
    size_t n = 0;
    json_t *a = json_array();

    for (size_t id = 0; id < n_vocab; id++) {
        size_t at = n;
        if (n == TOP && !(logits[id] > logits[top[TOP - 1]])) continue;
        if (n < TOP) n++;
        else at = TOP - 1;
        for (; at > 0 && logits[id] > logits[top[at - 1]]; at--) top[at] = top[at - 1];
        top[at] = (int32_t)id;
    }
    for (size_t i = 0; i < n; i++)
        json_array_append_new(a, json_pack("[i,f]", top[i], (double)logits[top[i]]));
    *best = top[0];
    return a;
}

static void sink_logits(void *arg, size_t pos, const float *logits)
{
    logits_sink *k = arg;

    for (size_t i = 0; i < k->n_vocab; i++) k->broken |= !isfinite(logits[i]);
    json_array_append_new(k->top10, top_logits(logits, k->n_vocab, &k->best));
    if (pos != k->last) return;
    k->last_logits = json_array();
    for (size_t i = 0; i < k->n_vocab; i++)
        json_array_append_new(k->last_logits, json_real((double)logits[i]));
}

static void sink_best(void *arg, size_t pos, const float *logits)
{
    logits_sink *k = arg;
    (void)pos;
    json_decref(top_logits(logits, k->n_vocab, &k->best));
}

static json_t *greedy_tokens(session *s, logits_sink *k, size_t pos)
{
    json_t *a = json_array();

    for (size_t i = 0; i < s->o->greedy; i++) {
        int32_t id = k->best;
        json_array_append_new(a, json_integer(id));
        if (i + 1 < s->o->greedy) evaluate(s, &id, 1, pos + i, sink_best, k);
    }
    return a;
}

static json_t *logits_line(session *s, const json_t *line)
{
    json_t *error = NULL, *out;
    size_t n;
    int32_t *id = read_ids(s, line, &n, &error);
    logits_sink k = {.n_vocab = vocab_size(s->m.vocab), .last = n - 1};

    if (!id) return error;
    if (!n || n + s->o->greedy > s->n_ctx) {
        free(id);
        return error_json(n ? "more tokens than --ctx" : "\"ids\" is empty");
    }
    k.top10 = json_array();
    evaluate(s, id, n, 0, sink_logits, &k);
    out = json_pack("{s:o, s:o}", "top10", k.top10, "last_logits", k.last_logits);
    if (s->o->greedy) json_object_set_new(out, "greedy", greedy_tokens(s, &k, n));
    free(id);
    if (!k.broken) return out;
    json_decref(out);
    return error_json("the model computes logits that are no finite numbers: damaged weights, or values too "
                      "large for the KV cache (--kv-type f32)");
}

/* --- line by line
 * ---------------------------------------------------------------------------------------------- */
static int write_json(session *s, json_t *v, pr_err *err)
{
    char *text = v ? json_line(v) : NULL;
    int rc = PR_OK;

    if (!text) rc = pr_fail(err, PR_ERESOURCE, "out of memory");
    else if (fprintf(s->out, "%s\n", text) < 0 || fflush(s->out))
        rc = pr_fail_errno(err, PR_ERESOURCE, "cannot write the answers");
    free(text);
    json_decref(v);
    return rc;
}

static int each_line(session *s, const char *path, json_t *(*fn)(session *, const json_t *), pr_err *err)
{
    char *text, *at;
    size_t n;
    int rc = file_slurp(&text, &n, path, MAX_INPUT_BYTES, err);

    if (rc) return rc;
    for (at = text; !rc && at < text + n;) {
        char *end = memchr(at, '\n', (size_t)(text + n - at));
        size_t len = (size_t)((end ? end : text + n) - at);
        pr_err e = {0};
        json_t *line;
        if (len) {
            line = json_parse(at, len, &e);
            rc = write_json(s,
                            !line                  ? error_json(e.msg)
                            : json_is_object(line) ? fn(s, line)
                                                   : error_json("expected an object"),
                            err);
            json_decref(line);
        }
        at += len + 1;
    }
    free(text);
    return rc;
}

/* --- perplexity
 * -------------------------------------------------------------------------------------------------- */
typedef struct {
    const int32_t *id; /* the chunk */
    size_t n_vocab, first, n_ctx;
    double nll;
    size_t count;
} nll_sink;

static void sink_nll(void *arg, size_t pos, const float *logits)
{
    nll_sink *k = arg;
    double max = -INFINITY, sum = 0;

    if (pos < k->first || pos + 1 >= k->n_ctx) return;
    for (size_t i = 0; i < k->n_vocab; i++) max = logits[i] > max ? (double)logits[i] : max;
    for (size_t i = 0; i < k->n_vocab; i++) sum += exp((double)logits[i] - max);
    k->nll -= (double)logits[k->id[pos + 1]] - max - log(sum);
    k->count++;
}

/* The rule of the test data's README: chunks of ctx tokens, each begun by BOS and evaluated alone; scored
 * from its middle on. */
static int perplexity(session *s, token_list *tokens, pr_err *err)
{
    size_t n_ctx = s->n_ctx, n_chunks = tokens->n / n_ctx;
    nll_sink k = {.n_vocab = vocab_size(s->m.vocab), .first = n_ctx / 2, .n_ctx = n_ctx};
    json_t *running = json_array();

    if (!n_chunks) {
        json_decref(running);
        return pr_fail(err, PR_EUSAGE, "the text has %zu tokens: at least --ctx %zu are needed", tokens->n,
                       n_ctx);
    }
    for (size_t c = 0; c < n_chunks; c++) {
        int32_t *chunk = tokens->id + c * n_ctx;
        if (vocab_add_bos(s->m.vocab)) chunk[0] = vocab_bos(s->m.vocab);
        k.id = chunk;
        evaluate(s, chunk, n_ctx, 0, sink_nll, &k);
        json_array_append_new(running, json_real(exp(k.nll / (double)k.count)));
    }
    if (!isfinite(exp(k.nll / (double)k.count))) {
        json_decref(running);
        return pr_fail(err, PR_EINTEGRITY,
                       "the perplexity is no finite number: damaged weights, or values too large for the KV "
                       "cache (--kv-type f32)");
    }
    return write_json(s,
                      json_pack("{s:f, s:I, s:I, s:o}", "perplexity", exp(k.nll / (double)k.count), "chunks",
                                (json_int_t)n_chunks, "ctx", (json_int_t)n_ctx, "running", running),
                      err);
}

static int eval_perplexity(session *s, const char *path, pr_err *err)
{
    token_list tokens = {0};
    char *text;
    size_t n;
    int rc = file_slurp(&text, &n, path, MAX_INPUT_BYTES, err);

    if (rc) return rc;
    if (!(rc = vocab_encode(s->m.vocab, text, n, true, false, &tokens, err)) &&
        !(rc = start_engine(s, s->o->ctx ? s->o->ctx : 512, err)))
        rc = perplexity(s, &tokens, err);
    free(tokens.id);
    free(text);
    return rc;
}

/* --- the command
 * ----------------------------------------------------------------------------------------------------- */
static int eval_logits(session *s, const char *path, pr_err *err)
{
    size_t n_ctx = s->o->ctx ? s->o->ctx : s->m.hp.n_ctx_train < 4096 ? s->m.hp.n_ctx_train : 4096;
    int rc = start_engine(s, n_ctx, err);

    return rc ? rc : each_line(s, path, logits_line, err);
}

static int eval(session *s, const char *what, const char *path, pr_err *err)
{
    if (strcmp(what, "tokens") == 0) return each_line(s, path, tokens_line, err);
    if (strcmp(what, "chat") == 0) return each_line(s, path, chat_line, err);
    if (strcmp(what, "logits") == 0) return eval_logits(s, path, err);
    if (strcmp(what, "perplexity") == 0) return eval_perplexity(s, path, err);
    return pr_fail(err, PR_EUSAGE, "eval %s: expected tokens, chat, logits or perplexity", what);
}

/* Tokens and chat prompts need no layers: a vocabulary-only file will do. */
static int open_for(session *s, const char *what, const char *path, pr_err *err)
{
    bool vocab_only = strcmp(what, "tokens") == 0 || strcmp(what, "chat") == 0;

    return vocab_only ? model_open_vocab(&s->m, path, err) : model_open(&s->m, path, err);
}

int cmd_eval(int argc, char **argv, pr_err *err)
{
    eval_options o = {.kv_type = "f16", .windows = 1};
    const opt table[] = {
        {"output", 'o', OPT_STRING, &o.output, "FILE", 0, 0, "answers (standard output)"},
        {"threads", 't', OPT_COUNT, &o.threads, "N", 0, POOL_MAX_THREADS, "threads (one a core)"},
        {"isa", 0, OPT_STRING, &o.isa, "NAME", 0, 0,
         "ref (activations stay F32), avx2, avx512 or neon (the best of this CPU)"},
        {"kv-type", 0, OPT_STRING, &o.kv_type, "TYPE", 0, 0, "f16, q8_0 or f32 KV cache (f16)"},
        {"ctx", 0, OPT_COUNT, &o.ctx, "N", 0, 1 << 24,
         "context: logits the model's, at most 4096; perplexity 512"},
        {"greedy", 0, OPT_COUNT, &o.greedy, "N", 0, 1 << 20,
         "logits: N further tokens by arg max, end of sequence ignored"},
        {"windows", 0, OPT_COUNT, &o.windows, "N", 1, 1000,
         "run the layers as N windows (1); the bits are the same"},
        {"chat-template", 0, OPT_STRING, &o.chat_template, "NAME", 0, 0, "chat: instead of the model's"},
        {0}};
    const opt_spec spec = {
        "tokens|chat|logits|perplexity MODEL.gguf INPUT [options]",
        "INPUT is JSONL (perplexity: a text), - is standard input; each line is answered by one line.\n"
        "  tokens  {\"text\" | \"text_hex\", \"add_special\", \"parse_special\"} -> {\"ids\"}; {\"ids\", "
        "\"special\"} -> {\"text_hex\"}\n"
        "  chat    {\"messages\", \"add_generation_prompt\"} -> {\"prompt\"}\n"
        "  logits  {\"ids\"} -> {\"top10\", \"last_logits\", \"greedy\"}\n"
        "  perplexity -> {\"perplexity\", \"chunks\", \"running\"}",
        table, 3, 3};
    session s = {.o = &o, .out = stdout};
    int first, rc = options_parse(&spec, argc, argv, &first, err);

    if (rc) return rc == OPTIONS_HELP ? PR_OK : rc;
    if (o.output && strcmp(o.output, "-") && !(s.out = fopen(o.output, "w")))
        return pr_fail_errno(err, PR_ERESOURCE, "cannot write %s", o.output);
    rc = open_for(&s, argv[first], argv[first + 1], err);
    if (!rc && o.chat_template && (s.m.chat = chat_by_name(o.chat_template)) == CHAT_UNKNOWN)
        rc = pr_fail(err, PR_EUSAGE, "--chat-template %s: unknown", o.chat_template);
    if (!rc) rc = eval(&s, argv[first], argv[first + 2], err);
    if (s.out != stdout && fclose(s.out) && !rc)
        rc = pr_fail_errno(err, PR_ERESOURCE, "cannot write %s", o.output);
    engine_free(s.e);
    free(s.pages);
    model_close(&s.m);
    return rc;
}
