/* The GPUs of this machine, for a profile. Never an error: what cannot be measured stays 0, with a warning,
 * and a profile without GPUs is right for a machine without them. */
#ifndef PRIMA_PROBE_GPU_H
#define PRIMA_PROBE_GPU_H
#include "planner/profile.h"
#include "src/model/hparams.h"

/* gpu[] and n_gpus: names and sizes; nothing is timed. gpu[i] is the GPU that nvidia-smi calls i (kernels/
 * cuda/device.h), as in cluster.yaml. Logs why there is none. */
void probe_gpu_list(profile *p);

/* The rates of the GPUs in the list, each the median of 7: reading device memory, copies of pinned memory,
 * and how long a copy of 4 KiB takes. About two seconds a GPU. */
void probe_gpu_rates(profile *p);

/* compute[] of each GPU and weight type: layers of the model's shape (NULL: of a usual one) as a run computes
 * them, for 1 .. 512 tokens; about two seconds a type. */
void probe_gpu_layers(profile *p, const hparams *hp, int n_threads);

#endif
