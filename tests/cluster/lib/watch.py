"""`prima run` as a process that is watched: what it says and when, how many lines it has written."""
import os
import re
import subprocess
import threading
import time

BROKEN, MENDED = re.compile("the ring has broken"), re.compile(r"the ring runs again|ring of \d+ devices ready")


def slack_s():
    """What a time limit has on top, on a machine that may do other things too."""
    return 2.0 + 0.5 * os.getloadavg()[0] / os.cpu_count()


class Run:
    def __init__(self, command, out, **options):
        self.out, self.said, self.started = out, [], time.monotonic()
        self.p = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, errors="replace", **options)
        self.thread = threading.Thread(target=self.listen, daemon=True)
        self.thread.start()

    def listen(self):
        for line in self.p.stderr:
            self.said.append((time.monotonic(), line.rstrip("\n")))

    def first(self, pattern, since=0):
        """When a line with this was said, and the line; or None."""
        for at, line in list(self.said):
            if at >= since and re.search(pattern, line):
                return at, line
        return None

    def await_line(self, pattern, limit_s, since=0):
        end = time.monotonic() + limit_s
        while time.monotonic() < end:
            found = self.first(pattern, since)
            if found or self.p.poll() is not None and not self.thread.is_alive():
                return found
            time.sleep(0.01)
        return None

    def is_whole(self):
        """The ring runs: said since it last broke."""
        whole = False
        for _, line in list(self.said):
            if MENDED.search(line):
                whole = True
            elif BROKEN.search(line):
                whole = False
        return whole

    def has(self, name):
        """The device is in the ring, as far as was said."""
        there = True
        for _, line in list(self.said):
            if f"going on without {name}:" in line:
                there = False
            elif f"{name} is back" in line:
                there = True
        return there

    def lines(self):
        try:
            with open(self.out, "rb") as f:
                return f.read().count(b"\n")
        except FileNotFoundError:
            return 0

    def text(self, last=None):
        lines = self.said[-last:] if last else self.said
        return "\n".join(f"{at - self.started:8.2f}  {line}" for at, line in lines)

    def wait(self, limit_s):
        """The exit status; None: it still runs after that long."""
        try:
            status = self.p.wait(timeout=max(0.01, limit_s))
        except subprocess.TimeoutExpired:
            return None
        self.thread.join(5)
        return status
