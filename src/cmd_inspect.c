/* prima inspect: what a model file is, from its header alone: shape, types and how they run here, memory.
 *
 * Facts are gathered once and then written twice over, as a page for people or as one JSON object with the
 * same content. */
#include "kernels/cuda.h"
#include "kernels/cuda/device.h"
#include "planner/explain.h"
#include "src/base/json.h"
#include "src/cmd.h"
#include "src/inspect_pack.h"
#include "src/inspect_profile.h"
#include "src/inspect_shard.h"
#include "src/options.h"
#include "src/run/engine.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    TEXT_BYTES = 100,
    MICRO_BATCH = 256
}; /* of a value in the listing; as `prima run` has it by default */

typedef struct {
    bool json, verbose;
    size_t ctx, slots;
    const char *path;
} inspect_options;

typedef struct {
    size_t count;
    uint64_t bytes;
} type_use;

typedef struct {
    model m;
    shard_facts shard;
    kernel_table k;
    type_use use[Q_TYPE_COUNT];
    uint64_t n_params, tensor_bytes;
    engine_memory need; /* what `prima run` would take with n_ctx and slots */
    size_t n_ctx, slots;
} facts;

static int parse(inspect_options *o, int argc, char **argv, pr_err *err)
{
    const opt table[] = {
        {"json", 0, OPT_FLAG, &o->json, NULL, 0, 0, "one JSON object"},
        {"verbose", 'v', OPT_FLAG, &o->verbose, NULL, 0, 0, "also every metadata key and every tensor"},
        {"ctx", 0, OPT_COUNT, &o->ctx, "N", 0, 1 << 24,
         "tokens of a sequence, for the memory needed (the model's, at most 4096)"},
        {"slots", 0, OPT_COUNT, &o->slots, "N", 1, 1024,
         "sequences that decode together, for the memory needed (1)"},
        {0}};
    const opt_spec spec = {
        "MODEL.gguf | PLAN.yaml | PROFILE.json | PACK [options]",
        "Says what a model file is, by its header and which tensors are there, or shows a plan, a profile "
        "or a\n"
        "folder of packed layers. A split model is named by any of its parts.",
        table, 1, 1};
    int first, rc = options_parse(&spec, argc, argv, &first, err);

    if (!rc) o->path = argv[first];
    return rc;
}

/* --- facts ------------------------------------------------------------------------------------ */

static void count_tensors(facts *f)
{
    for (size_t i = 0; i < gguf_n_tensors(f->m.g); i++) {
        const gguf_tensor *t = gguf_tensor_at(f->m.g, i);

        f->use[t->type].count++;
        f->use[t->type].bytes += t->n_bytes;
        f->tensor_bytes += t->n_bytes;
        f->n_params += t->ne[0] * t->ne[1] * t->ne[2] * t->ne[3];
    }
}

static void count_memory(facts *f, const inspect_options *o)
{
    engine_options eo = {.kv = KV_F16, .max_tokens = MICRO_BATCH, .max_out = o->slots, .n_windows = 1};

    f->n_ctx = o->ctx ? o->ctx : f->m.hp.n_ctx_train < 4096 ? f->m.hp.n_ctx_train : 4096;
    f->slots = o->slots;
    eo.n_pages = o->slots * ((f->n_ctx + KV_PAGE - 1) / KV_PAGE);
    f->need = engine_need(&f->m, &eo);
}

/* 0: the head size does not allow the type. */
static uint64_t kv_token_bytes(const facts *f, kv_type t)
{
    return kv_page_need_bytes(&f->m.hp, t, f->m.hp.n_layers) / KV_PAGE;
}

static const char *chat_text(const facts *f)
{
    if (!f->m.has_chat_template) return "none";
    return f->m.chat == CHAT_UNKNOWN ? "unknown" : chat_name(f->m.chat);
}

static double share_pct(const facts *f, uint32_t type)
{
    return f->tensor_bytes ? 100.0 * (double)f->use[type].bytes / (double)f->tensor_bytes : 0;
}

static double bits_per_weight(const facts *f)
{
    return f->n_params ? 8.0 * (double)f->tensor_bytes / (double)f->n_params : 0;
}

/* --- a page for people -------------------------------------------------------------------------- */

static const char *size_text(char out[24], uint64_t bytes)
{
    if (bytes >= 1u << 30) snprintf(out, 24, "%.2f GiB", (double)bytes / 0x1p30);
    else if (bytes >= 1u << 20) snprintf(out, 24, "%.2f MiB", (double)bytes / 0x1p20);
    else snprintf(out, 24, "%.1f KiB", (double)bytes / 0x1p10);
    return out;
}

static const char *count_text(char out[24], uint64_t n)
{
    if (n >= 1000000000u) snprintf(out, 24, "%.2f billion", (double)n / 1e9);
    else if (n >= 1000000u) snprintf(out, 24, "%.2f million", (double)n / 1e6);
    else snprintf(out, 24, "%" PRIu64, n);
    return out;
}

static void print_label(const char *label)
{
    printf("%-16s", label);
}

static void print_file(const facts *f)
{
    const gguf *g = f->m.g;
    char size[24], *path;

    for (size_t i = 0; i < gguf_n_parts(g); i++) {
        path = gguf_text((gguf_str){gguf_part_path(g, i), strlen(gguf_part_path(g, i))}, SIZE_MAX);
        print_label(i ? "" : "file");
        printf("%s\n", path ? path : "?");
        free(path);
    }
    print_label("");
    printf("GGUF v%" PRIu32 ", %" PRIu64 " bytes (%s), header %.16s...\n", gguf_version(g),
           gguf_file_bytes(g), size_text(size, gguf_file_bytes(g)), f->m.header_sha256);
    shard_facts_print(&f->shard);
}

static void print_layer_bytes(const hparams *hp)
{
    uint64_t least = UINT64_MAX, most = 0;
    char a[24], b[24];

    for (uint32_t il = 0; il < hp->n_layers; il++) {
        uint64_t n = hparams_layer_bytes(hp, il, il + 1);
        if (n < least) least = n;
        if (n > most) most = n;
    }
    printf("%" PRIu32 " of %s", hp->n_layers, size_text(a, least));
    if (most > least) printf(" to %s", size_text(b, most));
    printf(", before and after them %s\n", size_text(a, hparams_output_bytes(hp)));
}

static void print_shape(const facts *f)
{
    const hparams *hp = &f->m.hp;
    char count[24];

    print_label("name");
    printf("%s\n", hp->name);
    print_label("architecture");
    printf("%s, %s parameters, %s (%.2f bits each)\n", model_arch_name(hp->arch),
           count_text(count, f->n_params), hp->quant, bits_per_weight(f));
    print_label("layers");
    print_layer_bytes(hp);
    print_label("shape");
    printf("embedding %" PRIu32 ", %" PRIu32 " heads of %" PRIu32 ", %" PRIu32
           " key/value heads, feed-forward %" PRIu32 "%s\n",
           hp->n_embd, hp->n_heads, hp->head_size, hp->n_kv_heads, hp->n_ff,
           hp->output == hp->token_embd ? ", output tied to the embedding" : "");
    print_label("context");
    printf("%" PRIu32 " tokens\n", hp->n_ctx_train);
    print_label("rotation");
    printf("%" PRIu32 " values of a head, base %g", hp->n_rot, (double)hp->rope_base);
    if (strcmp(hp->rope_scaling, "none") != 0)
        printf(", %s scaling by %g", hp->rope_scaling, (double)hp->rope_factor);
    printf("%s\n", hp->rope_divided ? ", frequencies divided by rope_freqs.weight" : "");
}

static void print_token(const vocab *v, const char *what, int32_t id, const char *note)
{
    char *text;

    if (id < 0) return;
    text = gguf_text(vocab_text(v, id), TEXT_BYTES);
    printf(", %s %" PRId32 " %s%s", what, id, text ? text : "?", note);
    free(text);
}

static void print_vocab(const facts *f)
{
    const vocab *v = f->m.vocab;

    print_label("tokenizer");
    printf("%s, %" PRIu32 " tokens", vocab_describe(v), vocab_size(v));
    print_token(v, "begin", vocab_bos(v), vocab_add_bos(v) ? " (added)" : "");
    print_token(v, "end", vocab_eos(v), vocab_add_eos(v) ? " (added)" : "");
    printf("\n");
    print_label("chat template");
    printf("%s\n", chat_text(f));
}

/* The GPU's only in a build with code for it. */
static void print_paths(const char *cpu, const char *gpu)
{
    if (gpu_is_built()) printf("   %-22s%s\n", cpu, gpu);
    else printf("   %s\n", cpu);
}

static void print_types(const facts *f)
{
    char size[24];

    printf("\n%-16s%8s%14s%9s", "tensor type", "count", "size", "share");
    print_paths("runs on this CPU as", "on a GPU as");
    for (uint32_t t = 0; t < Q_TYPE_COUNT; t++) {
        if (!f->use[t].count) continue;
        printf("%-16s%8zu%14s%8.2f%%", quant_info(t)->name, f->use[t].count, size_text(size, f->use[t].bytes),
               share_pct(f, t));
        print_paths(f->k.matmul_path[t], gpu_matmul_path(t));
    }
}

static void print_memory(const facts *f)
{
    char size[24];

    printf("\n");
    for (kv_type t = KV_F16; t <= KV_F32; t++) {
        print_label(t == KV_F16 ? "KV cache" : "");
        if (kv_token_bytes(f, t))
            printf("%-5s %" PRIu64 " bytes a token\n", kv_type_name(t), kv_token_bytes(f, t));
        else printf("%-5s not with heads of %" PRIu32 " values\n", kv_type_name(t), f->m.hp.head_size);
    }
    print_label("memory needed");
    printf("%s", size_text(size, f->need.total));
    printf(" to run with --ctx %zu --slots %zu: weights %s", f->n_ctx, f->slots,
           size_text(size, f->need.weights));
    printf(", KV cache %s", size_text(size, f->need.kv));
    printf(" (f16), buffers %s\n", size_text(size, f->need.buffers));
}

static void print_listing(const facts *f)
{
    const gguf *g = f->m.g;
    char *key, *value;

    printf("\n%zu metadata keys\n", gguf_n_kv(g));
    for (size_t i = 0; i < gguf_n_kv(g); i++) {
        key = gguf_text(gguf_kv_key(g, i), SIZE_MAX);
        value = gguf_kv_text(g, i, TEXT_BYTES);
        printf("  %-44s %-7s %s\n", key ? key : "?", gguf_value_type_name(gguf_kv_type(g, i)),
               value ? value : "?");
        free(key);
        free(value);
    }
    printf("\n%zu tensors: type, size in bytes, offset in the file%s, shape (row length first)\n",
           gguf_n_tensors(g), gguf_n_parts(g) > 1 ? " and part" : "");
    for (size_t i = 0; i < gguf_n_tensors(g); i++) {
        const gguf_tensor *t = gguf_tensor_at(g, i);

        key = gguf_text((gguf_str){t->name, strlen(t->name)}, SIZE_MAX);
        printf("  %-32s %-8s %12" PRIu64 " %14" PRIu64, key ? key : "?", quant_info(t->type)->name,
               t->n_bytes, t->file_offset);
        if (gguf_n_parts(g) > 1) printf(" %5" PRIu32, t->part + 1);
        for (uint32_t d = 0; d < t->n_dims; d++) printf("%s%" PRIu64, d ? " x " : "  ", t->ne[d]);
        printf("%s\n", f->shard.there[i] ? "" : "  not here");
        free(key);
    }
}

static void print_page(const facts *f, bool listing)
{
    print_file(f);
    print_shape(f);
    print_vocab(f);
    print_types(f);
    print_memory(f);
    if (listing) print_listing(f);
}

/* --- one JSON object ---------------------------------------------------------------------------- */

static json_t *text_json(gguf_str s, size_t max_len)
{
    char *text = gguf_text(s, max_len);
    json_t *v = json_string(text ? text : "");

    free(text);
    return v;
}

static json_t *cstr_json(const char *s)
{
    return text_json((gguf_str){s, strlen(s)}, SIZE_MAX);
}

static json_t *size_json(uint64_t n)
{
    return json_integer((json_int_t)n);
}

static json_t *token_json(const vocab *v, int32_t id)
{
    return id < 0 ? json_null()
                  : json_pack("{s:i, s:o}", "id", (int)id, "text", text_json(vocab_text(v, id), SIZE_MAX));
}

static json_t *file_json(const facts *f)
{
    json_t *parts = json_array();

    for (size_t i = 0; i < gguf_n_parts(f->m.g); i++)
        json_array_append_new(parts, cstr_json(gguf_part_path(f->m.g, i)));
    return json_pack("{s:s, s:i, s:o, s:o, s:s}", "format", "gguf", "version", (int)gguf_version(f->m.g),
                     "parts", parts, "file_bytes", size_json(gguf_file_bytes(f->m.g)), "header_sha256",
                     f->m.header_sha256);
}

static json_t *shape_json(const facts *f)
{
    const hparams *hp = &f->m.hp;

    return json_pack("{s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:b}", "layers", (int)hp->n_layers,
                     "embedding", (int)hp->n_embd, "heads", (int)hp->n_heads, "kv_heads", (int)hp->n_kv_heads,
                     "head_size", (int)hp->head_size, "feed_forward", (int)hp->n_ff, "vocab",
                     (int)hp->n_vocab, "context", (int)hp->n_ctx_train, "tied_output",
                     hp->output == hp->token_embd);
}

static json_t *rope_json(const hparams *hp)
{
    return json_pack("{s:i, s:f, s:s, s:f, s:b}", "dims", (int)hp->n_rot, "base", (double)hp->rope_base,
                     "scaling", hp->rope_scaling, "factor", (double)hp->rope_factor, "rope_freqs",
                     (int)hp->rope_divided);
}

static json_t *tokenizer_json(const vocab *v)
{
    return json_pack("{s:s, s:i, s:o, s:o, s:b, s:b}", "kind", vocab_describe(v), "tokens",
                     (int)vocab_size(v), "bos", token_json(v, vocab_bos(v)), "eos",
                     token_json(v, vocab_eos(v)), "add_bos", (int)vocab_add_bos(v), "add_eos",
                     (int)vocab_add_eos(v));
}

/* runs_on_gpu_as: only in a build with code for GPUs. */
static json_t *types_json(const facts *f)
{
    json_t *list = json_array();

    for (uint32_t t = 0; t < Q_TYPE_COUNT; t++) {
        json_t *type;
        if (!f->use[t].count) continue;
        type = json_pack("{s:s, s:i, s:o, s:o, s:s}", "type", quant_info(t)->name, "count",
                         (int)f->use[t].count, "bytes", size_json(f->use[t].bytes), "share_pct",
                         json_fixed(share_pct(f, t), 3), "runs_as", f->k.matmul_path[t]);
        if (gpu_is_built()) json_object_set_new(type, "runs_on_gpu_as", json_string(gpu_matmul_path(t)));
        json_array_append_new(list, type);
    }
    return list;
}

static json_t *layer_bytes_json(const hparams *hp)
{
    json_t *list = json_array();

    for (uint32_t il = 0; il < hp->n_layers; il++)
        json_array_append_new(list, size_json(hparams_layer_bytes(hp, il, il + 1)));
    return list;
}

static json_t *kv_json(const facts *f)
{
    json_t *o = json_object();

    for (kv_type t = KV_F16; t <= KV_F32; t++)
        json_object_set_new(o, kv_type_name(t),
                            kv_token_bytes(f, t) ? size_json(kv_token_bytes(f, t)) : json_null());
    return o;
}

static json_t *memory_json(const facts *f)
{
    return json_pack("{s:o, s:o, s:o, s:o, s:o, s:o}", "ctx", size_json(f->n_ctx), "slots",
                     size_json(f->slots), "weights_bytes", size_json(f->need.weights), "kv_bytes",
                     size_json(f->need.kv), "buffer_bytes", size_json(f->need.buffers), "total_bytes",
                     size_json(f->need.total));
}

static json_t *metadata_json(const gguf *g)
{
    json_t *list = json_array();

    for (size_t i = 0; i < gguf_n_kv(g); i++) {
        char *value = gguf_kv_text(g, i, TEXT_BYTES);

        json_array_append_new(
            list, json_pack("{s:o, s:s, s:s}", "key", text_json(gguf_kv_key(g, i), SIZE_MAX), "type",
                            gguf_value_type_name(gguf_kv_type(g, i)), "text", value ? value : ""));
        free(value);
    }
    return list;
}

static json_t *tensors_json(const facts *f)
{
    const gguf *g = f->m.g;
    json_t *list = json_array();

    for (size_t i = 0; i < gguf_n_tensors(g); i++) {
        const gguf_tensor *t = gguf_tensor_at(g, i);
        json_t *shape = json_array();

        for (uint32_t d = 0; d < t->n_dims; d++) json_array_append_new(shape, size_json(t->ne[d]));
        json_array_append_new(list,
                              json_pack("{s:o, s:s, s:o, s:o, s:o, s:i, s:b}", "name", cstr_json(t->name),
                                        "type", quant_info(t->type)->name, "shape", shape, "bytes",
                                        size_json(t->n_bytes), "file_offset", size_json(t->file_offset),
                                        "part", (int)t->part + 1, "there", f->shard.there[i]));
    }
    return list;
}

static int print_json(const facts *f, bool listing, pr_err *err)
{
    json_t *o = json_pack(
        "{s:s, s:o, s:o, s:o, s:s, s:s, s:o, s:o, s:o, s:o, s:o, s:s, s:s, s:o, s:o, s:o, s:o, s:o}",
        "schema", "prima/inspect/1", "file", file_json(f), "shard", shard_facts_json(&f->shard), "name",
        cstr_json(f->m.hp.name), "arch", model_arch_name(f->m.hp.arch), "quant", f->m.hp.quant, "parameters",
        size_json(f->n_params), "bits_per_weight", json_fixed(bits_per_weight(f), 3), "shape", shape_json(f),
        "rope", rope_json(&f->m.hp), "tokenizer", tokenizer_json(f->m.vocab), "chat_template", chat_text(f),
        "isa", f->k.isa, "tensor_types", types_json(f), "layer_bytes", layer_bytes_json(&f->m.hp),
        "output_bytes", size_json(hparams_output_bytes(&f->m.hp)), "kv_bytes_per_token", kv_json(f), "memory",
        memory_json(f));
    char *line;

    if (o && listing) {
        json_object_set_new(o, "metadata", metadata_json(f->m.g));
        json_object_set_new(o, "tensors", tensors_json(f));
    }
    line = o ? json_line(o) : NULL;
    json_decref(o);
    if (!line) return pr_fail(err, PR_ERESOURCE, "out of memory");
    printf("%s\n", line);
    free(line);
    return PR_OK;
}

/* --- the command -------------------------------------------------------------------------------- */

/* A plan is text and says what it is in its first line. */
static bool is_plan(const char *path)
{
    char start[32] = "";
    FILE *f = fopen(path, "r");
    size_t n = f ? fread(start, 1, sizeof start - 1, f) : 0;

    if (f) fclose(f);
    return n && strncmp(start, "schema: prima/plan/", 19) == 0;
}

static int inspect_plan(const inspect_options *o, pr_err *err)
{
    plan *p;
    int rc;

    if (o->json) return pr_fail(err, PR_EUSAGE, "--json is for models: a plan is YAML already");
    if ((rc = plan_read(&p, o->path, err))) return rc;
    explain_plan(p, stdout);
    plan_free(p);
    return PR_OK;
}

int cmd_inspect(int argc, char **argv, pr_err *err)
{
    inspect_options o = {.slots = 1};
    facts f = {0};
    int rc = parse(&o, argc, argv, err);

    if (rc) return rc == OPTIONS_HELP ? PR_OK : rc;
    if (is_plan(o.path)) return inspect_plan(&o, err);
    if (inspect_is_profile(o.path))
        return o.json ? pr_fail(err, PR_EUSAGE, "--json is for models: a profile is JSON already")
                      : inspect_profile(o.path, err);
    if (inspect_is_pack(o.path)) return inspect_pack(o.path, o.json, err);
    if ((rc = model_open(&f.m, o.path, err))) return rc;
    kernels_init(&f.k, cpu_features());
    count_tensors(&f);
    count_memory(&f, &o);
    if (!(rc = shard_facts_read(&f.shard, f.m.g, err))) {
        if (o.json) rc = print_json(&f, o.verbose, err);
        else print_page(&f, o.verbose);
    }
    shard_facts_clear(&f.shard);
    model_close(&f.m);
    if (!rc && fflush(stdout)) rc = pr_fail_errno(err, PR_ERESOURCE, "writing to standard output");
    return rc;
}
