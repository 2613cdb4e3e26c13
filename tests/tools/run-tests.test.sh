#!/bin/bash
# tests/run-tests on programs that pass, fail, crash, hang or say nothing.
set -uo pipefail
root=$PWD
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
n=0 failed=0

program() # NAME BODY
{
    printf '#!/bin/bash\n%s\n' "$2" >"$dir/$1"
    chmod +x "$dir/$1"
}
# Runs programs and compares the last line and the exit status.
expect() # WHAT LAST_LINE STATUS PROGRAM...
{
    local what=$1 last=$2 wanted=$3 status=0
    shift 3
    n=$((n + 1))
    (cd "$dir" && TEST_TIMEOUT_S=2 "$root/tests/run-tests" "$@" >out 2>&1) || status=$?
    if [ "$(tail -n 1 "$dir/out")" = "$last" ] && [ $status -eq "$wanted" ]; then
        echo "ok $n - $what"
    else
        echo "not ok $n - $what"
        sed 's/^/  | /' "$dir/out"
        failed=1
    fi
}
shows()
{
    n=$((n + 1))
    if grep -q "$1" "$dir/out"; then echo "ok $n - it shows: $1"; else echo "not ok $n - it does not show: $1"; failed=1; fi
}

program good 'echo 1..2; echo ok 1 - a; echo ok 2 - b'
program bad 'echo 1..2; echo ok 1 - a; echo "not ok 2 - b: expected 3"; exit 1'
program skips 'echo 1..2; echo ok 1 - a; echo "ok 2 - b # SKIP no GPU"'
program all_skipped 'echo "1..0 # SKIP no qemu"'
program mute 'exit 0'
program crash 'echo 1..2; echo ok 1 - a; echo last words >&2; kill -SEGV $$'
program short 'echo 1..3; echo ok 1 - a'
program liar 'echo 1..1; echo ok 1 - a; exit 7'
program empty 'echo 1..0'
program hang 'echo 1..1; sleep 60'
program test_criterion 'for a; do case $a in --tap=*) exec >${a#--tap=} ;; esac; done; echo 1..1; echo "ok - s::t  # SKIP x"; echo "ok - s::u"'

echo "1..19"
expect "success" "2 passed, 0 failed, 0 skipped" 0 ./good
expect "sums" "4 passed, 0 failed, 2 skipped" 0 ./good ./skips ./test_criterion
shows 'skips: b: no GPU'
shows 'test_criterion: s::t: x'
expect "a failed test" "3 passed, 1 failed, 0 skipped" 1 ./good ./bad
shows 'not ok 2 - b: expected 3'
expect "a program skipped as a whole" "2 passed, 0 failed, 1 skipped" 0 ./good ./all_skipped
shows 'all_skipped: no qemu'
expect "nothing but skips is no success" "0 passed, 0 failed, 1 skipped" 1 ./all_skipped
expect "no program at all" "0 passed, 0 failed, 0 skipped" 1
expect "no plan" "2 passed, 1 failed, 0 skipped" 1 ./good ./mute
expect "a crash" "1 passed, 1 failed, 0 skipped" 1 ./crash
shows 'last words'
expect "fewer tests than planned" "1 passed, 1 failed, 0 skipped" 1 ./short
expect "a bad exit status" "1 passed, 1 failed, 0 skipped" 1 ./liar
expect "a plan of none" "0 passed, 1 failed, 0 skipped" 1 ./empty
expect "a program that hangs" "0 passed, 1 failed, 0 skipped" 1 ./hang
shows 'took longer than 2 s'
expect "a program that is not there" "0 passed, 1 failed, 0 skipped" 1 ./absent
exit $failed
