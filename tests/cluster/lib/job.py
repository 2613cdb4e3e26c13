"""A job for the ring: prompts made from a seed, the plan of the box, the same job on one device, and whether
two outputs say the same."""
import json
import os
import random
import re
import subprocess

from lib.devices import BOX

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__)))))
DEMO = os.path.join(ROOT, "datasets/demo/demo.gguf")
NAMES = ("Lily", "Bruno", "Mia", "Tom", "Rosa", "Finn")
ANIMALS = ("mouse", "bear", "fox", "owl", "frog", "cat")


def prompt(i, rng, max_tokens):
    text = rng.choice(
        [
            f"Once upon a time there was a brave {rng.choice(ANIMALS)} called {rng.choice(NAMES)}.",
            f"Long ago, a kind {rng.choice(ANIMALS)} named {rng.choice(NAMES)} lived under an old oak tree.",
            f"{rng.randrange(10, 99)} + {rng.randrange(10, 99)} =",
            "Monday, Tuesday, Wednesday,",
        ]
    )
    length = rng.randrange(max_tokens // 2, max_tokens + 1)
    if i % 5 == 4:
        body = {"messages": [{"role": "user", "content": text}], "max_tokens": length, "seed": i, "temperature": 0.7}
        return {"custom_id": f"p{i}", "method": "POST", "url": "/v1/chat/completions", "body": body}
    return {"id": f"p{i}", "prompt": text, "max_tokens": length, "seed": i, "temperature": 0.7 if i % 2 else 0}


def write_prompts(path, n, seed=1, max_tokens=120):
    rng = random.Random(seed)
    with open(path, "w", encoding="utf-8") as f:
        for i in range(n):
            f.write(json.dumps(prompt(i, rng, max_tokens)) + "\n")


def run(*command, **options):
    """Raises with what it said when it fails."""
    p = subprocess.run(command, capture_output=True, text=True, **options)
    if p.returncode:
        raise OSError(f"{' '.join(command)}: exit status {p.returncode}\n{p.stderr[-2000:]}")


def write_cluster(path, changes):
    """The box's cluster.yaml with some changes: (pattern, replacement)."""
    with open(f"{BOX}/cluster.yaml", encoding="utf-8") as f:
        cluster = f.read()
    for pattern, replacement in changes:
        cluster = re.sub(pattern, replacement, cluster)
    with open(path, "w", encoding="utf-8") as f:
        f.write(cluster)


def plan(path, layers, model=DEMO, slots=16, ctx=512, changes=()):
    """The box's plan with so many layers on each device. changes: as in write_cluster."""
    write_cluster(path + ".cluster", changes)
    split = ",".join(map(str, layers))
    sizes = ("--ctx", str(ctx), "--slots", str(slots), "--profiles", f"{BOX}/profiles")
    run("prima", "plan", path + ".cluster", "-m", model, "--layers", split, *sizes, "-o", path)


def plan_latency(path, most_rounds, layers=None, model=DEMO, slots=1, ctx=256, changes=()):
    """The box's plan for one sequence. layers: "4,4", or the planner's choice."""
    write_cluster(path + ".cluster", changes)
    split = ("--layers", layers) if layers else ()
    sizes = ("--ctx", str(ctx), "--slots", str(slots), "--max-rounds", str(most_rounds), "--objective", "latency")
    files = ("-m", model, "--profiles", f"{BOX}/profiles", "-o", path)
    run("prima", "plan", path + ".cluster", *split, *sizes, *files)


def split(n_layers, n_devices):
    """As even as it goes, more for the first."""
    return [n_layers // n_devices + (i < n_layers % n_devices) for i in range(n_devices)]


def on_one_device(prompts, out, model=DEMO, ctx=512):
    run("prima", "run", model, prompts, "-o", out, "--ctx", str(ctx), "--threads", "1")


def said(path):
    """{id: what was answered}, without what differs from run to run. Fails at a line given twice."""
    out = {}
    with open(path, encoding="utf-8") as f:
        for number, line in enumerate(f, 1):
            record = json.loads(line)
            key = record.get("custom_id") or record["id"]
            if key in out:
                raise ValueError(f"{path}:{number}: {key} is there twice")
            for varying in ("timings", "prima"):
                record.pop(varying, None)
            if "custom_id" in record:
                record.pop("id")
                (record.get("response") or {}).pop("request_id", None)
            out[key] = record
    return out


def differences(wanted_path, got_path):
    """Sentences; none: every line is there once and the same."""
    try:
        wanted, got = said(wanted_path), said(got_path)
    except (OSError, ValueError) as e:
        return [str(e)]
    out = [f"{k} is missing" for k in wanted if k not in got] + [f"{k} is new" for k in got if k not in wanted]
    return out + [f"{k} differs" for k in wanted if k in got and wanted[k] != got[k]]
