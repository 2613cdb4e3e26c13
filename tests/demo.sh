#!/bin/bash
# The main job on the embedded model, and what came of it in readable form; `make demo` calls it with ./prima built.
# The files stay in a temporary folder, named at the end, to be opened with other tools.
set -euo pipefail
cd "$(dirname "$0")/.."
prima=${PRIMA:-./prima}
model=datasets/demo/demo.gguf
prompts=datasets/demo-prompts.jsonl
out=$(mktemp -d "${TMPDIR:-/tmp}/prima-demo.XXXXXX")

# Show first, then fail: after a partial success (exit status 3) there are texts to show.
status=0
command=("$prima" run "$model" "$prompts" -o "$out/completions.jsonl" --timings "$out/timings.csv")
echo "\$ ${command[*]}"
"${command[@]}" || status=$?
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
echo
echo "The files: $(ls "$out" | tr '\n' ' ')in $out"
exit "$status"
