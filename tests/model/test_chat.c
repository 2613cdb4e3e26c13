/* Chat templates: the prompts of chat/chat.jsonl (from llama.cpp's built-in templates), recognition by the
 * text of templates.json and of the models' own keys, and one conversation written out for every family
 * (given by llama.cpp c392e50 too: llama_chat_apply_template with the name in `oracle`). */
#include "src/model/chat.h"
#include "src/model/gguf.h"
#include "tests/common/data.h"
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char *apply(chat_template t, const chat_message *m, size_t n_msg, bool open_turn)
{
    char *out = NULL;
    size_t n = 0;
    pr_err err = {0};

    cr_assert_eq(chat_apply(t, m, n_msg, open_turn, &out, &n, &err), PR_OK, "%s", err.msg);
    cr_assert_eq(out[n], '\0');
    cr_assert_eq(strlen(out), n);
    return out;
}

/* --- the shared data --------------------------------------------------------------------------- */

static const struct {
    const char *name;
    chat_template t;
} templates[] = {
    {"llama-3.1 (as in tokenizer/llama-bpe.gguf)", CHAT_LLAMA3},
    {"qwen2.5 (as in tokenizer/qwen2.gguf)", CHAT_CHATML},
    {"deepseek-r1-distill (as in tokenizer/deepseek-r1-qwen.gguf)", CHAT_DEEPSEEK_R1},
    {"chatml (as in models/qwen2-bias.gguf)", CHAT_CHATML},
    {"llama-3 (as in models/llama-tied.gguf)", CHAT_LLAMA3},
    {"llama-2", CHAT_LLAMA2},
};

Test(chat, detects_every_template_of_the_data)
{
    json_t *all = test_data_json("chat/templates.json");
    size_t n = sizeof templates / sizeof *templates;

    cr_assert_eq(json_object_size(all), n, "templates.json has %zu", json_object_size(all));
    for (size_t i = 0; i < n; i++) {
        const json_t *text = json_object_get(all, templates[i].name);
        cr_assert_not_null(text, "%s", templates[i].name);
        cr_expect_eq(chat_detect(json_string_value(text), json_string_length(text)), templates[i].t, "%s",
                     templates[i].name);
    }
    json_decref(all);
}

static const struct {
    const char *path;
    chat_template t;
} models[] = {
    {"models/qwen2-bias.gguf", CHAT_CHATML},
    {"models/llama-tied.gguf", CHAT_LLAMA3},
};

Test(chat, detects_by_the_key_of_a_model)
{
    for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
        gguf *g;
        gguf_str s;
        pr_err err = {0};

        cr_assert_eq(gguf_open(&g, test_data(models[i].path), &err), PR_OK, "%s", err.msg);
        cr_assert(gguf_string(g, "tokenizer.chat_template", &s, &err), "%s", models[i].path);
        cr_expect_eq(chat_detect(s.p, s.n), models[i].t, "%s", models[i].path);
        gguf_close(g);
    }
}

static size_t messages_of(const json_t *line, chat_message *m, size_t max)
{
    const json_t *list = json_object_get(line, "messages");
    size_t n = json_array_size(list);

    cr_assert_leq(n, max);
    for (size_t i = 0; i < n; i++) {
        const json_t *content = json_object_get(json_array_get(list, i), "content");
        m[i].role = json_string_value(json_object_get(json_array_get(list, i), "role"));
        m[i].content = json_string_value(content);
        m[i].content_len = json_string_length(content);
    }
    return n;
}

Test(chat, prompts_equal_builtin)
{
    FILE *f = fopen(test_data("chat/chat.jsonl"), "r");
    json_t *all = test_data_json("chat/templates.json");
    char *line = NULL;
    size_t cap = 0, n_lines = 0;

    cr_assert_not_null(f);
    for (; getline(&line, &cap, f) > 0; n_lines++) {
        json_t *v = json_loads(line, JSON_ALLOW_NUL, NULL);
        const json_t *text = json_object_get(all, json_string_value(json_object_get(v, "template")));
        chat_message m[16];
        size_t n = messages_of(v, m, 16);
        char *prompt = apply(chat_detect(json_string_value(text), json_string_length(text)), m, n,
                             json_is_true(json_object_get(v, "add_generation_prompt")));

        cr_expect_str_eq(prompt, json_string_value(json_object_get(v, "builtin")), "line %zu", n_lines + 1);
        free(prompt);
        json_decref(v);
    }
    cr_assert_geq(n_lines, 48, "%zu lines", n_lines);
    free(line);
    fclose(f);
    json_decref(all);
}

/* --- every family ------------------------------------------------------------------------------ */

#define TEXT(s) s, sizeof(s) - 1
static const chat_message conversation[] = {
    {"system", TEXT(" Be brief.\n")},
    {"user", TEXT(" Hi \n")},
    {"assistant", TEXT("\n Hello ")},
    {"user", TEXT("Bye")},
};

/* clang-format off */
static const struct {
    chat_template t;
    const char *name, *oracle, *expected;     /* without the generation prompt */
    const char *open_turn;
} families[] = {
    {CHAT_CHATML, "chatml", "chatml",
     "<|im_start|>system\n Be brief.\n<|im_end|>\n<|im_start|>user\n Hi \n<|im_end|>\n"
     "<|im_start|>assistant\n\n Hello <|im_end|>\n<|im_start|>user\nBye<|im_end|>\n", "<|im_start|>assistant\n"},
    {CHAT_LLAMA3, "llama3", "llama3",
     "<|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>"
     "<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
     "<|start_header_id|>assistant<|end_header_id|>\n\nHello<|eot_id|>"
     "<|start_header_id|>user<|end_header_id|>\n\nBye<|eot_id|>", "<|start_header_id|>assistant<|end_header_id|>\n\n"},
    {CHAT_DEEPSEEK_R1, "deepseek-r1", "deepseek3",
     " Be brief.\n\n\n<\uff5cUser\uff5c> Hi \n<\uff5cAssistant\uff5c>\n Hello <\uff5cend\u2581of\u2581sentence\uff5c>"
     "<\uff5cUser\uff5c>Bye", "<\uff5cAssistant\uff5c>"},
    {CHAT_LLAMA2, "llama2", "llama2-sys-strip",
     "[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\nHi [/INST]Hello</s>[INST] Bye [/INST]", ""},
    {CHAT_LLAMA2_SYS, "llama2-sys", "llama2-sys",
     "[INST] <<SYS>>\n Be brief.\n\n<</SYS>>\n\n Hi \n [/INST]\n Hello </s>[INST] Bye [/INST]", ""},
    {CHAT_LLAMA2_SYS_BOS, "llama2-sys-bos", "llama2-sys-bos",
     "[INST] <<SYS>>\n Be brief.\n\n<</SYS>>\n\n Hi \n [/INST]\n Hello </s><s>[INST] Bye [/INST]", ""},
    {CHAT_LLAMA2_NOSYS, "llama2-nosys", "llama2",
     "[INST]  Be brief.\n\n Hi \n [/INST]\n Hello </s>[INST] Bye [/INST]", ""},
    {CHAT_MISTRAL_V1, "mistral-v1", "mistral-v1",
     " [INST]  Be brief.\n\n\n Hi \n [/INST] \n Hello </s> [INST] Bye [/INST]", ""},
    {CHAT_MISTRAL_V3, "mistral-v3", "mistral-v3",
     "[INST]  Be brief.\n\n\n Hi \n[/INST] Hello</s>[INST] Bye[/INST]", ""},
    {CHAT_MISTRAL_V3_TEKKEN, "mistral-v3-tekken", "mistral-v3-tekken",
     "[INST] Be brief.\n\n\n Hi \n[/INST]\n Hello </s>[INST]Bye[/INST]", ""},
    {CHAT_MISTRAL_V7, "mistral-v7", "mistral-v7",
     "[SYSTEM_PROMPT]  Be brief.\n[/SYSTEM_PROMPT][INST]  Hi \n[/INST] \n Hello </s>[INST] Bye[/INST]", ""},
};
/* clang-format on */

Test(chat, every_family_writes_its_turns)
{
    size_t n = sizeof families / sizeof *families;

    cr_assert_eq(n, (size_t)CHAT_TEMPLATES);
    for (size_t i = 0; i < n; i++) {
        for (int open_turn = 0; open_turn < 2; open_turn++) {
            char *got = apply(families[i].t, conversation, 4, open_turn), expected[1024];

            snprintf(expected, sizeof expected, "%s%s", families[i].expected,
                     open_turn ? families[i].open_turn : "");
            cr_expect_str_eq(got, expected, "%s, %d", families[i].name, open_turn);
            free(got);
        }
        cr_expect_eq(chat_by_name(families[i].name), families[i].t, "%s", families[i].name);
        cr_expect_str_eq(chat_name(families[i].t), families[i].name);
    }
    cr_expect_eq(chat_by_name("vicuna"), CHAT_UNKNOWN);
    cr_expect_eq(chat_by_name(""), CHAT_UNKNOWN);
    cr_expect_str_eq(chat_name(CHAT_UNKNOWN), "unknown");
}

/* The marks that llama.cpp looks for, in a template reduced to them. Mistral's as its cookbook prints them.
 */
static const struct {
    const char *jinja;
    chat_template t;
} marks[] = {
    {"{{ bos_token }}{% for m in loop_messages %}{{ ' [INST] ' + system_message + '\\n\\n' }}",
     CHAT_MISTRAL_V1},
    {"{{ \"[AVAILABLE_TOOLS] [\" }}{{ \"[INST] \" + content + \"[/INST]\" }}", CHAT_MISTRAL_V3},
    {"{{ \"[AVAILABLE_TOOLS][\" }}{{ \"[INST]\" + content + \"[/INST]\" }}", CHAT_MISTRAL_V3_TEKKEN},
    {"{{ '[SYSTEM_PROMPT] ' + content + '[/SYSTEM_PROMPT]' }}{{ '[INST] ' }}", CHAT_MISTRAL_V7},
    {"{{ '[INST] <<SYS>>' + content.strip() }}", CHAT_LLAMA2},
    {"{{ bos_token + '[INST] <<SYS>>' + content }}", CHAT_LLAMA2_SYS_BOS},
    {"{{ '[INST] <<SYS>>' + content }}", CHAT_LLAMA2_SYS},
    {"{{ '[INST] ' + content }}", CHAT_LLAMA2_NOSYS},
    {"{{ '<|im_start|>' + message['role'] + '<|im_sep|>' }}", CHAT_UNKNOWN}, /* Phi-4 */
    {"{{ '<|user|>' + message['content'] + '<|end|>' }}<|assistant|>", CHAT_UNKNOWN},
    {"<start_of_turn>user", CHAT_UNKNOWN},
    {"<|start_header_id|> alone", CHAT_UNKNOWN},
    {"", CHAT_UNKNOWN},
};

Test(chat, detects_by_marks)
{
    for (size_t i = 0; i < sizeof marks / sizeof *marks; i++)
        cr_expect_eq(chat_detect(marks[i].jinja, strlen(marks[i].jinja)), marks[i].t, "%s", marks[i].jinja);
    cr_expect_eq(chat_detect("<|im_start|>", 11), CHAT_UNKNOWN, "looks behind n");
    cr_expect_eq(chat_detect("\0\0<|im_start|>", 14), CHAT_CHATML, "stops at a NUL");
}

/* --- the edges --------------------------------------------------------------------------------- */

Test(chat, refuses_roles_and_templates_it_does_not_know)
{
    const chat_message tool = {"tool", TEXT("{}")};
    char *out = NULL;
    size_t n = 0;
    pr_err err = {0};

    cr_expect_eq(chat_apply(CHAT_CHATML, &tool, 1, true, &out, &n, &err), PR_EUSAGE);
    cr_expect_not_null(strstr(err.msg, "\"tool\""), "%s", err.msg);
    cr_expect_not_null(strstr(err.msg, "message 1"), "%s", err.msg);
    cr_expect_eq(chat_apply(CHAT_UNKNOWN, conversation, 4, true, &out, &n, &err), PR_EUSAGE);
    cr_expect_not_null(strstr(err.msg, "--chat-template"), "%s", err.msg);
    cr_expect_eq(chat_apply(CHAT_UNKNOWN, conversation, 4, true, &out, &n, NULL), PR_EUSAGE);
    cr_expect_null(out);
}

Test(chat, contents_of_any_bytes_and_no_contents)
{
    const chat_message nul = {"user", TEXT("a\0b")}, none = {"user", NULL, 0},
                       blank = {"user", TEXT(" \n\t ")};
    const char expected[] = "<|im_start|>user\na\0b<|im_end|>\n";
    char *out;
    size_t n;

    cr_assert_eq(chat_apply(CHAT_CHATML, &nul, 1, false, &out, &n, NULL), PR_OK);
    cr_expect_eq(n, sizeof expected - 1);
    cr_expect_arr_eq(out, expected, sizeof expected);
    free(out);
    out = apply(CHAT_LLAMA2, &none, 1, true);
    cr_expect_str_eq(out, "[INST]  [/INST]");
    free(out);
    out = apply(CHAT_LLAMA3, &blank, 1, false);
    cr_expect_str_eq(out, "<|start_header_id|>user<|end_header_id|>\n\n<|eot_id|>");
    free(out);
    for (int t = 0; t < CHAT_TEMPLATES; t++) free(apply((chat_template)t, NULL, 0, true));
}

Test(chat, long_conversations)
{
    enum { N = 1000, LEN = 5000 };
    chat_message *m = malloc(N * sizeof *m);
    char *text = malloc(LEN), *out;

    memset(text, 'x', LEN);
    for (int i = 0; i < N; i++) m[i] = (chat_message){i % 2 ? "assistant" : "user", text, LEN};
    out = apply(CHAT_MISTRAL_V7, m, N, true);
    cr_expect_eq(strlen(out), N / 2 * (2 * LEN + strlen("[INST] [/INST] </s>")));
    free(out);
    free(text);
    free(m);
}
