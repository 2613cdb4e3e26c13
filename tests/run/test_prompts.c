/* The prompts file: shapes, fields and their ranges, ids, line ends, context, errors. The vocabulary is one
 * that can be counted by hand (tests/common/tiny_vocab.h): BOS, a blank, then one token a byte. */
#include "src/run/prompts.h"
#include "tests/common/prima.h"
#include "tests/common/tiny_vocab.h"
#include <criterion/criterion.h>
#include <fcntl.h>
#include <sys/wait.h>

static tiny_vocab tiny;
static prompts_options options;

static void setup(void)
{
    test_dir_new();
    tiny = tiny_vocab_new(true, false);
    options = (prompts_options){.vocab = tiny.v, .chat = CHAT_CHATML, .n_ctx = 1000, .seed = 7};
}

static void teardown(void)
{
    tiny_vocab_free(&tiny);
    test_dir_remove();
}

TestSuite(prompts, .init = setup, .fini = teardown, .timeout = 60);

static void write_bytes(const char *path, const char *data, size_t n)
{
    FILE *f = fopen(path, "wb");
    cr_assert_not_null(f);
    cr_assert_eq(fwrite(data, 1, n, f), n);
    fclose(f);
}

/* A file of this text, opened; fails the test when it is refused. */
static prompts *open_text(const char *text)
{
    prompts *p = NULL;
    pr_err err = {0};
    write_file(in_dir("in.jsonl"), text);
    cr_assert_eq(prompts_open(&p, in_dir("in.jsonl"), &options, &err), PR_OK, "%s", err.msg);
    return p;
}

static request get(prompts *p, size_t index)
{
    request r;
    pr_err err = {0};
    cr_assert_lt(index, prompts_count(p));
    cr_assert_eq(prompts_get(p, index, &r, &err), PR_OK, "%s", err.msg);
    return r;
}

/* The request of a file of one line. */
static request one(const char *line)
{
    prompts *p = open_text(line);
    cr_assert_eq(prompts_count(p), 1, "%s", line);
    request r = get(p, 0);
    prompts_close(p);
    return r;
}

/* Expect opening this file to fail; *err says how. */
static int refused(const char *text, pr_err *err)
{
    prompts *p = NULL;
    write_file(in_dir("bad.jsonl"), text);
    return prompts_open(&p, in_dir("bad.jsonl"), &options, err);
}

static void expect_tokens(const request *r, const int32_t *ids, size_t n)
{
    cr_assert_eq(r->tokens.n, n, "%zu tokens, expected %zu", r->tokens.n, n);
    for (size_t i = 0; i < n; i++)
        cr_expect_eq(r->tokens.id[i], ids[i], "token %zu is %d", i, r->tokens.id[i]);
}

/* Tokens of a list of ids and texts: b(...) is appended byte by byte. */
static size_t add_bytes(int32_t *ids, size_t n, const char *text)
{
    for (; *text; text++) ids[n++] = TINY_BYTE + (unsigned char)*text;
    return n;
}

/* --- shapes ------------------------------------------------------------------------------------ */

Test(prompts, plain_line_with_every_field)
{
    request r = one(
        "{\"id\":\"a2\",\"prompt\":\"ab\",\"max_tokens\":64,\"temperature\":0.5,\"top_p\":0.25,\"top_k\":40,"
        "\"min_p\":0.125,\"repeat_penalty\":1.5,\"repeat_last_n\":32,\"presence_penalty\":-2,"
        "\"frequency_penalty\":2,\"seed\":7,\"stop\":[\"\\n\\n\",\"x\\u0000y\"],\"logprobs\":true,"
        "\"top_logprobs\":20,\"ignore_eos\":true,\"metadata\":{\"src\":\"x\"}}");
    const int32_t ids[] = {TINY_BOS, TINY_BLANK, TINY_BYTE + 'a', TINY_BYTE + 'b'};

    cr_assert_eq(r.error.code, REQ_OK, "%s", r.error.message);
    cr_expect_str_eq(r.id, "a2");
    cr_expect(!r.openai && !r.chat);
    cr_expect_eq(r.line, 1);
    expect_tokens(&r, ids, 4);
    cr_expect_eq(r.max_tokens, 64);
    cr_expect_eq(r.sampling.temperature, 0.5f);
    cr_expect_eq(r.sampling.top_p, 0.25f);
    cr_expect_eq(r.sampling.top_k, 40);
    cr_expect_eq(r.sampling.min_p, 0.125f);
    cr_expect_eq(r.sampling.repeat_penalty, 1.5f);
    cr_expect_eq(r.sampling.repeat_last_n, 32);
    cr_expect_eq(r.sampling.presence_penalty, -2);
    cr_expect_eq(r.sampling.frequency_penalty, 2);
    cr_expect_eq(r.sampling.seed, 7);
    cr_assert_eq(r.n_stop, 2);
    cr_expect_str_eq(r.stop[0].text, "\n\n");
    cr_expect_eq(r.stop[1].n, 3);
    cr_expect_arr_eq(r.stop[1].text, "x\0y", 4);
    cr_expect(r.logprobs && r.ignore_eos);
    cr_expect_eq(r.top_logprobs, 20);
    cr_expect_str_eq(json_string_value(json_object_get(r.metadata, "src")), "x");
    request_clear(&r);
}

Test(prompts, defaults)
{
    request r = one("{\"prompt\":\"ab\"}");
    cr_expect_str_eq(r.id, "line-1");
    cr_expect_eq(r.max_tokens, 256);
    cr_expect_eq(r.sampling.temperature, 0);
    cr_expect_eq(r.sampling.top_p, 1);
    cr_expect_eq(r.sampling.top_k, 0);
    cr_expect_eq(r.sampling.min_p, 0);
    cr_expect_eq(r.sampling.repeat_penalty, 1);
    cr_expect_eq(r.sampling.repeat_last_n, 64);
    cr_expect(!r.logprobs && !r.ignore_eos && r.n_stop == 0 && !r.metadata);
    /* sha256sum of the line */
    cr_expect_str_eq(r.input_sha256, "06b15c0962e7d14eccae93f89c4c92fe2a63cf68c3d1963907d7d59b43e9f63e");
    request_clear(&r);
}

Test(prompts, openai_chat_line)
{
    request r = one("{\"custom_id\":\"a1\",\"method\":\"POST\",\"url\":\"/v1/chat/"
                    "completions\",\"body\":{\"model\":\"gpt\","
                    "\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"}],\"max_completion_tokens\":64}}");
    int32_t ids[200];
    size_t n = 0;

    cr_assert_eq(r.error.code, REQ_OK, "%s", r.error.message);
    cr_expect_str_eq(r.id, "a1");
    cr_expect(r.openai && r.chat);
    cr_expect_eq(r.max_tokens, 64);
    /* ChatML by hand. <|im_end|> is a token of this vocabulary, <|im_start|> is not; SPM puts a blank in
     * front of the text and behind a control token. */
    ids[n++] = TINY_BOS;
    ids[n++] = TINY_BLANK;
    n = add_bytes(ids, n, "<|im_start|>user\nHi");
    ids[n++] = TINY_END;
    ids[n++] = TINY_BLANK;
    n = add_bytes(ids, n, "\n<|im_start|>assistant\n");
    expect_tokens(&r, ids, n);
    request_clear(&r);
}

Test(prompts, openai_completions_line)
{
    request r =
        one("{\"url\":\"/v1/completions\",\"body\":{\"prompt\":\"ab\",\"logprobs\":3},\"method\":\"POST\"}");
    cr_assert_eq(r.error.code, REQ_OK, "%s", r.error.message);
    cr_expect(r.openai && !r.chat && r.logprobs);
    cr_expect_eq(r.top_logprobs, 3);
    cr_expect_str_eq(r.id, "line-1");
    cr_expect_eq(r.tokens.n, 4);
    request_clear(&r);
}

Test(prompts, text_parts_are_joined)
{
    request a = one("{\"messages\":[{\"role\":\"system\",\"content\":\"one "
                    "two\"},{\"role\":\"user\",\"content\":\"\"}]}");
    request b =
        one("{\"messages\":[{\"role\":\"system\",\"content\":[{\"type\":\"text\",\"text\":\"one\"},"
            "{\"type\":\"text\",\"text\":\" two\"}]},{\"content\":[],\"role\":\"user\",\"refusal\":null}]}");
    cr_assert_eq(b.error.code, REQ_OK, "%s", b.error.message);
    expect_tokens(&b, a.tokens.id, a.tokens.n);
    request_clear(&a);
    request_clear(&b);
}

/* --- tokens ------------------------------------------------------------------------------------ */

Test(prompts, never_two_bos_and_control_tokens_are_recognised)
{
    request r = one("{\"prompt\":\"<s>a<|im_end|>\"}");
    const int32_t ids[] = {TINY_BOS, TINY_BLANK, TINY_BYTE + 'a', TINY_END};
    expect_tokens(&r, ids, 4);
    request_clear(&r);
}

Test(prompts, nul_is_text)
{
    request r = one("{\"prompt\":\"a\\u0000b\"}");
    const int32_t ids[] = {TINY_BOS, TINY_BLANK, TINY_BYTE + 'a', TINY_BYTE, TINY_BYTE + 'b'};
    expect_tokens(&r, ids, 5);
    request_clear(&r);
}

Test(prompts, models_that_add_eos_or_no_bos)
{
    tiny_vocab eos = tiny_vocab_new(true, true), none = tiny_vocab_new(false, false);
    const int32_t ids[] = {TINY_BOS, TINY_BLANK, TINY_BYTE + 'a'};
    options.vocab = eos.v;
    request r = one("{\"prompt\":\"a\"}");
    expect_tokens(&r, ids, 3);
    request_clear(&r);
    options.vocab = none.v;
    r = one("{\"prompt\":\"a\"}");
    expect_tokens(&r, ids + 1, 2);
    request_clear(&r);
    r = one("{\"prompt\":\"\"}");
    cr_expect_eq(r.error.code, REQ_INVALID_VALUE, "no tokens at all");
    cr_expect_str_eq(r.error.param, "prompt");
    request_clear(&r);
    options.vocab = tiny.v;
    r = one("{\"prompt\":\"\"}");
    expect_tokens(&r, ids, 1);
    request_clear(&r);
    tiny_vocab_free(&eos);
    tiny_vocab_free(&none);
}

Test(prompts, seeds)
{
    /* First 8 bytes of SHA-256("7\0a1"), little endian, computed with Python. */
    request r = one("{\"id\":\"a1\",\"prompt\":\"a\"}");
    cr_expect_eq(r.sampling.seed, 7684794497011553616u);
    request_clear(&r);
    options.seed = 0;
    r = one("{\"prompt\":\"a\",\"seed\":null}");
    cr_expect_eq(r.sampling.seed, 14504318549462917347u);
    request_clear(&r);
    r = one("{\"prompt\":\"a\",\"seed\":9223372036854775807}");
    cr_expect_eq(r.sampling.seed, INT64_MAX);
    request_clear(&r);
}

/* --- the context ------------------------------------------------------------------------------- */

Test(prompts, what_fits_the_context)
{
    /* 2 + 8 = 10 prompt tokens in a context of 20. */
    options.n_ctx = 20;
    request r = one("{\"prompt\":\"abcdefgh\",\"max_tokens\":10}");
    cr_expect_eq(r.error.code, REQ_OK);
    request_clear(&r);

    r = one("{\"prompt\":\"abcdefgh\",\"max_tokens\":11}");
    cr_expect_eq(r.error.code, REQ_CONTEXT_LENGTH_EXCEEDED);
    cr_expect_str_eq(r.error.param, "max_tokens");
    cr_expect_str_eq(r.error.message,
                     "the prompt has 10 tokens, max_tokens is 11 and the context (n_ctx) 20: max_tokens "
                     "may be at most 10");
    cr_expect_eq(r.tokens.n, 0);
    request_clear(&r);

    r = one("{\"prompt\":\"abcdefgh\"}");
    cr_expect_eq(r.error.code, REQ_OK, "the default is no wish");
    cr_expect_eq(r.max_tokens, 10);
    request_clear(&r);

    r = one("{\"prompt\":\"abcdefghijklmnopq\"}");
    cr_expect_eq(r.max_tokens, 1, "19 tokens leave room for one");
    request_clear(&r);

    r = one("{\"prompt\":\"abcdefghijklmnopqr\"}");
    cr_expect_eq(r.error.code, REQ_CONTEXT_LENGTH_EXCEEDED);
    cr_expect_str_eq(r.error.param, "prompt");
    cr_expect(strstr(r.error.message, "has 20 tokens") && strstr(r.error.message, "256") &&
                  strstr(r.error.message, "at most 19"),
              "%s", r.error.message);
    request_clear(&r);

    options.max_tokens = 4;
    r = one("{\"prompt\":\"abcdefgh\",\"max_tokens\":11}");
    cr_expect_eq(r.error.code, REQ_OK, "the run's cap makes it fit");
    cr_expect_eq(r.max_tokens, 4);
    request_clear(&r);
    r = one("{\"prompt\":\"abcdefgh\",\"max_tokens\":9223372036854775807}");
    cr_expect_eq(r.max_tokens, 4);
    request_clear(&r);
}

Test(prompts, a_wide_repeat_window_is_all_of_the_sequence)
{
    options.n_ctx = 100;
    request r = one("{\"prompt\":\"a\",\"repeat_last_n\":2147483647}");
    cr_expect_eq(r.sampling.repeat_last_n, -1);
    request_clear(&r);
    r = one("{\"prompt\":\"a\",\"repeat_last_n\":99}");
    cr_expect_eq(r.sampling.repeat_last_n, 99);
    request_clear(&r);
}

/* --- bad lines --------------------------------------------------------------------------------- */

#define BODY(text)                                                                                           \
    "{\"custom_id\":\"i\",\"method\":\"POST\",\"url\":\"/v1/chat/completions\",\"body\":{" text "}}"
#define CHAT(text) BODY("\"messages\":[" text "]")
#define HI         "{\"role\":\"user\",\"content\":\"Hi\"}"
#define P(text)    "{\"id\":\"i\",\"prompt\":\"a\"," text "}"

static const struct {
    const char *line;
    request_code code;
    const char *param;
} bad[] = {
    {"{\"prompt\":\"a\"", REQ_INVALID_JSON, ""},
    {"{\"prompt\":\"a\"} {}", REQ_INVALID_JSON, ""},
    {"{\"prompt\":\"a\",\"prompt\":\"b\"}", REQ_INVALID_JSON, ""},
    {"{\"prompt\":\"\\ud800\"}", REQ_INVALID_JSON, ""},
    {"{\"prompt\":\"\\udc00x\"}", REQ_INVALID_JSON, ""},
    {"{\"prompt\":NaN}", REQ_INVALID_JSON, ""},
    {"{'prompt':'a'}", REQ_INVALID_JSON, ""},
    {"7", REQ_INVALID_JSON, ""},
    {"\"a\"", REQ_INVALID_JSON, ""},
    {"{\"prompt\":\"\xff\"}", REQ_INVALID_UTF8, ""},
    {"{\"prompt\":\"\xed\xa0\x80\"}", REQ_INVALID_UTF8, ""},
    {"{\"prompt\":\"\xc3\"}", REQ_INVALID_UTF8, ""},
    {"{}", REQ_MISSING_FIELD, "prompt"},
    {"{\"id\":\"i\",\"max_tokens\":3}", REQ_MISSING_FIELD, "prompt"},
    {"{\"prompt\":null}", REQ_INVALID_VALUE, "prompt"},
    {"{\"prompt\":[\"a\"]}", REQ_INVALID_VALUE, "prompt"},
    {"{\"prompt\":[1,2]}", REQ_INVALID_VALUE, "prompt"},
    {P("\"messages\":[" HI "]"), REQ_INVALID_VALUE, "prompt"},
    {"{\"messages\":{}}", REQ_INVALID_VALUE, "messages"},
    {"{\"messages\":null}", REQ_INVALID_VALUE, "messages"},
    {"{\"id\":7,\"prompt\":\"a\"}", REQ_INVALID_VALUE, "id"},
    {"{\"id\":\"\",\"prompt\":\"a\"}", REQ_INVALID_VALUE, "id"},
    {"{\"id\":\"a\\u0000\",\"prompt\":\"a\"}", REQ_INVALID_VALUE, "id"},
    {P("\"custom_id\":\"x\""), REQ_UNKNOWN_PARAMETER, "custom_id"},
    {P("\"max_tokens\":0"), REQ_INVALID_VALUE, "max_tokens"},
    {P("\"max_tokens\":-5"), REQ_INVALID_VALUE, "max_tokens"},
    {P("\"max_tokens\":1.5"), REQ_INVALID_VALUE, "max_tokens"},
    {P("\"max_tokens\":\"5\""), REQ_INVALID_VALUE, "max_tokens"},
    {P("\"max_completion_tokens\":0"), REQ_INVALID_VALUE, "max_completion_tokens"},
    {P("\"max_completion_tokens\":5,\"max_tokens\":5"), REQ_INVALID_VALUE, "max_completion_tokens"},
    {P("\"max_tokens\":5,\"max_completion_tokens\":5"), REQ_INVALID_VALUE, "max_completion_tokens"},
    {P("\"repeat_penalty\":1,\"repetition_penalty\":1"), REQ_INVALID_VALUE, "repetition_penalty"},
    {P("\"temperature\":-0.1"), REQ_INVALID_VALUE, "temperature"},
    {P("\"temperature\":100.5"), REQ_INVALID_VALUE, "temperature"},
    {P("\"temperature\":true"), REQ_INVALID_VALUE, "temperature"},
    {P("\"temperature\":\"hot\""), REQ_INVALID_VALUE, "temperature"},
    {P("\"top_p\":0"), REQ_INVALID_VALUE, "top_p"},
    {P("\"top_p\":1.01"), REQ_INVALID_VALUE, "top_p"},
    {P("\"top_k\":-1"), REQ_INVALID_VALUE, "top_k"},
    {P("\"top_k\":2147483648"), REQ_INVALID_VALUE, "top_k"},
    {P("\"min_p\":1"), REQ_INVALID_VALUE, "min_p"},
    {P("\"min_p\":-0.1"), REQ_INVALID_VALUE, "min_p"},
    {P("\"repeat_penalty\":0"), REQ_INVALID_VALUE, "repeat_penalty"},
    {P("\"repeat_last_n\":-2"), REQ_INVALID_VALUE, "repeat_last_n"},
    {P("\"presence_penalty\":2.1"), REQ_INVALID_VALUE, "presence_penalty"},
    {P("\"frequency_penalty\":-2.1"), REQ_INVALID_VALUE, "frequency_penalty"},
    {P("\"seed\":-1"), REQ_INVALID_VALUE, "seed"},
    {P("\"seed\":1.0"), REQ_INVALID_VALUE, "seed"},
    {P("\"stop\":\"\""), REQ_INVALID_VALUE, "stop"},
    {P("\"stop\":[\"a\",\"\"]"), REQ_INVALID_VALUE, "stop"},
    {P("\"stop\":[\"a\",7]"), REQ_INVALID_VALUE, "stop"},
    {P("\"stop\":7"), REQ_INVALID_VALUE, "stop"},
    {P("\"logprobs\":21"), REQ_INVALID_VALUE, "logprobs"},
    {P("\"logprobs\":\"yes\""), REQ_INVALID_VALUE, "logprobs"},
    {P("\"logprobs\":2,\"top_logprobs\":3"), REQ_INVALID_VALUE, "top_logprobs"},
    {P("\"top_logprobs\":21,\"logprobs\":true"), REQ_INVALID_VALUE, "top_logprobs"},
    {P("\"top_logprobs\":2"), REQ_INVALID_VALUE, "top_logprobs"},
    {P("\"top_logprobs\":2,\"logprobs\":false"), REQ_INVALID_VALUE, "top_logprobs"},
    {BODY("\"messages\":[" HI "],\"logprobs\":2"), REQ_INVALID_VALUE, "logprobs"},
    {P("\"ignore_eos\":1"), REQ_INVALID_VALUE, "ignore_eos"},
    {P("\"metadata\":\"x\""), REQ_INVALID_VALUE, "metadata"},
    {P("\"n\":2"), REQ_UNSUPPORTED_PARAMETER, "n"},
    {P("\"n\":1.0"), REQ_UNSUPPORTED_PARAMETER, "n"},
    {P("\"best_of\":4"), REQ_UNSUPPORTED_PARAMETER, "best_of"},
    {P("\"stream\":true"), REQ_UNSUPPORTED_PARAMETER, "stream"},
    {P("\"tools\":[{\"type\":\"function\"}]"), REQ_UNSUPPORTED_PARAMETER, "tools"},
    {P("\"tool_choice\":\"required\""), REQ_UNSUPPORTED_PARAMETER, "tool_choice"},
    {P("\"response_format\":{\"type\":\"json_object\"}"), REQ_UNSUPPORTED_PARAMETER, "response_format"},
    {P("\"logit_bias\":{\"5\":1}"), REQ_UNSUPPORTED_PARAMETER, "logit_bias"},
    {P("\"echo\":true"), REQ_UNSUPPORTED_PARAMETER, "echo"},
    {P("\"suffix\":\"x\""), REQ_UNSUPPORTED_PARAMETER, "suffix"},
    {P("\"Temperature\":1"), REQ_UNKNOWN_PARAMETER, "Temperature"},
    {P("\"grammar\":null"), REQ_UNKNOWN_PARAMETER, "grammar"},
    {P("\"method\":\"POST\""), REQ_UNKNOWN_PARAMETER, "method"},
    {"{\"custom_id\":\"i\",\"body\":{\"prompt\":\"a\"}}", REQ_MISSING_FIELD, "method"},
    {"{\"custom_id\":\"i\",\"method\":\"POST\",\"body\":{\"prompt\":\"a\"}}", REQ_MISSING_FIELD, "url"},
    {"{\"method\":\"GET\",\"url\":\"/v1/completions\",\"body\":{\"prompt\":\"a\"}}", REQ_INVALID_VALUE,
     "method"},
    {"{\"method\":\"POST\",\"url\":\"/v1/embeddings\",\"body\":{\"prompt\":\"a\"}}", REQ_INVALID_VALUE,
     "url"},
    {"{\"method\":\"POST\",\"url\":\"/v1/completions\",\"body\":[]}", REQ_INVALID_VALUE, "body"},
    {"{\"method\":\"POST\",\"url\":\"/v1/completions\",\"body\":null}", REQ_INVALID_VALUE, "body"},
    {"{\"method\":\"POST\",\"url\":\"/v1/completions\",\"id\":\"i\",\"body\":{\"prompt\":\"a\"}}",
     REQ_UNKNOWN_PARAMETER, "id"},
    {"{\"custom_id\":7,\"method\":\"POST\",\"url\":\"/v1/completions\",\"body\":{\"prompt\":\"a\"}}",
     REQ_INVALID_VALUE, "custom_id"},
    {"{\"method\":\"POST\",\"url\":\"/v1/completions\",\"body\":{\"id\":\"x\",\"prompt\":\"a\"}}",
     REQ_UNKNOWN_PARAMETER, "id"},
    {"{\"method\":\"POST\",\"url\":\"/v1/completions\",\"body\":{\"messages\":[" HI "]}}", REQ_MISSING_FIELD,
     "prompt"},
    {BODY("\"prompt\":\"a\""), REQ_MISSING_FIELD, "messages"},
    {CHAT(""), REQ_INVALID_VALUE, "messages"},
    {CHAT("7"), REQ_INVALID_VALUE, "messages[0]"},
    {CHAT(HI ",{\"content\":\"x\"}"), REQ_MISSING_FIELD, "messages[1].role"},
    {CHAT("{\"role\":\"user\"}"), REQ_MISSING_FIELD, "messages[0].content"},
    {CHAT("{\"role\":\"tool\",\"content\":\"x\"}"), REQ_INVALID_VALUE, "messages[0].role"},
    {CHAT("{\"role\":7,\"content\":\"x\"}"), REQ_INVALID_VALUE, "messages[0].role"},
    {CHAT("{\"role\":\"user\\u0000\",\"content\":\"x\"}"), REQ_INVALID_VALUE, "messages[0].role"},
    {CHAT("{\"role\":\"user\",\"content\":null}"), REQ_INVALID_VALUE, "messages[0].content"},
    {CHAT("{\"role\":\"user\",\"content\":[\"x\"]}"), REQ_INVALID_VALUE, "messages[0].content"},
    {CHAT("{\"role\":\"user\",\"content\":[{\"type\":\"text\"}]}"), REQ_INVALID_VALUE, "messages[0].content"},
    {CHAT("{\"role\":\"user\",\"content\":[{\"type\":\"image_url\"}]}"), REQ_UNSUPPORTED_PARAMETER,
     "messages[0].content"},
    {CHAT("{\"role\":\"user\",\"content\":\"x\",\"name\":\"Eve\"}"), REQ_UNSUPPORTED_PARAMETER,
     "messages[0].name"},
    {CHAT("{\"role\":\"user\",\"content\":\"x\",\"mood\":1}"), REQ_UNKNOWN_PARAMETER, "messages[0].mood"},
};
enum { N_BAD = sizeof bad / sizeof *bad };

Test(prompts, every_bad_line_has_its_code_and_parameter)
{
    for (size_t i = 0; i < N_BAD; i++) {
        request r = one(bad[i].line);
        cr_expect_eq(r.error.code, bad[i].code, "%s: %s: %s", bad[i].line, request_code_name(r.error.code),
                     r.error.message);
        cr_expect_str_eq(r.error.param, bad[i].param, "%s: %s", bad[i].line, r.error.param);
        cr_expect_neq(*r.error.message, 0);
        cr_expect_eq(r.tokens.n + r.n_stop + r.max_tokens, 0, "nothing else is set");
        request_clear(&r);
    }
}

static const char *const accepted[] = {
    P("\"temperature\":0"),
    P("\"temperature\":100"),
    P("\"top_p\":1,\"min_p\":0,\"top_k\":2147483647"),
    P("\"top_p\":1e-30,\"repeat_penalty\":1e-30,\"min_p\":0.99999999999"),
    P("\"max_tokens\":1,\"max_completion_tokens\":null"),
    P("\"max_tokens\":null,\"temperature\":null,\"stop\":null,\"logprobs\":null,\"metadata\":null,\"seed\":"
      "null,\"n\":null"),
    P("\"stop\":[],\"top_logprobs\":0,\"logprobs\":false"),
    P("\"stop\":[\"1\",\"2\",\"3\",\"4\",\"5\",\"6\",\"7\",\"8\",\"9\",\"10\",\"11\",\"12\",\"13\",\"14\","
      "\"15\",\"16\"]"),
    P("\"logprobs\":0"),
    P("\"logprobs\":20,\"top_logprobs\":20"),
    P("\"n\":1,\"best_of\":1,\"stream\":false,\"stream_options\":null,\"tools\":[],\"tool_choice\":\"none\","
      "\"user\":\"me\""),
    P("\"response_format\":{\"type\":\"text\"},\"logit_bias\":{},\"echo\":false,\"suffix\":null,\"store\":"
      "false,\"model\":7"),
    CHAT(HI ",{\"role\":\"assistant\",\"content\":\"Hello\",\"tool_calls\":null}," HI),
    CHAT("{\"role\":\"assistant\",\"content\":\"x\"}"),
    "{\"id\":null,\"prompt\":\"a\"}",
    "  {\"prompt\" : \"a\"}\t ",
};

Test(prompts, values_at_the_edge_and_neutral_ones_are_accepted)
{
    for (size_t i = 0; i < sizeof accepted / sizeof *accepted; i++) {
        request r = one(accepted[i]);
        cr_expect_eq(r.error.code, REQ_OK, "%s: %s", accepted[i], r.error.message);
        request_clear(&r);
    }
}

Test(prompts, lenient_ignores_unknown_keys_only)
{
    options.lenient = true;
    for (size_t i = 0; i < N_BAD; i++) {
        request r = one(bad[i].line);
        cr_expect_eq(r.error.code, bad[i].code == REQ_UNKNOWN_PARAMETER ? REQ_OK : bad[i].code, "%s: %s",
                     bad[i].line, r.error.message);
        request_clear(&r);
    }
}

Test(prompts, strict_refuses_the_file)
{
    pr_err err = {0};
    options.strict = true;
    cr_expect_eq(refused("{\"prompt\":\"a\"}\n\n{\"prompt\":\"a\",\"temperature\":-1}\n", &err), PR_EUSAGE);
    cr_expect(strstr(err.msg, "line 3") && strstr(err.msg, "invalid_value") && strstr(err.msg, "temperature"),
              "%s", err.msg);
}

Test(prompts, what_can_be_known_of_a_bad_line_is_kept)
{
    request r = one("{\"custom_id\":\"me\",\"method\":\"POST\",\"url\":\"/v1/chat/"
                    "completions\",\"body\":{\"metadata\":{\"k\":1},"
                    "\"temperature\":-1,\"messages\":[" HI "]}}");
    cr_expect_eq(r.error.code, REQ_INVALID_VALUE);
    cr_expect_str_eq(r.id, "me");
    cr_expect(r.openai);
    cr_expect_eq(json_integer_value(json_object_get(r.metadata, "k")), 1);
    cr_expect_str_eq(r.error.message, "temperature must be a number from 0 to 100, found -1");
    request_clear(&r);
}

Test(prompts, unknown_template)
{
    options.chat = CHAT_UNKNOWN;
    request r = one(CHAT(HI));
    cr_expect_eq(r.error.code, REQ_TEMPLATE_UNKNOWN);
    cr_expect(strstr(r.error.message, "--chat-template"), "%s", r.error.message);
    request_clear(&r);
    r = one("{\"prompt\":\"a\"}");
    cr_expect_eq(r.error.code, REQ_OK, "prompts need no template");
    request_clear(&r);
}

Test(prompts, messages_are_whole_characters_without_control_characters)
{
    /* 64 bytes of parameter name and 256 of message cut in the middle of 3-byte characters. */
    char line[2000] = "{\"prompt\":\"a\",\"";
    for (int i = 0; i < 200; i++) strcat(line, i % 2 ? "\xE2\x82\xAC" : "\\n");
    strcat(line, "\":1}");
    request r = one(line);
    json_t *v = json_pack("[s,s]", r.error.message, r.error.param);
    cr_expect_eq(r.error.code, REQ_UNKNOWN_PARAMETER);
    cr_assert_not_null(v, "both are UTF-8");
    cr_expect_null(strchr(r.error.message, '\n'));
    cr_expect_null(strchr(r.error.param, '\n'));
    json_decref(v);
    request_clear(&r);
}

/* --- ids --------------------------------------------------------------------------------------- */

Test(prompts, ids_of_256_bytes_and_not_one_more)
{
    char id[300], line[400];
    memset(id, 'x', sizeof id);
    id[256] = 0;
    snprintf(line, sizeof line, "{\"id\":\"%s\",\"prompt\":\"a\"}", id);
    request r = one(line);
    cr_expect_eq(r.error.code, REQ_OK);
    cr_expect_str_eq(r.id, id);
    request_clear(&r);
    id[256] = 'x';
    id[257] = 0;
    snprintf(line, sizeof line, "{\"id\":\"%s\",\"prompt\":\"a\"}", id);
    r = one(line);
    cr_expect_eq(r.error.code, REQ_INVALID_VALUE);
    cr_expect_str_eq(r.error.param, "id");
    cr_expect_str_eq(r.id, "line-1");
    request_clear(&r);
}

Test(prompts, a_duplicate_id_names_both_lines)
{
    pr_err err = {0};
    cr_expect_eq(refused("{\"id\":\"a\",\"prompt\":\"a\"}\n\n{\"id\":\"b\",\"prompt\":\"a\"}\n"
                         "{\"custom_id\":\"a\",\"method\":\"POST\",\"url\":\"/v1/"
                         "completions\",\"body\":{\"prompt\":\"a\"}}\n",
                         &err),
                 PR_EUSAGE);
    cr_expect(strstr(err.msg, "line 4") && strstr(err.msg, "line 1") && strstr(err.msg, "\"a\""), "%s",
              err.msg);
    /* Also with a made-up one, and when one of the lines is bad. */
    cr_expect_eq(refused("{\"id\":\"line-2\",\"prompt\":\"a\"}\n{\"prompt\":\"a\"}\n", &err), PR_EUSAGE);
    cr_expect_eq(refused("{\"id\":\"a\",\"prompt\":\"a\"}\n{\"id\":\"a\"}\n", &err), PR_EUSAGE);
}

Test(prompts, many_ids_are_found_again)
{
    enum { N = 5000 };
    FILE *f = fopen(in_dir("many.jsonl"), "w");
    prompts *p = NULL;
    pr_err err = {0};
    size_t index;

    for (int i = 0; i < N; i++) fprintf(f, "{\"id\":\"id %d\",\"prompt\":\"a\"}\n", i);
    fclose(f);
    cr_assert_eq(prompts_open(&p, in_dir("many.jsonl"), &options, &err), PR_OK, "%s", err.msg);
    cr_expect_eq(prompts_count(p), N);
    for (size_t i = 0; i < N; i++) {
        char id[32];
        snprintf(id, sizeof id, "id %zu", i);
        cr_assert(prompts_find(p, id, &index) && index == i);
        cr_assert_str_eq(prompts_id(p, i), id);
    }
    cr_expect_not(prompts_find(p, "id 5000", &index));
    cr_expect_eq(prompts_total_tokens(p), 3 * N);
    prompts_close(p);
}

/* --- the file ---------------------------------------------------------------------------------- */

Test(prompts, line_ends_bom_and_empty_lines)
{
    prompts *p =
        open_text("\xEF\xBB\xBF{\"prompt\":\"ab\"}\r\n\r\n   \t\r\n{\"prompt\":\"b\"}\n\n{\"prompt\":\"c\"}");
    request r;
    cr_assert_eq(prompts_count(p), 3);
    cr_expect_eq(prompts_bad(p), 0);
    r = get(p, 0);
    cr_expect_str_eq(r.input_sha256, "06b15c0962e7d14eccae93f89c4c92fe2a63cf68c3d1963907d7d59b43e9f63e",
                     "BOM and line end do not count");
    request_clear(&r);
    r = get(p, 1);
    cr_expect_eq(r.line, 4);
    cr_expect_str_eq(r.id, "line-4");
    request_clear(&r);
    r = get(p, 2);
    cr_expect_eq(r.line, 6);
    request_clear(&r);
    prompts_close(p);
}

Test(prompts, digest_and_size_of_the_file)
{
    char hex[65];
    prompts *p = open_text("{\"prompt\":\"ab\"}\n");
    cr_expect_str_eq(prompts_sha256(p), "c9212e5b1eb1796d1740abe23c23366102676c07e99f61f887f82827c2c36747");
    cr_expect_eq(prompts_bytes(p), 16);
    prompts_line_sha256(p, 0, hex);
    cr_expect_str_eq(hex, "06b15c0962e7d14eccae93f89c4c92fe2a63cf68c3d1963907d7d59b43e9f63e");
    prompts_close(p);
    p = open_text("{\"prompt\":\"ab\"}");
    cr_expect_str_eq(prompts_sha256(p), "06b15c0962e7d14eccae93f89c4c92fe2a63cf68c3d1963907d7d59b43e9f63e",
                     "without the line end");
    prompts_close(p);
    p = open_text("");
    cr_expect_eq(prompts_count(p), 0);
    cr_expect_str_eq(prompts_sha256(p), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    prompts_close(p);
}

Test(prompts, lines_of_16_mib_and_not_one_byte_more)
{
    const size_t limit = (size_t)16 << 20;
    char *text = malloc(limit + 10);
    prompts *p = NULL;
    pr_err err = {0};

    memset(text, 'x', limit + 10);
    memcpy(text + limit, "\r\n{}\n", 5);
    write_bytes(in_dir("long.jsonl"), text, limit + 5);
    cr_assert_eq(prompts_open(&p, in_dir("long.jsonl"), &options, &err), PR_OK, "%s", err.msg);
    cr_expect_eq(prompts_count(p), 2);
    cr_expect_eq(prompts_bad(p), 2);
    prompts_close(p);
    memcpy(text + limit, "x\n{}\n", 5);
    write_bytes(in_dir("long.jsonl"), text, limit + 5);
    cr_expect_eq(prompts_open(&p, in_dir("long.jsonl"), &options, &err), PR_EUSAGE);
    cr_expect(strstr(err.msg, "line 1 "), "%s", err.msg);
    free(text);
}

Test(prompts, an_endless_line_is_refused_without_reading_it_all)
{
    /* A sparse file of 64 GiB: one line of NULs. */
    prompts *p = NULL;
    pr_err err = {0};
    write_file(in_dir("sparse.jsonl"), "");
    if (truncate(in_dir("sparse.jsonl"), (off_t)64 << 30)) cr_skip_test("no sparse files here");
    cr_expect_eq(prompts_open(&p, in_dir("sparse.jsonl"), &options, &err), PR_EUSAGE);
}

Test(prompts, files_that_cannot_be_read)
{
    prompts *p = NULL;
    pr_err err = {0};
    cr_expect_eq(prompts_open(&p, in_dir("none.jsonl"), &options, &err), PR_ERESOURCE);
    cr_expect(strstr(err.msg, "none.jsonl"), "%s", err.msg);
    cr_expect_eq(prompts_open(&p, in_dir(""), &options, &err), PR_EUSAGE, "a folder");
}

static void read_from_pipe(const char *path, int fd_of_reader)
{
    int pipe_fd[2];
    prompts *p = NULL;
    pr_err err = {0};
    pid_t writer;

    cr_assert_eq(pipe(pipe_fd), 0);
    writer = fork();
    if (writer == 0) {
        close(pipe_fd[0]);
        for (int i = 0; i < 20000; i++) dprintf(pipe_fd[1], "{\"prompt\":\"abc\"}\n");
        _exit(0);
    }
    close(pipe_fd[1]);
    cr_assert_eq(dup2(pipe_fd[0], fd_of_reader), fd_of_reader);
    cr_assert_eq(prompts_open(&p, path, &options, &err), PR_OK, "%s", err.msg);
    waitpid(writer, NULL, 0);
    cr_expect_eq(prompts_count(p), 20000);
    request r = get(p, 19999);
    cr_expect_str_eq(r.id, "line-20000");
    cr_expect_eq(r.tokens.n, 5);
    request_clear(&r);
    prompts_close(p);
}

Test(prompts, standard_input)
{
    read_from_pipe("-", 0);
}
Test(prompts, a_pipe)
{
    read_from_pipe("/dev/fd/9", 9);
}

Test(prompts, a_line_that_changes_during_the_run_is_noticed)
{
    prompts *p = open_text("{\"prompt\":\"a\"}\n{\"prompt\":\"b\"}\n");
    request r;
    pr_err err = {0};
    int fd = open(in_dir("in.jsonl"), O_WRONLY);
    cr_assert_eq(pwrite(fd, "{\"prompt\":\"c\"}", 14, 15), 14);
    cr_expect_eq(prompts_get(p, 0, &r, &err), PR_OK);
    request_clear(&r);
    cr_expect_eq(prompts_get(p, 1, &r, &err), PR_EMISMATCH);
    cr_expect(strstr(err.msg, "line 2"), "%s", err.msg);
    cr_assert_eq(ftruncate(fd, 20), 0);
    cr_expect_eq(prompts_get(p, 1, &r, &err), PR_EMISMATCH, "cut short");
    close(fd);
    prompts_close(p);
}

/* --- 2,000 lines ------------------------------------------------------------------------------- */

Test(prompts, two_thousand_lines_with_fifty_bad_ones)
{
    char command[2000];
    prompts *p = NULL;
    pr_err err = {0};
    json_t *expected, *b;
    size_t i, index;

    if (system("python3 -c '' 2>/dev/null")) cr_skip_test("no python3: the file is made by a script");
    snprintf(command, sizeof command, "python3 tests/run/make_bad_lines.py '%s' '%s' --n-ctx 512",
             in_dir("2000.jsonl"), in_dir("expected.json"));
    cr_assert_eq(system(command), 0);
    expected = json_load_file(in_dir("expected.json"), 0, NULL);
    cr_assert_not_null(expected);
    options.n_ctx = 512;
    cr_assert_eq(prompts_open(&p, in_dir("2000.jsonl"), &options, &err), PR_OK, "%s", err.msg);
    cr_expect_eq(prompts_count(p), 2000);
    cr_expect_eq(prompts_bad(p), 50);
    cr_expect_eq(json_array_size(json_object_get(expected, "bad")), 50);
    json_array_foreach(json_object_get(expected, "bad"), i, b)
    {
        const char *kind = json_string_value(json_object_get(b, "kind")),
                   *param = json_string_value(json_object_get(b, "param"));
        cr_assert(prompts_find(p, json_string_value(json_object_get(b, "id")), &index), "%s", kind);
        request r = get(p, index);
        cr_expect_str_eq(request_code_name(r.error.code), json_string_value(json_object_get(b, "code")), "%s",
                         kind);
        cr_expect_str_eq(r.error.param, param ? param : "", "%s", kind);
        cr_expect_eq(r.line, (size_t)json_integer_value(json_object_get(b, "line")), "%s", kind);
        cr_expect_eq(r.openai, json_is_true(json_object_get(b, "openai")), "%s", kind);
        request_clear(&r);
    }
    prompts_close(p);
    json_decref(expected);
}
