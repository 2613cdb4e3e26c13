/* Synthetic models: random weights in real shapes, for measuring speed without downloading anything. */
#ifndef PRIMA_SYNTH_H
#define PRIMA_SYNTH_H
#include "src/base/err.h"

/* Write the GGUF of spec "SHAPE:TYPES" to path, e.g. "llama-1.1b:q4_k_m". Shapes and types: synth_help.
 * PR_EUSAGE for an unknown spec, PR_ERESOURCE when it cannot be written. The same spec always gives the same
 * bytes. */
int synth_write(const char *spec, const char *path, pr_err *err);
extern const char *const synth_help;

#endif
