/* Decoding steps as captured graphs: about ten launches a layer become one. What changes from step to step
 * lies in device memory, so that a graph serves every step of its key. The first step of a key is launched
 * directly (most keys that come once do not come again soon), the second one is captured.
 *
 * A capture that fails is no reason to fail: launches go on directly, and the log says so once. */
#include "kernels/cuda/place.h"
#include "src/base/log.h"

static void drop(graph_cache *c, size_t slot)
{
    if (c->exec[slot]) cudaGraphExecDestroy(c->exec[slot]);
    c->exec[slot] = NULL;
    c->seen[slot] = false;
}

void place_drop_graphs(gpu_place *g)
{
    for (size_t i = 0; i < GPU_GRAPHS; i++) drop(&g->graphs, i);
}

static cudaError_t capture(gpu_place *g, size_t first, size_t n, const step_place *s, cudaGraphExec_t *exec)
{
    cudaGraph_t graph = NULL;
    cudaError_t e = cudaStreamBeginCapture(g->stream, cudaStreamCaptureModeThreadLocal), launched;

    if (e) return e;
    launched = place_launch(g, first, n, s);
    e = cudaStreamEndCapture(g->stream, &graph); /* also after an error, or the stream captures for ever */
    if (launched) e = launched;
    if (!e) e = cudaGraphInstantiateWithFlags(exec, graph, 0);
    if (graph) cudaGraphDestroy(graph);
    return e;
}

/* The graph of this slot, made now if there is none; NULL: it could not be made. */
static cudaGraphExec_t graph_at(gpu_place *g, size_t slot, size_t first, size_t n, const step_place *s)
{
    graph_cache *c = &g->graphs;
    cudaError_t e;

    if (c->exec[slot]) return c->exec[slot];
    if (!(e = capture(g, first, n, s, &c->exec[slot]))) return c->exec[slot];
    cudaGetLastError();
    c->exec[slot] = NULL;
    c->off = true;
    log_warn("GPU %d: its work could not be captured as a graph (%s): kernels are launched one by one",
             g->gpu, cudaGetErrorName(e));
    return NULL;
}

cudaError_t place_run(gpu_place *g, size_t first, size_t n, const step_place *s)
{
    graph_cache *c = &g->graphs;
    gpu_graph_key key = {first, n, s->layout.n_tokens, s->layout.bucket};
    cudaGraphExec_t exec = NULL;
    size_t slot;
    bool is_new;

    if (!s->layout.is_decoding || c->off) return place_launch(g, first, n, s);
    slot = gpu_graph_slot(&c->table, &key, &is_new);
    if (is_new) drop(c, slot);
    if (c->seen[slot]) exec = graph_at(g, slot, first, n, s);
    c->seen[slot] = true;
    return exec ? cudaGraphLaunch(exec, g->stream) : place_launch(g, first, n, s);
}
