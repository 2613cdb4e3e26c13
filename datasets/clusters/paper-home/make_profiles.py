#!/usr/bin/env python3
"""Write the profiles of the four devices of the prima.cpp paper beside this script.

Published (arXiv 2504.08791): operating system, CPU, cores, available RAM, disk rate (the Mac reads at random, the
others sequentially), GPU and its VRAM. Everything else is assumed and named in `note`: how fast weights pass the
processor while one token is computed (GB/s), which share of a published peak rate a large batch reaches, total RAM,
VRAM left free, copies.

Peak rates (GFLOP/s). GPUs: NVIDIA's papers on the architectures Turing (RTX 2080 Ti: 53.8 TFLOP/s) and Ampere GA102
(RTX 3070: 40.6 TFLOP/s), tensor cores, FP16 with FP32 sums, reference clocks. CPUs: cores x FP32 operations a cycle x
clock. The paper's i9 are not named: 8 cores with two 256-bit multiply-adds (32 operations a cycle) at 3 GHz, all cores
busy. M1: 4 cores with four 128-bit multiply-adds at 3.2 GHz, 4 with two at 2.06. Kirin 9000: Cortex-A77 with two 128-bit
multiply-adds, one at 3.13 and three at 2.54 GHz, 4 Cortex-A55 with one at 2.05.
"""
import json
import os

GIB = 1 << 30
BYTES_PER_WEIGHT = {"Q4_K": 144 / 256, "Q5_0": 22 / 32, "Q5_K": 176 / 256, "Q6_K": 210 / 256, "Q8_0": 34 / 32, "F16": 2}
BATCHES = (1, 2, 4, 8, 16, 64, 512)
# name: os, CPU, cores, RAM available GiB, RAM total GiB (assumed), disk GB/s, disk at random, weights GB/s (assumed),
#       peak GFLOP/s, GPU (name, VRAM GiB, weights GB/s (assumed), peak GFLOP/s)
DEVICES = {
    "d1-mac": ("macOS", "Apple M1", 8, 2.4, 8, 0.72, True, 60, 4 * 32 * 3.2 + 4 * 16 * 2.06, None),
    "d2-laptop": ("Linux", "Intel i9", 8, 4.1, 16, 2.98, False, 40, 8 * 32 * 3.0, ("RTX 3070", 8, 400, 40600)),
    "d3-desktop": ("Linux", "Intel i9", 16, 9.7, 16, 3.17, False, 45, 8 * 32 * 3.0, ("RTX 2080 Ti", 11, 550, 53800)),
    "d4-phone": ("HarmonyOS, Termux", "Kirin 9000", 8, 1.9, 8, 1.37, False, 15, 16 * 3.13 + 3 * 16 * 2.54 + 4 * 8 * 2.05, None),
}
CPU_EFFICIENCY, GPU_EFFICIENCY = 0.5, 0.4  # of the peak, by a large batch of quantised weights (assumed)
VRAM_TAKEN_GIB = 0.4  # by the driver and the screen (assumed)
PCIE_GB_PER_S = 12  # assumed


def rates(gb_per_s, limit_gflops, gpu):
    """2 floating-point operations a weight and token, bound by memory first and by arithmetic then."""
    for kind, size in BYTES_PER_WEIGHT.items():
        one = 2 * gb_per_s / size
        for batch in BATCHES:
            entry = {"type": kind} | ({} if gpu is None else {"gpu": gpu})
            yield entry | {"batch": batch, "gflops": round(min(batch * one, limit_gflops), 1), "spread_pct": 0.0}


def disks(gb_per_s, at_random):
    common = {"bs_bytes": 1 << 20, "iodepth": 8, "engine": "published", "direct": True, "read_bytes_per_s": gb_per_s * 1e9}
    if at_random:
        yield {"pattern": "rand"} | common
    yield {"pattern": "seq"} | common


def profile(name, system, cpu, cores, ram, ram_total, disk, at_random, gb_per_s, peak, gpu):
    assumed = [f"ram_total {ram_total} GiB", "threads = cores", f"weights and memory at {gb_per_s} GB/s from 4 threads on" + (f" (GPU {gpu[2]})" if gpu else ""),
               f"large batches {CPU_EFFICIENCY:.0%} of peak {peak:.0f} GFLOP/s" + (f" (GPU {GPU_EFFICIENCY:.0%} of {gpu[3]})" if gpu else "")]
    if gpu:
        assumed.append(f"{VRAM_TAKEN_GIB} GiB VRAM taken, copies {PCIE_GB_PER_S} GB/s")
    if at_random:
        assumed.append("sequential = published random rate")
    p = {"schema": "prima/profile/1", "device": name, "os": system, "cpu_model": cpu, "cores_physical": cores, "threads": cores,
         "numa_nodes": 1, "ram_total_bytes": ram_total * GIB, "ram_available_bytes": round(ram * GIB),
         "note": "published (arXiv 2504.08791): os, cpu, cores, RAM available, disk" + (", GPU, VRAM" if gpu else "")
                 + ". assumed: " + "; ".join(assumed)}
    assert len(p["note"]) < 512, (name, len(p["note"]))
    p["mem_bytes_per_s"] = [gb_per_s * 1e9 * min(1.0, (i + 1) / 4) for i in range(cores)]
    p["gpus"] = []
    if gpu:
        p["gpus"] = [{"name": gpu[0], "vram_total_bytes": gpu[1] * GIB, "vram_free_bytes": round((gpu[1] - VRAM_TAKEN_GIB) * GIB),
                      "tflops_f16": gpu[3] / 1e3, "mem_bytes_per_s": gpu[2] * 1e9, "h2d_bytes_per_s": PCIE_GB_PER_S * 1e9,
                      "d2h_bytes_per_s": PCIE_GB_PER_S * 1e9}]
    p["compute"] = list(rates(gb_per_s, CPU_EFFICIENCY * peak, None)) + (list(rates(gpu[2], GPU_EFFICIENCY * gpu[3], 0)) if gpu else [])
    p["disk"] = list(disks(disk, at_random))
    p["net"] = []
    return p


def text(p):
    """One line per fact and per measurement, as prima writes it."""
    compact = {"separators": (",", ":")}
    lines = []
    for key, value in p.items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            body = "[\n    " + ",\n    ".join(json.dumps(v, **compact) for v in value) + "\n  ]"
        else:
            body = json.dumps(value, **compact)
        lines.append(f'  "{key}": {body}')
    return "{\n" + ",\n".join(lines) + "\n}\n"


for device, figures in DEVICES.items():
    with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), device + ".json"), "w") as f:
        f.write(text(profile(device, *figures)))
