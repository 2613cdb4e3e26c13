/* A list of messages -> prompt text, by templates known by name and recognised by their text; no Jinja.
 * The output has no BOS in front, the tokenizer adds it. It equals that of llama.cpp's built-in templates. */
#ifndef PRIMA_MODEL_CHAT_H
#define PRIMA_MODEL_CHAT_H
#include "src/base/err.h"
#include <stdbool.h>
#include <stddef.h>

/* The families, by what their turns look like (S system, U user, A assistant):
 *
 *   chatml             <|im_start|>user\nU<|im_end|>\n
 *   llama3             <|start_header_id|>user<|end_header_id|>\n\nU<|eot_id|>
 *   deepseek-r1        S\n\n<|User|>U<|Assistant|>A<|end of sentence|>, with fullwidth bars and no <think>
 *   llama2             [INST] <<SYS>>\nS\n<</SYS>>\n\nU [/INST]A</s>, contents without white space around
 *                      them: Meta's own (llama2-sys-strip in llama.cpp)
 *   llama2-sys         the same with the contents as they are
 *   llama2-sys-bos     the same with <s> in front of every further [INST]
 *   llama2-nosys       no <<SYS>>: S and a line feed (llama2 in llama.cpp)
 *   mistral-v1         " [INST] S\n\nU [/INST] A</s>"
 *   mistral-v3         "[INST] S\n\nU[/INST] A</s>"
 *   mistral-v3-tekken  "[INST]S\n\nU[/INST]A</s>"
 *   mistral-v7         "[SYSTEM_PROMPT] S[/SYSTEM_PROMPT][INST] U[/INST] A</s>" */
typedef enum {
    CHAT_UNKNOWN = -1,
    CHAT_CHATML,
    CHAT_LLAMA2,
    CHAT_LLAMA3,
    CHAT_DEEPSEEK_R1,
    CHAT_MISTRAL_V1,
    CHAT_MISTRAL_V3,
    CHAT_MISTRAL_V7,
    CHAT_LLAMA2_SYS,
    CHAT_LLAMA2_SYS_BOS,
    CHAT_LLAMA2_NOSYS,
    CHAT_MISTRAL_V3_TEKKEN,
    CHAT_TEMPLATES
} chat_template;

typedef struct {
    const char *role, *content;
    size_t content_len;
} chat_message; /* role: system|user|assistant */

/* By option name, as in the list above. CHAT_UNKNOWN for any other; chat_name(CHAT_UNKNOWN) is "unknown". */
chat_template chat_by_name(const char *name);
const char *chat_name(chat_template t);
/* By the text of the model's tokenizer.chat_template (n bytes, any bytes). */
chat_template chat_detect(const char *jinja, size_t n);

/* *out is malloc'ed, NUL-terminated, *n bytes without the NUL. add_generation_prompt: end with the opening of
 * the assistant's turn (in the [INST] families [/INST] is that already). Contents may hold any bytes.
 * PR_EUSAGE for an unknown template or role; *out is untouched after an error. */
int chat_apply(chat_template t, const chat_message *msg, size_t n_msg, bool add_generation_prompt, char **out,
               size_t *n, pr_err *err);

#endif
