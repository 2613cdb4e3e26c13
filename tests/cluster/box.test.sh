#!/bin/bash
# The box itself: links, limits, ssh, and that nothing of it stays, however it ends.
. tests/cluster/tap.sh
begin 11
box=tests/cluster/box
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
export PRIMA_BOX_MARK=$dir # in the environment of everything in our boxes, so that what is left is found

# The first device only, or its links, or its limits: what else a test wants to say.
write()
{
    printf 'schema: prima/box/1\n%s\ndevices:\n  - {name: a%s}\n  - {name: b}\n' "$1" "${2:+, $2}" >"$dir/box.yaml"
}

in_box()
{
    "$box" run "$dir/box.yaml" -- "$@"
}

# What a box has left on this machine: processes (they all have our mark), namespaces, control groups.
traces()
{
    local p
    ip netns list
    ls -d /run/box /sys/class/net/ring0 2>/dev/null
    for p in $(grep -lsz "PRIMA_BOX_MARK=$dir" /proc/[0-9]*/environ); do
        p=${p%/environ}
        tr '\0' ' ' <"$p/cmdline" 2>/dev/null | grep -E 'cluster/box|relay|sshd|prima' | sed "s|^|$p |"
    done
    [ -z "$keeper" ] || find /sys/fs/cgroup "${BUILD:-build/release}/cluster" -maxdepth 3 -name "prima-box-$keeper-*" 2>/dev/null
}

leaves_nothing()
{
    local left i
    for ((i = 0; i < 50; i++)); do
        left=$(traces | grep -v 'box\.test\.sh')
        [ -n "$left" ] || return 0
        sleep 0.1
    done
    echo "left: $left"
    return 1
}

exit_status()
{
    write ""
    in_box sh -c 'exit 7'
    [ $? -eq 7 ] && leaves_nothing
}

ssh_works()
{
    write ""
    in_box sh -c '"$PRIMA_SSH" b prima -V && "$PRIMA_SSH" b "ip -o addr show ring0" | grep -F 10.77.0.2'
}

# "RTT RATE" in these bounds. A busy machine makes a link slower and never better, so that one of several times it must
# be what it is said to be, and never better than that.
link_is()
{
    local got
    for _ in 1 2 3 4 5; do
        got=$(in_box tests/cluster/probe b 0.7) || return 1
        echo "$got (expected at least $1, at most $2 ms; at least $3, at most $4 Mbit/s)"
        awk -v a="$1" -v d="$4" '{ exit !($1 >= a && $2 <= d) }' <<<"$got" || return 1
        awk -v b="$2" -v c="$3" '{ exit !($1 <= b && $2 >= c) }' <<<"$got" && return 0
    done
    return 1
}

delay()
{
    write 'link: {delay_ms: 20}'
    link_is 40 55 1 1e6
}

rate()
{
    write 'link: {mbit_per_s: 50}'
    link_is 0 20 30 52
}

loss() # with loss and delay TCP gets only a part of what it gets without
{
    write 'link: {delay_ms: 5, loss_pct: 2}'
    link_is 10 400 0.5 200
}

memory()
{
    write "" "memory: 64MiB"
    in_box true 2>&1 | grep -F 'not limited' && return 77
    in_box python3 -c 'bytearray(96 << 20)' && return 1
    in_box python3 -c 'bytearray(32 << 20)'
}

cpu()
{
    write "" "cpus: 0.2"
    in_box true 2>&1 | grep -F 'not limited' && return 77
    in_box python3 -c '
import time
start, used = time.monotonic(), time.process_time()
while time.monotonic() < start + 1: pass
used = time.process_time() - used
print(used)
raise SystemExit(used > 0.4)'
}

disk() # 24 MB past the page cache at 8 MB/s; what the device has in its cache lies there
{
    local out
    write "" "disk_read: 8MB"
    out=$(in_box sh -c '
        dd if=/dev/zero of="$PRIMA_CACHE/x" bs=1M count=24 oflag=direct 2>/dev/null || exit 77
        start=$(date +%s%N)
        dd if="$PRIMA_CACHE/x" of=/dev/null bs=1M iflag=direct 2>/dev/null
        echo "$(($(date +%s%N) - start)) ns"' 2>&1)
    case $? in 77) echo "no direct reads here"; return 77 ;; esac
    grep -F 'not limited' <<<"$out" && return 77
    echo "$out"
    awk '/ ns$/ { exit !($1 > 2.2e9 && $1 < 30e9) }' <<<"$out" && leaves_nothing
}

refused()
{
    local out
    printf '%b' "$1" >"$dir/box.yaml"
    out=$(in_box true 2>&1) && return 1
    grep -F -- "$2" <<<"$out" || { echo "$out"; return 1; }
}

bad_files()
{
    refused 'schema: prima/box/1\ndevices:\n  - {name: a, memroy: 1GiB}\n' "unknown key 'memroy'" &&
        refused 'schema: prima/box/1\ndevices:\n  - {name: a}\n  - {name: a}\n' 'the same name' &&
        refused 'schema: prima/box/2\ndevices:\n  - {name: a}\n' 'prima/box/1 expected' &&
        refused 'schema: prima/box/1\ndevices:\n  - {name: a, cache: 8MiB, disk_read: 8MB}\n' 'cache or disk_read' &&
        refused 'schema: prima/box/1\ndevices: [\n' 'value is missing' &&
        refused 'schema: prima/box/1\nlink: {delay_ms: long}\ndevices:\n  - {name: a}\n' 'delay_ms: a number expected'
}

# Ends a box that is up with this signal.
interrupted()
{
    write "" "memory: 512MiB, disk_read: 100MB"
    "$box" up "$dir/box.yaml" 2>"$dir/up" &
    keeper=$!
    for _ in $(seq 600); do
        grep -q ready "$dir/up" && break
        sleep 0.1
    done
    grep -q ready "$dir/up" || { cat "$dir/up"; return 1; }
    kill -"$1" "$keeper"
    wait "$keeper" 2>/dev/null
}

terminated()
{
    interrupted TERM
    leaves_nothing
}

killed() # the next box removes what could not be removed then
{
    interrupted KILL
    write ""
    sleep 0.3
    in_box true
    leaves_nothing
}

ok "the command's exit status; nothing stays" exit_status
ok "ssh to a device, prima in its path" ssh_works
ok "20 ms each way" delay
ok "50 Mbit/s" rate
ok "2 % loss" loss
ok "memory is limited" memory
ok "CPU time is limited" cpu
ok "disk reads are limited" disk
ok "bad files are refused by name" bad_files
ok "SIGTERM: nothing stays" terminated
ok "SIGKILL: nothing stays" killed
