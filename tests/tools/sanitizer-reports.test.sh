#!/bin/bash
# tests/sanitizer-reports on reports as gcc's sanitizers write them.
set -u
root=$PWD
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
n=0 failed=0

expect() # WHAT STATUS SUMMARY < REPORT
{
    local status=0
    n=$((n + 1))
    cat >"$dir/report.$n"
    "$root/tests/sanitizer-reports" "$dir" >"$dir/out" || status=$?
    if [ $status -eq "$2" ] && [ "$(tail -n 1 "$dir/out")" = "$3" ]; then
        echo "ok $n - $1"
    else
        echo "not ok $n - $1"
        sed 's/^/  | /' "$dir/out"
        failed=1
    fi
    rm "$dir/report.$n"
}

echo "1..4"
expect "a leak of Criterion's runner does not count" 0 "" <<'REPORT'
==11827==ERROR: LeakSanitizer: detected memory leaks

Direct leak of 48 byte(s) in 1 object(s) allocated from:
    #0 0x7f47c72b83b7 in __interceptor_calloc ../../../../src/libsanitizer/asan/asan_malloc_linux.cpp:77
    #1 0x7f47c710d332  (/lib/x86_64-linux-gnu/libcriterion.so.3+0x1a332)
REPORT
expect "a leak of ours counts, also below Criterion" 1 "1 sanitizer reports" <<'REPORT'
==1364==ERROR: LeakSanitizer: detected memory leaks

Direct leak of 100 byte(s) in 1 object(s) allocated from:
    #0 0x7f0c870b89cf in __interceptor_malloc ../../../../src/libsanitizer/asan/asan_malloc_linux.cpp:69
    #1 0x562a4226c212 in json_line src/base/json.c:195
    #2 0x7f47c710d332  (/lib/x86_64-linux-gnu/libcriterion.so.3+0x1a332)
REPORT
expect "so does one of a library that hides its callers" 1 "1 sanitizer reports" <<'REPORT'
==1364==ERROR: LeakSanitizer: detected memory leaks
    #0 0x7f141c2b89cf in __interceptor_malloc ../../../../src/libsanitizer/asan/asan_malloc_linux.cpp:69
    #1 0x7f141c8b2cda  (/lib/x86_64-linux-gnu/libjansson.so.4+0x3cda)
REPORT
expect "any other report counts" 1 "1 sanitizer reports" <<'REPORT'
==9==ERROR: AddressSanitizer: heap-buffer-overflow on address 0x602000000011
    #0 0x7f47c72b83b7 in __interceptor_memcpy ../../../../src/libsanitizer/asan/asan_interceptors.cpp:827
REPORT
exit $failed
