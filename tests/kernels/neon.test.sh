#!/bin/bash
# The kernels for aarch64, cross-built and run under qemu-user: tests/kernels/neon_check.c prints the TAP lines.
# On an aarch64 machine the Criterion tests here run the same kernels natively.
set -uo pipefail

skip()
{
    echo "1..0 # SKIP $1"
    exit 0
}
[ "$(uname -m)" != aarch64 ] || skip "this is aarch64: tests/kernels/test_* run the kernels natively"
[ "${BUILD:-build/release}" = build/release ] || skip "the cross build has one mode"
command -v aarch64-linux-gnu-gcc >/dev/null || skip "no aarch64-linux-gnu-gcc (make deps-test)"
command -v qemu-aarch64 >/dev/null || skip "no qemu-aarch64 (make deps-test)"

program=build/aarch64/tests/kernels/neon_check
tests/cross-build "$program" >&2 || exit 1
qemu-aarch64 -cpu max -L /usr/aarch64-linux-gnu "$program"
