"""Runs on this machine, no box, that pack their weights and read them from a slow disk in every pass."""
import os
import subprocess

from lib import job

PRIMA = os.environ.get("PRIMA", "./prima")
SIZES = ("--ctx", "256", "--slots", "2", "--threads", "1")
# So little memory that all layers are read for every token; a disk that makes a run last a second or so.
STREAM = ("--memory", "3100KiB", "--disk-limit", "20MB")
N_PROMPTS, MAX_TOKENS, LIMIT_S = 3, 12, 60


class Failed(Exception):
    pass


class Place:
    def __init__(self, folder):
        self.folder, self.packs = folder, os.path.join(folder, "packs")
        self.prompts, self.wanted = self.path("prompts"), self.path("wanted")
        job.write_prompts(self.prompts, N_PROMPTS, max_tokens=MAX_TOKENS)
        self.run("wanted", "--residency", "resident")

    def path(self, name):
        return os.path.join(self.folder, name)

    def start(self, out, *more, **options):
        command = [PRIMA, "run", job.DEMO, self.prompts, "-o", self.path(out), *SIZES, *more]
        with open(self.path("said"), "wb") as said:
            return subprocess.Popen(command, stderr=said, **options)

    def said(self):
        with open(self.path("said"), encoding="utf-8", errors="replace") as f:
            return f.read()

    def run(self, out, *more):
        status = self.start(out, *more).wait(timeout=LIMIT_S)
        if status != 0:
            raise Failed(f"exit status {status}: {self.said()}")
        return self.said()

    def start_streaming(self, out, *more, **options):
        return self.start(out, *STREAM, "--pack-dir", self.packs, *more, **options)

    def streamed(self, out, *more):
        """Answers the same, and streams; what it said."""
        said = self.run(out, *STREAM, "--pack-dir", self.packs, *more)
        if "are read from disk in every pass" not in said:
            raise Failed(f"nothing was streamed: {said}")
        different = job.differences(self.wanted, self.path(out))
        if different:
            raise Failed("; ".join(different))
        return said
