#!/bin/bash
# tests/check-layers on small trees made for it: what is allowed passes, each kind of violation is named.
set -u
root=$PWD
tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
mkdir -p "$tree"/{src/{base,model,run},kernels/{avx2,cuda},net,planner,tests/base}
n=0 failed=0

result() # NAME STATUS
{
    n=$((n + 1))
    if [ "$2" -eq 0 ]; then echo "ok $n - $1"; else echo "not ok $n - $1"; failed=1; fi
}

for h in src/base/err.h src/model/gguf.h src/run/run.h src/cmd.h kernels/k.h net/ring.h planner/plan.h planner/milp.h \
    tests/base/t.h; do
    echo >"$tree/$h"
done
refused() # FILE INCLUDED
{
    printf '#include <stdio.h>\n\n#include "%s"\n' "$2" >"$tree/$1"
    ! "$root/tests/check-layers" "$tree" >"$tree/out" && grep -q "^not ok 1 - $1:3: \"$2\"" "$tree/out"
    result "$1 may not include $2" $?
    rm "$tree/$1"
}
allowed() # FILE INCLUDED
{
    printf '  #  include "%s" /* "x" */\n' "$2" >"$tree/$1"
    "$root/tests/check-layers" "$tree" >"$tree/out" && grep -q "^ok 1" "$tree/out"
    result "$1 may include $2" $?
    rm "$tree/$1"
}

echo "1..36"
for h in src/base/err.h kernels/k.h; do allowed src/model/a.c $h; done
for h in src/base/err.h src/model/gguf.h kernels/k.h net/ring.h planner/plan.h src/run/run.h; do allowed src/run/a.c $h; done
for h in src/base/err.h src/run/run.h planner/milp.h net/ring.h; do allowed src/cmd_a.c $h; done
allowed kernels/avx2/a.c kernels/k.h
allowed kernels/cuda/a.cu kernels/k.h
allowed net/a.h src/base/err.h
allowed planner/a.c src/base/err.h
allowed tests/base/a.c src/run/run.h
for h in kernels/k.h src/model/gguf.h src/cmd.h tests/base/t.h; do refused src/base/a.c $h; done
for h in src/model/gguf.h net/ring.h; do refused kernels/avx2/a.c $h; done
for f in a.cu a.cuh; do refused kernels/cuda/$f src/model/gguf.h; done
for h in planner/plan.h src/run/run.h; do refused src/model/a.h $h; done
for h in planner/milp.h src/cmd.h; do refused src/run/a.c $h; done
refused net/a.c kernels/k.h
refused planner/a.c net/ring.h
refused src/cmd_a.c tests/base/t.h
refused kernels/a.c k.h
refused tests/base/a.c src/base/missing.h

echo '#include <src/model/gguf.h>' >"$tree/net/a.c"
! "$root/tests/check-layers" "$tree" >"$tree/out" && grep -q '^not ok 1 - net/a.c:1: "src/model/gguf.h"' "$tree/out"
result "angle brackets do not hide an include" $?
rm "$tree/net/a.c"

! "$root/tests/check-layers" "$tree/src" >"$tree/out" && grep -q '^not ok 1 - no include found' "$tree/out"
result "a tree without includes is no success" $?
exit $failed
