#!/bin/bash
# Each fault by itself; tests/cluster/single prints the TAP.
if ! reason=$(tests/cluster/box check); then
    echo "1..0 # SKIP $reason"
    exit 0
fi
exec tests/cluster/box run tests/cluster/single4.yaml -- tests/cluster/single
