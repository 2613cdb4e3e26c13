#!/bin/bash
# The main job on the embedded model, on a ring of three devices that are all this machine, and what came of it in
# readable form; `make demo` calls it with ./prima built. The steps are those of a real cluster: a key, a profile of
# each device, the cluster's description, a plan, a run. The files stay in a temporary folder, named at the end.
set -euo pipefail
cd "$(dirname "$0")/.."
prima=${PRIMA:-./prima}
model=$PWD/datasets/demo/demo.gguf
prompts=datasets/demo-prompts.jsonl
out=$(mktemp -d "${TMPDIR:-/tmp}/prima-demo.XXXXXX")
export PRIMA_CACHE=$out/cache

show() { echo; echo "\$ $*"; "$@"; }

# Nobody answers there.
free_port() {
    local port
    while port=$((12000 + RANDOM % 20000)) && (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do :; done
    echo "$port"
}

show "$prima" keygen -o "$out/cluster.key"

# One machine, so one profile, under three names; a quick one, without fio.
mkdir "$out/profiles"
PRIMA_FIO=none show "$prima" profile -q --device desk -m "$model" --runtime 100ms -o "$out/profiles/desk.json"
for name in laptop shelf; do
    sed "s/\"device\": \"desk\"/\"device\": \"$name\"/" "$out/profiles/desk.json" >"$out/profiles/$name.json"
done

# So little memory that it takes all three. The head has the model; the others get their layers from it.
cat >"$out/cluster.yaml" <<END
schema: prima/cluster/1
cluster: demo
security: {mode: psk, key_file: $out/cluster.key}
devices:
  - {name: desk, host: 127.0.0.1, port: $(free_port), ram: 19MiB, threads: 2, model: $model}
  - {name: laptop, host: 127.0.0.1, port: $(free_port), ram: 19MiB, threads: 2}
  - {name: shelf, host: 127.0.0.1, port: $(free_port), ram: 19MiB, threads: 2}
links:
  - {from: desk, to: laptop, mbit_per_s: 10000, rtt_ms: 0.05}
  - {from: laptop, to: shelf, mbit_per_s: 10000, rtt_ms: 0.05}
  - {from: shelf, to: desk, mbit_per_s: 10000, rtt_ms: 0.05}
END
echo
sed 's/^/  /' "$out/cluster.yaml"
show "$prima" plan "$out/cluster.yaml" -m "$model" --ctx 512 --slots 32 -o "$out/plan.yaml"
show "$prima" inspect "$out/plan.yaml"

# Show first, then fail: after a partial success (exit status 3) there are texts to show.
status=0
show "$prima" run "$out/plan.yaml" "$prompts" -o "$out/completions.jsonl" --timings "$out/timings.csv" || status=$?
[ -s "$out/completions.jsonl" ] || exit "$status"

# Prompt and answer of each line, joined by id. Only as much JSON as our own files need: the last string
# that belongs to a key.
awk '
function string(line, key,    rest, found, s) {
    rest = line
    found = ""
    while (match(rest, "\"" key "\" *: *\"([^\"\\\\]|\\\\.)*\"")) {
        s = substr(rest, RSTART, RLENGTH)
        sub("^\"" key "\" *: *\"", "", s)
        found = substr(s, 1, length(s) - 1)
        rest = substr(rest, RSTART + RLENGTH)
    }
    gsub(/\\\\/, "\001", found)
    gsub(/\\n/, "\n", found)
    gsub(/\\t/, "\t", found)
    gsub(/\\"/, "\"", found)
    gsub(/\\\//, "/", found)
    gsub(/\001/, "\\", found)
    return found
}
function show(name, text,    n, lines, i, words, n_words, j, line) {
    n = split(text, lines, "\n")
    for (i = 1; i <= n; i++) {
        line = i == 1 ? sprintf("  %-7s", name) : "         "
        n_words = split(lines[i], words, " ")
        for (j = 1; j <= n_words; j++) {
            if (length(line) + length(words[j]) > 96) { print line; line = "         " }
            line = line " " words[j]
        }
        print line
    }
}
function id_of(line, n,    id) {
    id = string(line, "custom_id")
    if (id == "") id = string(line, "id")
    return id == "" ? "line-" n : id
}
NF == 0 { next }
NR == FNR {
    id = id_of($0, FNR)
    prompt[id] = string($0, "prompt")
    if (prompt[id] == "") prompt[id] = string($0, "content")
    next
}
{
    id = id_of($0, FNR)
    answer = string($0, $0 ~ /"text":/ ? "text" : "content")
    if ($0 !~ /"error":null/) answer = "(error) " string($0, "message")
    print "\n" id
    show("prompt", prompt[id])
    show("answer", answer)
}' "$prompts" "$out/completions.jsonl"

# Columns by their names in the header.
echo
awk -F, '
NR == 1 { for (i = 1; i <= NF; i++) at[$i] = i; next }
NR == 2 { printf "%-24s %7s %8s %10s %10s %10s %10s\n", "id", "prompt", "answer", "first", "a token", "in all", "tokens/s"
          printf "%-24s %7s %8s %10s %10s %10s %10s\n", "", "tokens", "tokens", "ms", "ms", "ms", "" }
{ printf "%-24s %7s %8s %10s %10s %10s %10s\n", $at["custom_id"], $at["prompt_tokens"], $at["completion_tokens"],
      $at["ttft_ms"], $at["tpot_ms"], $at["e2e_ms"], $at["decode_tps"] }' "$out/timings.csv"
if [ -s "$out/timings.run.csv" ]; then
    awk -F, '
    NR == 1 { for (i = 1; i <= NF; i++) at[$i] = i; next }
    { printf "\n%s requests, %s answer tokens in %s s: %s tokens/s (loading took %s s)\n", $at["requests_ok"],
          $at["completion_tokens"], $at["wall_s"], $at["output_tps"], $at["load_s"] }' "$out/timings.run.csv"
fi
if [ -s "$out/timings.devices.csv" ]; then
    awk -F, '
    NR == 1 { for (i = 1; i <= NF; i++) at[$i] = i; next }
    { name = $at["device"]; if (!(name in n)) order[++devices] = name
      n[name]++; compute[name] += $at["compute_cpu_ms"]; recv[name] += $at["recv_wait_ms"]
      tx[name] += $at["net_tx_bytes"]; passes[name] += $at["passes"] }
    END { printf "\n%-10s %8s %12s %12s %12s\n", "device", "windows", "compute ms", "waiting ms", "sent KiB"
          for (i = 1; i <= devices; i++) { d = order[i]
              printf "%-10s %8d %12.1f %12.1f %12.1f\n", d, passes[d], compute[d], recv[d], tx[d] / 1024 } }
    ' "$out/timings.devices.csv"
fi
echo
echo "The files: $(ls "$out" | tr '\n' ' ')in $out"
exit "$status"
