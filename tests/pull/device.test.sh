#!/bin/bash
# `prima pull --plan plan.yaml --device NAME`: what one device of a plan needs of a model and no more, in a file that the
# ring runs with, and that nobody takes for the whole model.
. tests/pull/lib.sh
echo "1..9"
demo=datasets/demo/demo.gguf

# www/model.gguf, and a plan of it for three devices that are this machine, whose files are got/NAME/model.gguf. Without a
# word: 12 layers of 3 MB, so that a third of the file is much less than the file. "demo": the demo model, which can answer.
plan_for_three() # [demo]
{
    local name port=$((12000 + RANDOM % 20000)) ram=20MiB shape="--ctx 64 --slots 1"
    mkdir -p "$here/profiles" || return 1
    if [ "${1:-}" = demo ]; then
        cp "$demo" "$here/www/model.gguf" && ram=19MiB shape="--ctx 512 --slots 32"
    else
        origin model.gguf 0 --layers 12
    fi
    echo $'schema: prima/cluster/1\ncluster: test\nsecurity: {mode: none}\ndevices:' >"$here/cluster.yaml"
    for name in desk laptop shelf; do
        sed "s/\"device\": \"[^\"]*\"/\"device\": \"$name\"/" datasets/clusters/paper-home/d2-laptop.json \
            >"$here/profiles/$name.json"
        printf '  - {name: %s, host: 127.0.0.1, port: %d, ram: %s, threads: 1, model: %s}\n' \
            $name $((port++)) $ram "$here/got/$name/model.gguf" >>"$here/cluster.yaml"
    done
    "$PRIMA" plan "$here/cluster.yaml" -m "$here/www/model.gguf" --profiles "$here/profiles" $shape -o "$here/plan.yaml" \
        2>"$here/err"
}
device() # NAME
{
    mkdir -p "$here/got/$1"
    status=0
    timeout 30 "$PRIMA" pull --plan "$here/plan.yaml" --device "$1" -o "$here/got/$1" "http://$main/model.gguf" \
        >"$here/out" 2>"$here/err" || status=$?
    settled
}
some_prompts()
{
    head -n 6 datasets/demo-prompts.jsonl >"$here/prompts.jsonl"
}

less_than_all()
{
    local all
    plan_for_three && serve && device laptop && exits 0 || return 1
    all=$(size_of "$here/www/model.gguf")
    [ "$(served model.gguf)" -lt $((all * 6 / 10)) ] && [ "$(size_of "$here/got/laptop/model.gguf")" -eq "$all" ] &&
        [ $(($(stat -c %b "$here/got/laptop/model.gguf") * 512)) -lt $((all * 7 / 10)) ] &&
        [ ! -e "$here/got/laptop/model.gguf.part" ]
}
# What a ring of three shards answers is what the whole model answers.
runs()
{
    local name
    plan_for_three demo && serve && some_prompts || return 1
    for name in desk laptop shelf; do device $name && exits 0 || return 1; done
    (cd "$here" && timeout 60 "$PRIMA" run plan.yaml prompts.jsonl --ordered -o ring.jsonl 2>err) || return 1
    timeout 60 "$PRIMA" run "$demo" "$here/prompts.jsonl" --ordered -o "$here/whole.jsonl" --ctx 512 2>>"$here/err" ||
        return 1
    texts "$here/ring.jsonl" >"$here/1" && texts "$here/whole.jsonl" >"$here/2" && [ "$(wc -l <"$here/1")" -eq 6 ] &&
        cmp "$here/1" "$here/2"
}
texts()
{
    python3 -c 'import json, sys
for line in open(sys.argv[1]):
    r = json.loads(line)
    answer = r.get("response") and r["response"]["body"]["choices"]
    print(json.dumps([r.get("id"), r.get("text"), r.get("finish_reason"), answer]))' "$1"
}
# The missing tensors are holes, full of zeros: no one may compute with them.
not_the_whole()
{
    plan_for_three demo && serve && some_prompts && device laptop && exits 0 || return 1
    status=0
    "$PRIMA" run "$here/got/laptop/model.gguf" "$here/prompts.jsonl" -o "$here/x.jsonl" 2>"$here/err" || status=$?
    [[ $status =~ ^(5|8)$ ]] && says 'laptop|device|shard|tensor' && [ ! -s "$here/x.jsonl" ] || return 1
    status=0
    "$PRIMA" eval perplexity "$here/got/laptop/model.gguf" README.md >"$here/out" 2>"$here/err" || status=$?
    [[ $status =~ ^(5|8)$ ]] || { echo "eval: $status"; false; }
}
inspected()
{
    plan_for_three && serve && device laptop && exits 0 &&
        "$PRIMA" inspect "$here/got/laptop/model.gguf" >"$here/out" 2>"$here/err" &&
        grep -qiE 'laptop|shard|not here|missing|part of' "$here/out"
}
other_device() # a shard of one device is not one of another
{
    plan_for_three && serve && device laptop && exits 0 || return 1
    mkdir "$here/got/shelf" && cp "$here"/got/laptop/* "$here/got/shelf/" && device shelf && exits 5 && says model.gguf
}
no_such_device()
{
    plan_for_three && serve && device attic && [[ $status =~ ^(2|5)$ ]] && says attic laptop &&
        [ "$(served model.gguf)" -eq 0 ]
}
other_model() # the plan is for another one: known from its header alone
{
    plan_for_three && tests/pull/make_gguf "$here/www/model.gguf" 3000000 && serve && device laptop && exits 5 &&
        says plan && [ "$(served model.gguf)" -lt 1500000 ] && [ ! -e "$here/got/laptop/model.gguf" ]
}
resumed()
{
    plan_for_three && serve && mkdir "$here/got/laptop" && rules <<<"GET * rate=500000" || return 1
    "$PRIMA" pull --plan "$here/plan.yaml" --device laptop --jobs 1 -o "$here/got/laptop" "http://$main/model.gguf" \
        2>"$here/err" &
    pid=$!
    started+=" $pid"
    under_way laptop/model.gguf && kill -s INT "$pid" && pull_end && exits 130 &&
        [ ! -e "$here/got/laptop/model.gguf" ] || return 1
    rules </dev/null && device laptop && exits 0 &&
        [ "$(served model.gguf)" -lt $(($(size_of "$here/www/model.gguf") * 8 / 10)) ] || return 1
    mkdir "$here/again" && mv "$here/got/laptop" "$here/again" && device laptop &&
        cmp "$here/got/laptop/model.gguf" "$here/again/laptop/model.gguf"
}
verified()
{
    plan_for_three && serve && device laptop && exits 0 &&
        "$PRIMA" pull --verify "$here/got/laptop/model.gguf" 2>"$here/err" || return 1
    printf XXXX | dd of="$here/got/laptop/model.gguf" bs=1 seek=100 conv=notrunc status=none
    status=0
    "$PRIMA" pull --verify "$here/got/laptop/model.gguf" 2>"$here/err" || status=$?
    exits 8
}

t "less than the whole is fetched" less_than_all
t "a ring of three such files answers like the whole model" runs
t "nobody takes it for the whole model" not_the_whole
t "inspect says what it is" inspected
t "another device's file is not overwritten" other_device
t "a device that is not in the plan" no_such_device
t "another model than the plan's" other_model
t "interrupted, then the rest" resumed
t "--verify" verified
