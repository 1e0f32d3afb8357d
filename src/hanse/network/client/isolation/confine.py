"""Confines a program, then becomes it: a script that needs nothing but Python's own library.

It is started as `python -I -S confine.py SPEC COMMAND...`. SPEC is JSON, see `launch.py`. The new process
has namespaces of its own (unless bubblewrap has made them), limits, and a filter of system calls.
"""

import ctypes
import errno
import json
import os
import platform
import resource
import signal
import struct
import sys
from typing import Any

NEW_NAMESPACES = {
    "mounts": 0x00020000,
    "cgroups": 0x02000000,
    "names": 0x04000000,
    "ipc": 0x08000000,
    "users": 0x10000000,
    "processes": 0x20000000,
    "network": 0x40000000,
}
"""The flags of unshare(2), <linux/sched.h>."""

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1, 2, 4, 32, 4096, 16384, 1 << 18
MNT_DETACH, AT_FDCWD, AT_RECURSIVE, MOUNT_SETATTR = 2, -100, 0x8000, 442
PR_SET_PDEATHSIG, PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS = 1, 22, 38
NOBODY = 65534

FORBIDDEN = {
    # fork, vfork, ptrace, add_key, request_key, keyctl, unshare, bpf, io_uring_setup
    "x86_64": (57, 58, 101, 248, 249, 250, 272, 321, 425),
    "aarch64": (117, 217, 218, 219, 97, 280, 425),
}
"""The numbers of system calls that are answered with EPERM."""

CLONE = {"x86_64": 56, "aarch64": 220}
CLONE3, CLONE_THREAD = 435, 0x00010000
AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}

libc = ctypes.CDLL(None, use_errno=True)


def call(name: str, *given: Any) -> int:
    """Calls a function of the C library. Raises: OSError."""
    result: int = getattr(libc, name)(*given)
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
    return result


def enter_namespaces(spec: dict[str, Any]) -> None:
    """Continues as a process in namespaces of its own, which sees only what the spec shows.

    This process waits for that one, and ends as it does.
    """
    uid, gid = os.getuid(), os.getgid()
    call("prctl", PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    call("unshare", sum(NEW_NAMESPACES.values()))
    for name, text in (
        ("setgroups", "deny"),
        ("gid_map", f"{gid or NOBODY} {gid} 1"),
        ("uid_map", f"{uid or NOBODY} {uid} 1"),  # no root here: it would keep capabilities
    ):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)
    _follow(os.fork())
    call("prctl", PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    make_root(spec)
    _follow(os.fork())  # the first process of a namespace ignores signals, so it only waits


def _follow(pid: int) -> None:
    """Waits for a child and ends as it does; returns in the child."""
    if pid == 0:
        return
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        os._exit(128 + os.WTERMSIG(status))
    os._exit(os.WEXITSTATUS(status))


def make_root(spec: dict[str, Any]) -> None:
    """Builds the file system that is seen from here: what may be read, and a scratch folder in memory."""
    mount("none", "/", "", MS_REC | MS_PRIVATE)
    mount("tmpfs", "/tmp", "tmpfs", MS_NOSUID | MS_NODEV, "size=1m,mode=755")
    os.mkdir("/tmp/.old")
    call("syscall", {"x86_64": 155, "aarch64": 41}[platform.machine()], b"/tmp", b"/tmp/.old")  # pivot_root
    os.chdir("/")
    os.mkdir("/tmp")
    mount("tmpfs", "/tmp", "tmpfs", MS_NOSUID | MS_NODEV, f"size={spec['scratch_bytes']},mode=700")
    for path in spec["readable"]:
        _bind(path, devices=False)
    for path in spec["hidden"]:
        if os.path.isdir(f"/.old{path}"):
            os.makedirs(path, exist_ok=True)
            mount("tmpfs", path, "tmpfs", MS_NOSUID | MS_NODEV, "size=64k,mode=755")
    for path in spec["shown"]:
        _bind(path, devices=False)
    for path in spec["masked"]:
        mount("/.old/dev/null", path, "", MS_BIND)
    for path in spec["devices"]:
        _bind(path, devices=True)
    os.makedirs("/proc", exist_ok=True)
    mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV)
    call("umount2", b"/.old", MNT_DETACH)
    os.rmdir("/.old")
    for path in spec["hidden"]:
        if os.path.ismount(path):
            mount("none", path, "", MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV)
    mount("none", "/", "", MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV)


def mount(source: str, target: str, kind: str, flags: int, data: str = "") -> None:
    """Mounts a file system. Raises: OSError."""
    call("mount", source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), data.encode())


def _bind(path: str, *, devices: bool) -> None:
    """Shows a file or folder of the old root at the same place, without a way to write to it."""
    old = f"/.old{path}"
    if not os.path.exists(old):
        return
    if os.path.isdir(old):
        os.makedirs(path, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        if not os.path.exists(path):
            os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
    mount(old, path, "", MS_BIND | MS_REC)
    flags = MS_RDONLY | MS_NOSUID | (0 if devices else MS_NODEV)
    attributes = struct.pack("QQQQ", flags, 0, 0, 0)
    call("syscall", MOUNT_SETATTR, AT_FDCWD, path.encode(), AT_RECURSIVE, attributes, len(attributes))


def set_limits(limits: dict[str, int]) -> None:
    """Sets limits of resources, and lets the kernel end this process first if memory runs out."""
    for name, most in limits.items():
        number = getattr(resource, f"RLIMIT_{name}")
        _, hard = resource.getrlimit(number)
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(number, (most, most))
    try:
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write("1000")
    except OSError:  # it may be read-only here
        pass


def filter_calls() -> None:
    """Forbids to start processes, and calls that no computation needs. Threads are allowed."""
    call("prctl", PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    machine = platform.machine()
    if machine not in AUDIT_ARCH:
        raise OSError(errno.ENOSYS, f"no filter of system calls is known for {machine}")
    allow, deny, absent, kill = 0x7FFF0000, 0x00050000 | errno.EPERM, 0x00050000 | errno.ENOSYS, 0x80000000
    load, equal, at_least, has_bits, give = 0x20, 0x15, 0x35, 0x45, 0x06
    program = [
        (load, 0, 0, 4),  # the architecture
        (equal, 1, 0, AUDIT_ARCH[machine]),
        (give, 0, 0, kill),
        (load, 0, 0, 0),  # the number of the call
        (at_least, 0, 1, 0x40000000),  # another set of numbers (x32)
        (give, 0, 0, kill),
        (equal, 0, 1, CLONE3),
        (give, 0, 0, absent),  # the C library uses clone then, whose flags can be read
    ]
    for number in FORBIDDEN[machine]:
        program += [(equal, 0, 1, number), (give, 0, 0, deny)]
    program += [
        (equal, 0, 3, CLONE[machine]),
        (load, 0, 0, 16),  # its flags
        (has_bits, 1, 0, CLONE_THREAD),
        (give, 0, 0, deny),
        (give, 0, 0, allow),
    ]
    packed = b"".join(struct.pack("HBBI", *one) for one in program)
    held = ctypes.create_string_buffer(packed, len(packed))
    whole = struct.pack("HxxxxxxP", len(program), ctypes.addressof(held))
    call("prctl", PR_SET_SECCOMP, 2, whole, 0, 0)


def become() -> None:
    """Confines this process as the first argument says, and becomes the command of the others."""
    spec, command = json.loads(sys.argv[1]), sys.argv[2:]
    try:
        if spec["namespaces"]:
            enter_namespaces(spec)
        os.chdir("/tmp")
        set_limits(spec["limits"])
        filter_calls()
        os.execv(command[0], command)
    except OSError as error:
        sys.exit(f"{error.strerror or error} {error.filename or ''}".strip())


if __name__ == "__main__":
    become()
