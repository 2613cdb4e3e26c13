/* Chat templates without Jinja: a model's template is recognised by strings that only its family has, and
 * each family is a few lines of C. Families, their marks and their output are those of llama.cpp's built-in
 * templates, so that a prompt means the same in both. */
#include "src/model/chat.h"
#include <stdlib.h>
#include <string.h>

static const char *const names[CHAT_TEMPLATES] = {
    [CHAT_CHATML] = "chatml",
    [CHAT_LLAMA2] = "llama2",
    [CHAT_LLAMA3] = "llama3",
    [CHAT_DEEPSEEK_R1] = "deepseek-r1",
    [CHAT_MISTRAL_V1] = "mistral-v1",
    [CHAT_MISTRAL_V3] = "mistral-v3",
    [CHAT_MISTRAL_V7] = "mistral-v7",
    [CHAT_LLAMA2_SYS] = "llama2-sys",
    [CHAT_LLAMA2_SYS_BOS] = "llama2-sys-bos",
    [CHAT_LLAMA2_NOSYS] = "llama2-nosys",
    [CHAT_MISTRAL_V3_TEKKEN] = "mistral-v3-tekken",
};

chat_template chat_by_name(const char *name)
{
    for (int t = 0; t < CHAT_TEMPLATES; t++)
        if (!strcmp(names[t], name)) return (chat_template)t;
    return CHAT_UNKNOWN;
}

const char *chat_name(chat_template t)
{
    return t >= 0 && t < CHAT_TEMPLATES ? names[t] : "unknown";
}

/* --- recognising ------------------------------------------------------------------------------- */

/* DeepSeek writes its marks with U+FF5C and U+2581. */
#define R1_USER      "<\uff5cUser\uff5c>"
#define R1_ASSISTANT "<\uff5cAssistant\uff5c>"
#define R1_END       "<\uff5cend\u2581of\u2581sentence\uff5c>"

typedef struct {
    const char *text;
    size_t n;
} template_text;

static bool has(template_text t, const char *mark)
{
    return memmem(t.text, t.n, mark, strlen(mark)) != NULL;
}

/* All that write [INST]: Mistral's official templates, else Llama 2 in the variants that models came with. */
static chat_template detect_inst(template_text t)
{
    if (has(t, "[SYSTEM_PROMPT]")) return CHAT_MISTRAL_V7;
    if (has(t, "' [INST] ' + system_message") || has(t, "[AVAILABLE_TOOLS]")) {
        if (has(t, " [INST]")) return CHAT_MISTRAL_V1;
        return has(t, "\"[INST]\"") ? CHAT_MISTRAL_V3_TEKKEN : CHAT_MISTRAL_V3;
    }
    if (has(t, "content.strip()")) return CHAT_LLAMA2;
    if (has(t, "bos_token + '[INST]")) return CHAT_LLAMA2_SYS_BOS;
    return has(t, "<<SYS>>") ? CHAT_LLAMA2_SYS : CHAT_LLAMA2_NOSYS;
}

chat_template chat_detect(const char *jinja, size_t n)
{
    template_text t = {jinja, n};

    if (has(t, "<|im_start|>"))
        return has(t, "<|im_sep|>") ? CHAT_UNKNOWN : CHAT_CHATML; /* with im_sep: Phi-4 */
    if (has(t, "[INST]")) return detect_inst(t);
    if (has(t, "<|start_header_id|>") && has(t, "<|end_header_id|>")) return CHAT_LLAMA3;
    if (has(t, R1_ASSISTANT) && has(t, R1_USER) && has(t, R1_END)) return CHAT_DEEPSEEK_R1;
    return CHAT_UNKNOWN;
}

/* --- writing ----------------------------------------------------------------------------------- */

typedef struct {
    char *p;
    size_t n, cap;
    bool failed;
} text_buffer;

static void put_bytes(text_buffer *b, const char *p, size_t n)
{
    if (b->failed) return;
    if (n >= b->cap - b->n) { /* one byte stays free for the NUL */
        size_t cap = 2 * (b->cap + n) + 256;
        char *q = realloc(b->p, cap);
        if (!q) {
            b->failed = true;
            return;
        }
        b->p = q;
        b->cap = cap;
    }
    memcpy(b->p + b->n, p, n);
    b->n += n;
}

static void put(text_buffer *b, const char *text)
{
    put_bytes(b, text, strlen(text));
}

static void put_content(text_buffer *b, const chat_message *m)
{
    if (m->content_len) put_bytes(b, m->content, m->content_len);
}

static bool is_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static void put_trimmed(text_buffer *b, const chat_message *m)
{
    size_t from = 0, end = m->content_len;

    while (from < end && is_space(m->content[from])) from++;
    while (end > from && is_space(m->content[end - 1])) end--;
    if (end > from) put_bytes(b, m->content + from, end - from);
}

static bool is_role(const chat_message *m, const char *role)
{
    return !strcmp(m->role, role);
}

static void write_chatml(text_buffer *b, const chat_message *m, size_t n, bool open_turn)
{
    for (size_t i = 0; i < n; i++) {
        put(b, "<|im_start|>");
        put(b, m[i].role);
        put(b, "\n");
        put_content(b, &m[i]);
        put(b, "<|im_end|>\n");
    }
    if (open_turn) put(b, "<|im_start|>assistant\n");
}

static void write_llama3(text_buffer *b, const chat_message *m, size_t n, bool open_turn)
{
    for (size_t i = 0; i < n; i++) {
        put(b, "<|start_header_id|>");
        put(b, m[i].role);
        put(b, "<|end_header_id|>\n\n");
        put_trimmed(b, &m[i]);
        put(b, "<|eot_id|>");
    }
    if (open_turn) put(b, "<|start_header_id|>assistant<|end_header_id|>\n\n");
}

static void write_deepseek_r1(text_buffer *b, const chat_message *m, size_t n, bool open_turn)
{
    for (size_t i = 0; i < n; i++) {
        if (is_role(&m[i], "user")) put(b, R1_USER);
        if (is_role(&m[i], "assistant")) put(b, R1_ASSISTANT);
        put_content(b, &m[i]);
        if (is_role(&m[i], "assistant")) put(b, R1_END);
        if (is_role(&m[i], "system")) put(b, "\n\n");
    }
    if (open_turn) put(b, R1_ASSISTANT);
}

static void write_llama2(text_buffer *b, const chat_message *m, size_t n, chat_template t)
{
    bool in_turn = true;

    put(b, "[INST] ");
    for (size_t i = 0; i < n; i++) {
        bool system = is_role(&m[i], "system"), marks = system && t != CHAT_LLAMA2_NOSYS;

        if (!in_turn) put(b, t == CHAT_LLAMA2_SYS_BOS ? "<s>[INST] " : "[INST] ");
        if (marks) put(b, "<<SYS>>\n");
        if (t == CHAT_LLAMA2) put_trimmed(b, &m[i]);
        else put_content(b, &m[i]);
        put(b, marks ? "\n<</SYS>>\n\n" : system ? "\n" : is_role(&m[i], "user") ? " [/INST]" : "</s>");
        in_turn = !is_role(&m[i], "assistant");
    }
}

static void write_mistral_v7(text_buffer *b, const chat_message *m, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        bool system = is_role(&m[i], "system"), user = is_role(&m[i], "user");

        put(b, system ? "[SYSTEM_PROMPT] " : user ? "[INST] " : " ");
        put_content(b, &m[i]);
        put(b, system ? "[/SYSTEM_PROMPT]" : user ? "[/INST]" : "</s>");
    }
}

/* v1, v3 and v3-tekken differ in the blanks around the marks. */
static void write_mistral(text_buffer *b, const chat_message *m, size_t n, chat_template t)
{
    const char *before = t == CHAT_MISTRAL_V1 ? " " : "", *after = t == CHAT_MISTRAL_V3_TEKKEN ? "" : " ";
    bool in_turn = false;

    for (size_t i = 0; i < n; i++) {
        bool assistant = is_role(&m[i], "assistant");

        if (!in_turn) {
            put(b, before);
            put(b, "[INST]");
            put(b, after);
        }
        if (assistant) put(b, after);
        if (assistant && t == CHAT_MISTRAL_V3) put_trimmed(b, &m[i]);
        else put_content(b, &m[i]);
        if (is_role(&m[i], "user")) put(b, before);
        put(b, assistant ? "</s>" : is_role(&m[i], "user") ? "[/INST]" : "\n\n");
        in_turn = !assistant;
    }
}

int chat_apply(chat_template t, const chat_message *msg, size_t n_msg, bool add_generation_prompt, char **out,
               size_t *n, pr_err *err)
{
    text_buffer b = {0};

    for (size_t i = 0; i < n_msg; i++)
        if (!is_role(&msg[i], "system") && !is_role(&msg[i], "user") && !is_role(&msg[i], "assistant"))
            return pr_fail(err, PR_EUSAGE, "message %zu: role \"%.40s\", expected system, user or assistant",
                           i + 1, msg[i].role);
    switch (t) {
    case CHAT_CHATML: write_chatml(&b, msg, n_msg, add_generation_prompt); break;
    case CHAT_LLAMA3: write_llama3(&b, msg, n_msg, add_generation_prompt); break;
    case CHAT_DEEPSEEK_R1: write_deepseek_r1(&b, msg, n_msg, add_generation_prompt); break;
    case CHAT_LLAMA2:
    case CHAT_LLAMA2_SYS:
    case CHAT_LLAMA2_SYS_BOS:
    case CHAT_LLAMA2_NOSYS: write_llama2(&b, msg, n_msg, t); break;
    case CHAT_MISTRAL_V1:
    case CHAT_MISTRAL_V3:
    case CHAT_MISTRAL_V3_TEKKEN: write_mistral(&b, msg, n_msg, t); break;
    case CHAT_MISTRAL_V7: write_mistral_v7(&b, msg, n_msg); break;
    default:
        return pr_fail(
            err, PR_EUSAGE,
            "unknown chat template: name one of those that are known (--chat-template chatml, llama2, "
            "llama3, deepseek-r1, mistral-v1, mistral-v3, mistral-v7)");
    }
    put_bytes(&b, "", 0); /* there is a buffer, even for no messages */
    if (b.failed) {
        free(b.p);
        return pr_fail(err, PR_ERESOURCE, "chat template: out of memory");
    }
    b.p[b.n] = '\0';
    *out = b.p;
    *n = b.n;
    return PR_OK;
}
