/* What the planner needs to know of a model, from its GGUF header: no weight is read. */
#ifndef PRIMA_MODEL_FACTS_H
#define PRIMA_MODEL_FACTS_H
#include "planner/facts.h"
#include "src/base/err.h"

/* PR_EINTEGRITY for a file that prima would not compute with, PR_ERESOURCE when it cannot be read. The name
 * is printable ASCII afterwards, whatever the file says. */
int model_facts_read(model_facts *out, const char *path, pr_err *err);

#endif
