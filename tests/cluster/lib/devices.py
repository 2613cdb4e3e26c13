"""What a device of a box has beside its namespace: a folder, a cache, sshd or a worker, and what the head
needs to find it: cluster.yaml, a key, nominal profiles, an ssh that knows only the box.

Everything is below /run/box, which ends with the box (namespaces.py):

    cluster.yaml  key  ssh  on        `on NAME COMMAND...` runs a command on a device
    NAME/bin/prima  NAME/cache  NAME/log  profiles/NAME.json
"""
import json
import os
import subprocess
import time

from lib.namespaces import MS_BIND, die_with_parent, mount
from lib.net import address

BOX, PORT = "/run/box", 9700
FASTEST_MBIT_PER_S, LEAST_RTT_MS = 4000, 0.05  # of the relay itself
SSHD_CONFIG = """\
ListenAddress {address}
HostKey {box}/host_key
AuthorizedKeysFile {box}/user_key.pub
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
StrictModes no
PrintMotd no
PidFile none
MaxStartups 100
SetEnv HOME={folder} PATH={folder}/bin:/usr/sbin:/usr/bin:/sbin:/bin PRIMA_CACHE={folder}/cache PRIMA_KEY_FILE={box}/key
"""
ON = """\
#!/bin/sh
# on NAME COMMAND...: run it on a device of the box, in its network and under its limits
name=$1; shift
while read -r group; do echo $$ > "$group/cgroup.procs" || exit 1; done < {box}/"$name"/groups
export PATH={box}/"$name"/bin:"$PATH" PRIMA_CACHE={box}/"$name"/cache PRIMA_KEY_FILE={box}/key PRIMA_SSH={box}/ssh
exec nsenter --net=/run/netns/"$name" -- "$@"
"""
SSH_CONFIG = """\
Host {name}
  HostName {address}
"""
SSH_COMMON = """\
User root
IdentityFile {box}/user_key
IdentitiesOnly yes
UserKnownHostsFile {box}/known_hosts
GlobalKnownHostsFile none
LogLevel ERROR
"""


def write(path, text, mode=0o644):
    with open(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, mode), "w") as f:
        f.write(text)


def folder(name):
    return f"{BOX}/{name}"


def write_profile(d):
    """Nominal figures: enough for a plan with --layers. Who wants real ones runs `prima profile` on the device."""
    types = ("F32", "F16", "Q8_0", "Q6_K", "Q5_K", "Q4_K", "Q4_0")
    profile = {
        "schema": "prima/profile/1",
        "device": d.name,
        "threads": d.threads,
        "ram_total_bytes": 8 << 30,
        "ram_available_bytes": 8 << 30,
        "mem_bytes_per_s": [1e10] * d.threads,
        "compute": [{"type": t, "batch": b, "gflops": 20.0 * min(b, 4)} for t in types for b in (1, 4, 16)],
    }
    if d.disk_read_bytes_per_s:
        disk = {"pattern": "seq", "bs_bytes": 1 << 20, "iodepth": 16, "engine": "prima-uring", "direct": True}
        profile["disk"] = [{**disk, "read_bytes_per_s": d.disk_read_bytes_per_s}]
    write(f"{BOX}/profiles/{d.name}.json", json.dumps(profile))


def cluster_yaml(description):
    def line(i, d):
        keys = {"name": d.name, "host": address(i), "ram": d.ram, "threads": d.threads}
        if d.start == "ssh" and i:
            keys["ssh"] = d.name
        if d.model:
            keys["model"] = json.dumps(d.model)
        return "  - {" + ", ".join(f"{k}: {v}" for k, v in keys.items()) + "}\n"

    def links():
        pairs = [(a, b) for i, a in enumerate(description.devices) for b in description.devices[i + 1 :]]
        for a, b in pairs:
            rate = min(a.link.mbit_per_s or FASTEST_MBIT_PER_S, b.link.mbit_per_s or FASTEST_MBIT_PER_S)
            rtt_ms = a.link.delay_ms + b.link.delay_ms + LEAST_RTT_MS
            yield f"  - {{from: {a.name}, to: {b.name}, mbit_per_s: {rate}, rtt_ms: {rtt_ms}}}\n"

    timeouts = ", ".join(f"{k}: {v}" for k, v in description.timeouts.items())
    return (
        f"schema: prima/cluster/1\ncluster: {description.name}\n"
        f"security: {{mode: psk, key_file: {BOX}/key}}\ndefaults: {{port: {PORT}}}\n"
        + (f"timeouts: {{{timeouts}}}\n" if timeouts else "")
        + "devices:\n"
        + "".join(line(i, d) for i, d in enumerate(description.devices))
        + ("links:\n" + "".join(links()) if len(description.devices) > 1 else "")
    )


def keygen(path):
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "box", "-f", path], check=True)


def write_files(description, prima):
    """All that is the same for every device."""
    os.makedirs(f"{BOX}/profiles")
    keygen(f"{BOX}/host_key")
    keygen(f"{BOX}/user_key")
    subprocess.run([prima, "keygen", "-o", f"{BOX}/key"], check=True, capture_output=True)
    with open(f"{BOX}/host_key.pub") as f:
        host_key = " ".join(f.read().split()[:2])
    addresses = [address(i) for i in range(len(description.devices))]
    write(f"{BOX}/known_hosts", "".join(f"{a} {host_key}\n" for a in addresses))
    hosts = "".join(SSH_CONFIG.format(name=d.name, address=a) for d, a in zip(description.devices, addresses))
    write(f"{BOX}/ssh_config", hosts + "Host *\n" + SSH_COMMON.format(box=BOX))
    write(f"{BOX}/ssh", f'#!/bin/sh\nexec ssh -F {BOX}/ssh_config "$@"\n', 0o755)
    write(f"{BOX}/on", ON.format(box=BOX), 0o755)
    write(f"{BOX}/cluster.yaml", cluster_yaml(description))


def make(d, prima, groups, disk):
    """The device's folder. disk: where its cache is, None: in memory."""
    os.makedirs(folder(d.name) + "/bin")
    os.makedirs(folder(d.name) + "/cache")
    os.symlink(prima, folder(d.name) + "/bin/prima")
    cache = (folder(d.name) + "/cache").encode()
    if disk:
        mount(disk.encode(), cache, None, MS_BIND)
    elif d.cache_bytes:
        mount(b"tmpfs", cache, b"tmpfs", 0, f"size={d.cache_bytes}".encode())
    write(folder(d.name) + "/groups", "".join(g + "\n" for g in groups))
    write_profile(d)


def start_on(d, command):
    with open(folder(d.name) + "/log", "ab") as log:
        return subprocess.Popen(
            [f"{BOX}/on", d.name, *command],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            preexec_fn=die_with_parent,
        )


def start(d, i):
    """sshd, or a worker that listens. The head's own device needs neither."""
    if i and d.start == "ssh":
        text = SSHD_CONFIG.format(address=address(i), box=BOX, folder=folder(d.name))
        write(folder(d.name) + "/sshd_config", text)
        return start_on(d, ["/usr/sbin/sshd", "-D", "-e", "-f", folder(d.name) + "/sshd_config"])
    if i and d.start == "listen":
        threads = str(d.threads)
        return start_on(d, ["prima", "worker", "--listen", f"{address(i)}:{PORT}", "--threads", threads])
    return None


def await_port(d, port, process, limit_s=60):
    """Until somebody listens on that port of the device."""
    end, hex_port = time.monotonic() + limit_s, f":{port:04X} "
    while time.monotonic() < end:
        if process.poll() is not None:
            break
        with open(f"/proc/{process.pid}/net/tcp") as f:
            if any(hex_port in line and " 0A " in line for line in f):
                return
        time.sleep(0.01)
    with open(folder(d.name) + "/log") as f:
        raise OSError(f"{d.name}: nobody listens on port {port}: {f.read()[-400:]}")
