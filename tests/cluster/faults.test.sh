#!/bin/bash
# Ten random faults in one job (make soak: a hundred). A fresh seed every time; it is shown when the test fails.
. tests/cluster/tap.sh
begin 1
ok "a job of 200 prompts and 10 random faults" timeout -k 5 150 \
    tests/cluster/box run tests/cluster/soak3.yaml -- tests/cluster/faults -n 10 --prompts 200
