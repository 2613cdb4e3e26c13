"""Limits of memory, CPU and disk reads by control groups, version 1 or 2, whichever has the controller.

A box owns one group per controller, named after its process (pid and start time), with one below it for each
device; groups of boxes that are gone are found by that name and removed. What the kernel does not let us limit
is returned as sentences.
"""
import os
import re

PREFIX = "prima-box-"
MOUNTS = "/proc/mounts"
PERIOD_US = 100000


def roots():
    """{controller: (folder, version)}"""
    out = {}
    with open(MOUNTS) as f:
        for line in f:
            _, folder, kind, options = line.split()[:4]
            if kind == "cgroup":
                for c in ("memory", "cpu", "blkio"):
                    if c in options.split(","):
                        out["io" if c == "blkio" else c] = (folder, 1)
            elif kind == "cgroup2":
                with open(os.path.join(folder, "cgroup.controllers")) as g:
                    for c in g.read().split():
                        out.setdefault(c, (folder, 2))
    return out


def start_time(pid):
    """Of a process, in ticks since the machine started; None: there is none."""
    try:
        with open(f"/proc/{pid}/stat") as f:
            return f.read().rpartition(")")[2].split()[19]
    except OSError:
        return None


def own_name(pid):
    return f"{PREFIX}{pid}-{start_time(pid)}"


def write(path, text):
    with open(path, "w") as f:
        f.write(text)


def device_of(path):
    """MAJOR:MINOR of the disk that a file is on: the whole disk, which is what can be limited. OSError: it is on
    none (overlay, tmpfs, a network)."""
    n = os.stat(path).st_dev
    name = f"{os.major(n)}:{os.minor(n)}"
    folder = os.path.realpath(f"/sys/dev/block/{name}")
    if not os.path.exists(folder):
        raise OSError(f"{path} is not on a disk of its own")
    if os.path.exists(os.path.join(folder, "partition")):
        with open(os.path.join(folder, "..", "dev")) as f:
            return f.read().strip()
    return name


class Limits:
    def __init__(self, box_name):
        self.roots, self.box_name, self.warnings = roots(), box_name, []

    def group(self, controller, device):
        folder, version = self.roots[controller]
        box = os.path.join(folder, self.box_name)
        os.makedirs(box, exist_ok=True)
        if version == 2:
            for parent in (folder, box):
                write(os.path.join(parent, "cgroup.subtree_control"), "+" + controller)
        path = os.path.join(box, device)
        os.makedirs(path, exist_ok=True)
        return path, version

    def limit(self, device, controller, files):
        """files: version -> (file, text, ...), each text a write of its own. The group's folder, or None."""
        if controller not in self.roots:
            self.warnings.append(f"{device}: {controller} is not limited: this kernel has no such control group")
            return None
        try:
            path, version = self.group(controller, device)
            name, *texts = files[version]
            for text in texts:
                write(os.path.join(path, name), text)
            return path
        except OSError as e:
            self.warnings.append(f"{device}: {controller} is not limited: {e}")
            return None

    def limit_reads(self, d, paths):
        """Of all disks that these files are on."""
        rate = d.disk_read_bytes_per_s
        try:
            disks = sorted({device_of(p) for p in paths})
        except OSError as e:
            self.warnings.append(f"{d.name}: disk reads are not limited: {e}")
            return None
        files = {
            1: ("blkio.throttle.read_bps_device", *(f"{disk} {rate}" for disk in disks)),
            2: ("io.max", *(f"{disk} rbps={rate}" for disk in disks)),
        }
        return self.limit(d.name, "io", files)

    def apply(self, d, disk_paths):
        """The groups that the device's processes have to join. disk_paths: what it reads."""
        groups = []
        if d.memory_bytes:
            text = str(d.memory_bytes)
            groups.append(
                self.limit(d.name, "memory", {1: ("memory.limit_in_bytes", text), 2: ("memory.max", text)})
            )
        if d.cpus:
            quota = str(int(d.cpus * PERIOD_US))
            groups.append(
                self.limit(d.name, "cpu", {1: ("cpu.cfs_quota_us", quota), 2: ("cpu.max", f"{quota} {PERIOD_US}")})
            )
        if d.disk_read_bytes_per_s:
            groups.append(self.limit_reads(d, disk_paths))
        return [g for g in groups if g]


def remove_folder(path):
    for entry in os.scandir(path):
        if entry.is_dir():
            remove_folder(entry.path)
    os.rmdir(path)


def remove(box_name):
    """The box's groups; its processes have ended."""
    for folder in {f for f, _ in roots().values()}:
        path = os.path.join(folder, box_name)
        if os.path.isdir(path):
            remove_folder(path)


def remove_stale():
    """Groups of boxes whose process is gone. Their processes ended with it; one that has not is in the way
    of rmdir, and left alone. Names removed."""
    gone = set()
    for folder in {f for f, _ in roots().values()}:
        for name in os.listdir(folder):
            found = re.fullmatch(PREFIX + r"(\d+)-(\d+)", name)
            if not found or start_time(found[1]) == found[2]:
                continue
            try:
                remove_folder(os.path.join(folder, name))
                gone.add(name)
            except OSError:
                pass
    return gone
