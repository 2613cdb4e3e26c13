#!/bin/bash
# Ten times SIGKILL; tests/cluster/killed prints the TAP. A fresh seed every time, which it says.
exec timeout -k 5 200 tests/cluster/killed
