#!/bin/bash
# Control groups of version 2; tests/cluster/groups prints the TAP. Needs no box.
exec python3 tests/cluster/groups
