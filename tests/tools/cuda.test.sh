#!/bin/bash
# When the Makefile builds for GPUs, and with what: an nvcc of make-believe, and make only says what it would do.
set -uo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
n=0 failed=0
unset CUDA CUDA_HOME CUDA_ARCHS MAKEFLAGS MAKELEVEL MODE

result() # NAME STATUS
{
    n=$((n + 1))
    if [ "$2" -eq 0 ]; then echo "ok $n - $1"; else echo "not ok $n - $1"; failed=1; fi
}
would() # OPTIONS...: what make would do for the archive of kernels
{
    make -n V=1 "B=$dir/build" "$@" "$dir/build/kernels.a" >"$dir/out" 2>&1
}
says() { grep -qF -- "$1" "$dir/out"; }

mkdir -p "$dir/cuda/bin" "$dir/path" "$dir/empty"
printf '#!/bin/sh\necho sm_80\necho sm_90\n' >"$dir/cuda/bin/nvcc"
chmod +x "$dir/cuda/bin/nvcc"
ln -s ../cuda/bin/nvcc "$dir/path/nvcc"

echo "1..9"
would CUDA_HOME="$dir/cuda" && says "$dir/cuda/bin/nvcc " && says -DPRIMA_CUDA && says kernels/cuda/device.c &&
    ! says kernels/cuda_none.c
result "nvcc in CUDA_HOME is used" $?
says 'arch=compute_80,code=sm_80' && says 'arch=compute_90,code=sm_90' && says 'arch=compute_90,code=compute_90' &&
    ! says code=compute_80 && ! says sm_75 && ! says sm_120
result "machine code for what this nvcc knows, PTX for the last" $?
PATH=$dir/path:$PATH would && says "$dir/cuda/bin/nvcc "
result "nvcc in PATH is used, by its real place" $?
would CUDA_HOME="$dir/cuda" CUDA_ARCHS=90 && says sm_90 && ! says sm_80
result "CUDA_ARCHS chooses" $?
! would CUDA_HOME="$dir/cuda" CUDA_ARCHS=12 && says "knows none of these"
result "CUDA_ARCHS that nvcc does not know are refused" $?
would CUDA_HOME="$dir/cuda" CUDA=0 && says kernels/cuda_none.c && ! says PRIMA_CUDA && ! says /nvcc
result "CUDA=0: never" $?
would CUDA_HOME="$dir/empty" && says kernels/cuda_none.c && ! says PRIMA_CUDA && says "no nvcc found"
result "no nvcc: built without, and said" $?
! would CUDA_HOME="$dir/empty" CUDA=1 && says "there is no nvcc in $dir/empty/bin"
result "CUDA=1 without nvcc stops" $?
would CUDA_HOME="$dir/cuda" CUDA=1 MODE=asan && says kernels/cuda_none.c && ! says PRIMA_CUDA && says "in this mode"
result "only the release build has it" $?
exit $failed
