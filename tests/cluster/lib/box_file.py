"""box.yaml -> a checked description: every key known, every number with its unit."""
import re
from dataclasses import dataclass, field

from lib import yaml_subset

SIZES = {"": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "kB": 10**3, "MB": 10**6, "GB": 10**9}


class BadBox(Exception):
    pass


@dataclass
class Link:
    """What happens to what a device sends. rate None: as fast as it goes."""

    mbit_per_s: float = None
    delay_ms: float = 0
    jitter_ms: float = 0
    loss_pct: float = 0
    dribble_bytes: int = 0  # TCP arrives in segments of so many bytes, this long after each other; 0: as it was sent
    dribble_ms: float = 0


@dataclass
class Device:
    name: str
    ram: str = "600MiB"  # budget in cluster.yaml
    start: str = "ssh"  # by the head through sshd; "listen": runs already; "none": nothing runs
    memory_bytes: int = None  # limits by the kernel
    cpus: float = None
    disk_read_bytes_per_s: int = None  # then the cache is on a real disk
    cache_bytes: int = None  # size of the file system (in memory) that PRIMA_CACHE is on; None: no limit
    threads: int = 1
    model: str = ""  # local file; none: the head sends what is needed
    link: Link = field(default_factory=Link)


@dataclass
class Description:
    name: str
    timeouts: dict
    devices: list


def size_bytes(text):
    found = re.fullmatch(r"(\d+)([A-Za-z]*)", str(text))
    if not found or found[2] not in SIZES:
        raise BadBox(f"'{text}' is not a size such as 512MiB")
    return int(found[1]) * SIZES[found[2]]


def known_keys(what, given, known):
    if not isinstance(given, dict):
        raise BadBox(f"{what}: a mapping expected")
    for key in given:
        if key not in known:
            raise BadBox(f"{what}: unknown key '{key}' (known: {', '.join(known)})")


def read_link(what, given, default):
    known = list(vars(Link()))
    known_keys(what, given, known)
    for key, value in given.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)) or value < 0:
            raise BadBox(f"{what}: {key}: a number expected")
    return Link(**{**vars(default), **given})


def read_device(i, given, default_link):
    known_keys(
        f"devices[{i}]",
        given,
        ["name", "ram", "start", "memory", "cpus", "disk_read", "cache", "threads", "model", "link"],
    )
    name = given.get("name", "")
    if not re.fullmatch(r"[a-z0-9-]{1,32}", str(name)):
        raise BadBox(f"devices[{i}]: a name of a-z 0-9 - expected, found '{name}'")
    d = Device(name=str(name), link=read_link(f"{name}: link", given.get("link", {}), default_link))
    for key in ("ram", "start", "cpus", "threads", "model"):
        setattr(d, key, given.get(key, getattr(d, key)))
    for key, target in (("memory", "memory_bytes"), ("disk_read", "disk_read_bytes_per_s"), ("cache", "cache_bytes")):
        if key in given:
            setattr(d, target, size_bytes(given[key]))
    if d.cache_bytes and d.disk_read_bytes_per_s:
        raise BadBox(f"{name}: cache is a file system in memory, whose reads cannot be limited: cache or disk_read")
    if d.start not in ("ssh", "listen", "none"):
        raise BadBox(f"{name}: start: expected ssh, listen or none")
    return d


def read(path):
    try:
        with open(path, encoding="utf-8") as f:
            given = yaml_subset.read(f.read())
        known_keys("box", given, ["schema", "box", "timeouts", "link", "devices"])
        if given.get("schema") != "prima/box/1":
            raise BadBox("schema: prima/box/1 expected")
        if not isinstance(given.get("devices"), list) or not 1 <= len(given["devices"]) <= 32:
            raise BadBox("devices: a list of 1 to 32 expected")
        link = read_link("link", given.get("link", {}), Link())
        devices = [read_device(i, d, link) for i, d in enumerate(given["devices"])]
        if len({d.name for d in devices}) < len(devices):
            raise BadBox("devices: two have the same name")
        return Description(given.get("box", "box"), given.get("timeouts", {}), devices)
    except (yaml_subset.BadYaml, BadBox) as e:
        raise BadBox(f"{path}: {e}") from None
