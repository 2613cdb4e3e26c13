#!/bin/bash
# A full disk in the middle of packing; tests/cluster/full prints the TAP.
exec timeout -k 5 200 tests/cluster/full
