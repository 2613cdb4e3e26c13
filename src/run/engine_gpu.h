/* The GPUs of an engine: which layers of which window go to which, how much memory that takes, and the places
 * that are opened. Only engine.c includes it. */
#ifndef PRIMA_RUN_ENGINE_GPU_H
#define PRIMA_RUN_ENGINE_GPU_H
#include "src/run/engine.h"

/* Window i of the engine: as given, or an even share. Its layers on GPUs come first. */
layer_range engine_range(const model *m, const engine_options *o, uint32_t i);
uint32_t engine_windows(const engine_options *o);
uint32_t engine_gpu_layers(const engine_options *o, uint32_t i);

bool engine_uses_gpu(const engine_options *o);

/* Of all GPUs together. PR_EUSAGE: what no GPU can do. */
int gpu_set_need(gpu_memory *out, const model *m, const engine_options *o, pr_err *err);
/* What would be refused before anything is loaded: also no GPU, and a cap that is too low. */
int gpu_set_check(const model *m, const engine_options *o, pr_err *err);

typedef struct gpu_set gpu_set;
int gpu_set_new(gpu_set **out, const model *m, const engine_options *o, pool *p, pr_err *err);
void gpu_set_free(gpu_set *s); /* NULL is fine, here and below */
/* The parts of window i. */
const gpu_part *gpu_set_parts(const gpu_set *s, uint32_t i, size_t *n);
gpu_place *gpu_set_output(const gpu_set *s); /* NULL: not on a GPU */
float *gpu_set_hidden(const gpu_set *s);     /* gpu_hidden of one of them; NULL: no GPU */
gpu_memory gpu_set_taken(const gpu_set *s);
double gpu_set_busy_ms(const gpu_set *s);
bool gpu_set_is_lost(const gpu_set *s); /* one of them */

#endif
