"""full_disk.c: a library that stands between a program and a disk that fills while a pack is written."""
import os
import subprocess

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__)))))


def build(folder):
    """The library; None where there is no compiler, or no LD_PRELOAD."""
    path = os.path.join(folder, "full_disk.so")
    source = os.path.join(ROOT, "tests/cluster/full_disk.c")
    command = [os.environ.get("CC", "cc"), "-std=c11", "-D_GNU_SOURCE", "-O1", "-shared", "-fPIC", "-o", path, source]
    try:
        return path if os.uname().sysname == "Linux" and not subprocess.run(command, check=False).returncode else None
    except FileNotFoundError:
        return None


def settings(library, after_bytes):
    """For the environment of a program whose packs may take so many bytes more."""
    asan = os.environ.get("ASAN_OPTIONS", "")
    return {
        "LD_PRELOAD": library,
        "FULL_DISK_AFTER": str(after_bytes),
        "ASAN_OPTIONS": f"{asan}:verify_asan_link_order=0".lstrip(":"),
    }
