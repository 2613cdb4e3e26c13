"""A running box, for what runs in it: its devices, their processes, their links."""
import json
import os
import signal
import subprocess

from lib import net
from lib.box_file import Link
from lib.devices import BOX, write

STATE = f"{BOX}/box.json"


def save(description, relay_pid):
    links = {d.name: vars(d.link) for d in description.devices}
    disks = {d.name: d.disk_read_bytes_per_s for d in description.devices}
    write(STATE, json.dumps({"relay_pid": relay_pid, "links": links, "disk_read_bytes_per_s": disks}))


class Box:
    def __init__(self):
        with open(STATE) as f:
            state = json.load(f)
        self.names = list(state["links"])
        self.as_made = state["links"]
        self.disk_read_bytes_per_s = state["disk_read_bytes_per_s"]
        self.net = net.Net({n: Link(**l) for n, l in state["links"].items()}, state["relay_pid"])

    def pids(self, name, *words):
        """Processes on a device whose command line has all these words."""
        out = subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True, check=True).stdout
        return [p for p in map(int, out.split()) if set(words) <= set(command_of(p))]

    def workers(self, name):
        return [p for p in self.pids(name, "worker") if state_of(p) != "Z"]

    def signal(self, name, sig):
        """To the device's workers; how many there were."""
        pids = self.workers(name)
        for p in pids:
            send(p, sig)
        return len(pids)

    def cut(self, name, is_cut=True):
        (self.net.cut.add if is_cut else self.net.cut.discard)(name)
        self.net.change()

    def link(self, name, **changes):
        """delay_ms, jitter_ms, loss_pct, mbit_per_s, dribble_bytes, dribble_ms; without any: as it was made."""
        self.net.links[name] = Link(**{**self.as_made[name], **changes})
        self.net.change()
        net.set_rate(name, self.net.links[name].mbit_per_s)

    def heal(self):
        self.net.cut.clear()
        for name in self.names:
            self.link(name)
            self.signal(name, signal.SIGCONT)

    def leave_limits(self, name):
        """This process, which runs on that device, and what it starts from here on, but for start()."""
        with open(f"{BOX}/{name}/groups") as f:
            for group in f.read().split():
                write(os.path.join(group, "../../cgroup.procs"), str(os.getpid()))

    def start(self, name, command, **options):
        return subprocess.Popen([f"{BOX}/on", name, *command], **options)


def command_of(pid):
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as f:
            return f.read().decode(errors="replace").split("\0")
    except OSError:
        return []


def state_of(pid):
    try:
        with open(f"/proc/{pid}/stat") as f:
            return f.read().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"


def send(pid, sig):
    try:
        os.kill(pid, sig)
    except ProcessLookupError:
        pass
