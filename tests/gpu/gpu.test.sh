#!/bin/bash
# Why tests/gpu ran on the emulated GPU only, or not even there, for the list of skipped tests.
if ! command -v g++ >/dev/null; then
    echo "1..0 # SKIP no g++: tests/gpu did not even run on the emulated GPU"
elif [ -e "$BUILD/tests/gpu/test_device" ]; then
    echo "1..1"
    echo "ok 1 - tests/gpu run on the GPU, too"
elif [ -e /dev/nvidiactl ] || [ -e /dev/dxg ]; then
    echo "1..0 # SKIP there seems to be a GPU, but no nvcc: tests/gpu ran on the emulated one only"
else
    echo "1..0 # SKIP no GPU here: tests/gpu ran on the emulated one only"
fi
