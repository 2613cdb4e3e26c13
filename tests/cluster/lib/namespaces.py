"""A place of its own for a box: mounts, process numbers and /run that end with it, whatever ends it.

The process that calls enter() becomes the keeper; what comes back is its child, process 1 of a new PID
namespace, which the kernel ends together with everything in it when the keeper dies, also by SIGKILL. Named
network namespaces live in the new /run and go the same way. So nothing has to be cleaned up by hand there.
"""
import ctypes
import os
import signal

CLONE_NEWNS, CLONE_NEWPID = 0x20000, 0x20000000
MS_BIND, MS_REC, MS_PRIVATE = 1 << 12, 1 << 14, 1 << 18
PR_SET_PDEATHSIG = 1
libc = ctypes.CDLL(None, use_errno=True)


def check(rc, what):
    if rc != 0:
        e = ctypes.get_errno()
        raise OSError(e, f"{what}: {os.strerror(e)}")


def die_with_parent():
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def why_not():
    """Why no box can be made here, or None. Tries it."""
    if os.geteuid() != 0:
        return "a box needs root"
    if not os.path.exists("/dev/net/tun"):
        return "a box needs /dev/net/tun"
    pid = os.fork()
    if pid == 0:
        os._exit(1 if libc.unshare(CLONE_NEWNS | CLONE_NEWPID | 0x40000000) else 0)
    return "namespaces are not allowed here" if os.waitpid(pid, 0)[1] else None


def mount(what, where, kind, flags=0, options=None):
    check(libc.mount(what, where, kind, flags, options), f"mount {where}")


def enter():
    """Returns the child's process number, as it is outside, and whether this is the child."""
    check(libc.unshare(CLONE_NEWPID), "unshare")
    pid = os.fork()
    if pid:
        return pid, False
    die_with_parent()
    outside = int(os.readlink("/proc/self"))
    check(libc.unshare(CLONE_NEWNS), "unshare")
    mount(b"none", b"/", None, MS_REC | MS_PRIVATE)
    mount(b"proc", b"/proc", b"proc")
    mount(b"tmpfs", b"/run", b"tmpfs", 0, b"mode=755")
    os.makedirs("/run/netns")
    os.makedirs("/run/sshd")
    return outside, True


def keep(pid):
    """The keeper waits for its child and passes signals on. The child's exit status."""
    for s in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(s, lambda n, _: os.kill(pid, n))
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
