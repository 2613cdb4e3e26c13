#!/bin/bash
# The demo model in a ring of two devices that read most of it anew for every token, from slow disks. Their memory is
# the least that a plan may give, and nearly all of it is taken by the KV cache: the model is that small.
. tests/cluster/tap.sh
begin 2
box=$(mktemp)
trap 'rm -f "$box"' EXIT
cat >"$box" <<END
schema: prima/box/1
box: streaming
timeouts: {connect: 20s, heartbeat: 1s, peer: 5s}
devices:
  - {name: desk, ram: 17700KiB, disk_read: 3MB}
  - {name: laptop, ram: 16384KiB, disk_read: 3MB, model: "$PWD/datasets/demo/demo.gguf"}
END

streaming()
{
    local out status
    out=$(timeout -k 5 280 tests/cluster/box run "$box" -- tests/cluster/streaming --layers 4,4 --slots 28 --ctx 448 \
        --tokens 10 "$@" 2>&1)
    status=$?
    echo "$out"
    grep -F 'not limited' <<<"$out" && return 77
    return $status
}

ok "1, 2 and 4 rounds: the bytes of one device, and the reading that the plan says" streaming --sequences 2
ok "a worker is killed five times while it packs and reads: the same bytes" streaming --rounds 2 --kill 5 --tokens 24
