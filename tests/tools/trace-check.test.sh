#!/bin/bash
# tests/tools/trace-check finds what is wrong with a trace: a right one, and changes to it that it must notice.
set -uo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cat >"$dir/cases.py" <<'END'
import json, subprocess, sys

def lanes(pid, name):
    meta = [("process_name", 1, {"name": name}), ("process_sort_index", 1, {"sort_index": pid})]
    for i, lane in enumerate(("compute", "wait", "send", "read")):
        meta += [("thread_name", i + 1, {"name": lane}), ("thread_sort_index", i + 1, {"sort_index": i})]
    return [{"ph": "M", "pid": pid, "tid": 1000 * pid + t, "name": n, "args": a} for n, t, a in meta]

def span(pid, lane, name, ts, dur, batch=None, **args):
    args = args or {"round": 0, "tokens": 1, "micro_batches": [batch]}
    cat = ("compute", "wait", "send", "read")[lane]
    e = {"ph": "X", "pid": pid, "tid": 1000 * pid + lane + 1, "ts": ts, "dur": dur, "cat": cat, "name": name}
    return {**e, "args": args}

def right():
    clock = {"ph": "i", "pid": 2, "tid": 2001, "ts": 1.5, "s": "p", "name": "clock"}
    clock["args"] = {"offset_us": -3.25, "error_us": 1.5}
    return lanes(1, "desk") + lanes(2, "shelf") + [
        span(1, 0, "embed", 10, 1, 1), span(1, 0, "layers 0-3", 11, 5.125, 1), span(1, 2, "send", 17, 2, 1), clock,
        span(2, 1, "wait", 15.7, 4, 1), span(2, 3, "read", 5, 9, bytes=4096), span(2, 0, "layers 4-7", 20, 5, 1),
        span(2, 2, "send", 25, 1, 1), span(1, 1, "wait", 17, 12, 1), span(1, 0, "logits", 29, 1, 1)]

def find(t, name, pid=None):
    return next(e for e in t if e["name"] == name and pid in (None, e["pid"]))

WRONG = {
    "no pid": lambda t: find(t, "embed").pop("pid"),
    "a phase that is none": lambda t: find(t, "embed").update(ph="Q"),
    "a negative time": lambda t: find(t, "embed").update(ts=-1),
    "a time that is a text": lambda t: find(t, "embed").update(ts="10"),
    "no duration": lambda t: find(t, "logits").pop("dur"),
    "a lane without a name": lambda t: find(t, "read").update(tid=2009),
    "a name after its use": lambda t: t.append(t.pop(2)),
    "two devices of one name": lambda t: find(t, "process_name", 2)["args"].update(name="desk"),
    "another key": lambda t: find(t, "embed").update(sf=1),
    "a scope that is none": lambda t: find(t, "clock").update(s="x"),
    "computing in another lane": lambda t: find(t, "layers 0-3").update(tid=1003),
    "an overlap in a lane": lambda t: find(t, "layers 0-3").update(ts=10.999),
    "an overlap of computing and waiting": lambda t: find(t, "wait", 2).update(dur=5),
    "an end after the run": lambda t: find(t, "logits").update(dur=2),
    "a layer twice": lambda t: find(t, "layers 4-7").update(name="layers 3-7"),
    "a layer that is left out": lambda t: find(t, "layers 4-7").update(name="layers 5-7"),
    "too few layers": lambda t: find(t, "layers 4-7").update(name="layers 4-6"),
    "layers in the wrong order": lambda t: (find(t, "layers 4-7").update(ts=8), find(t, "wait", 2).update(ts=1)),
    "an answer before the last layer": lambda t: (find(t, "logits").update(ts=19), find(t, "wait", 1).update(dur=1)),
    "a device that did nothing": lambda t: t.extend(lanes(3, "tablet")),
    "no bytes": lambda t: find(t, "read")["args"].update(bytes=0),
}

def check(text):
    with open(sys.argv[1] + "/t.json", "w") as f:
        f.write(text)
    command = ["tests/tools/trace-check", f.name, "--layers", "8", "--wall-ms", "0.030"]
    return subprocess.run(command, capture_output=True, text=True)

cases = [("a right trace", json.dumps(right()), 0)]
for name, change in WRONG.items():
    t = right()
    change(t)
    cases.append((name, json.dumps(t), 1))
cases.append(("a key twice", json.dumps(right()).replace('"ph"', '"pid": 1, "ph"', 1), 1))
cases.append(("no end", json.dumps(right())[:-1], 1))
print(f"1..{len(cases)}")
for i, (name, text, status) in enumerate(cases, 1):
    p = check(text)
    print(f"{'ok' if p.returncode == status else 'not ok'} {i} - {name}")
    if p.returncode != status:
        print("    " + (p.stdout + p.stderr[-300:]).replace("\n", "\n    "))
END
python3 "$dir/cases.py" "$dir"
