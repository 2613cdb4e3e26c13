"""A network namespace for each device, the relay between them (relay.c), and rates (tc tbf).

Addresses are 10.77.0.1, .2, ... in the order of the devices. The state that a running box's tests change is one
file, which the relay reads again when told: see Net.change.
"""
import os
import signal
import subprocess

from lib.namespaces import die_with_parent

LINKS, QUEUE_MS, LEAST_BURST_BYTES = "/run/box/links", 50, 16384


def address(i):
    return f"10.77.0.{i + 1}"


def run(*command):
    subprocess.run(command, check=True)


def set_rate(name, mbit_per_s):
    """What the device sends; None: as fast as it goes."""
    if mbit_per_s is None:
        subprocess.run(["tc", "-n", name, "qdisc", "del", "dev", "ring0", "root"], stderr=subprocess.DEVNULL)
        return
    burst = max(LEAST_BURST_BYTES, int(mbit_per_s * 1e6 / 8 / 250))  # what passes in one tick of a slow clock
    rate = f"{int(mbit_per_s * 1e6)}bit"
    command = ["tc", "-n", name, "qdisc", "replace", "dev", "ring0", "root", "tbf"]
    run(*command, "rate", rate, "burst", str(burst), "latency", f"{QUEUE_MS}ms")


class Net:
    """links: {name: Link}; the relay's pid once it runs."""

    def __init__(self, links, relay_pid=None):
        self.links, self.relay_pid = links, relay_pid
        self.cut = set()

    def write(self):
        with open(LINKS + ".new", "w") as f:
            for i, (name, link) in enumerate(self.links.items()):
                up = "down" if name in self.cut else "up"
                us = f"{int(link.delay_ms * 1e3)} {int(link.jitter_ms * 1e3)}"
                dribble = f"{link.dribble_bytes} {int(link.dribble_ms * 1e3)}"
                f.write(f"{name} {address(i)} {us} {int(link.loss_pct * 1e4)} {dribble} {up}\n")
        os.rename(LINKS + ".new", LINKS)

    def start(self, relay):
        for name in self.links:
            run("ip", "netns", "add", name)
            run("ip", "-n", name, "link", "set", "lo", "up")
        self.write()
        p = subprocess.Popen([relay, LINKS], stdout=subprocess.PIPE, preexec_fn=die_with_parent)
        if p.stdout.readline() != b"ready\n":
            raise OSError("the relay between the devices did not start")
        self.relay_pid = p.pid
        for i, (name, link) in enumerate(self.links.items()):
            run("ip", "-n", name, "addr", "add", address(i) + "/24", "dev", "ring0")
            run("ip", "-n", name, "link", "set", "ring0", "up")
            set_rate(name, link.mbit_per_s)

    def change(self):
        """After links or cut have been changed."""
        self.write()
        os.kill(self.relay_pid, signal.SIGHUP)
