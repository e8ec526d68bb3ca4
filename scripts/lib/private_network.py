# SPDX-License-Identifier: MIT
"""A listening socket for an emulator in a network of its own.

Bochs can only offer its display as a VNC server, without a password, on every interface of the host. In its own network
namespace nobody but us reaches it, and two of them never meet at one port. Where the host does not allow such namespaces
to ordinary users, the host's own network is used.
"""
import array
import ctypes
import fcntl
import os
import socket
import struct

CLONE_NEWUSER = 0x10000000
CLONE_NEWNET = 0x40000000
SIOCSIFFLAGS = 0x8914
IFF_UP = 1


def listener():
    """Returns (listening socket on 127.0.0.1, function for the child to call before exec)."""
    ours, theirs = socket.socketpair()
    child = os.fork()
    if child == 0:
        try:
            serve(theirs)
        finally:
            os._exit(0)
    theirs.close()
    with ours:
        _, ancillary, _, _ = ours.recvmsg(1, socket.CMSG_SPACE(3 * 4))
    os.waitpid(child, 0)
    descriptors = array.array("i")
    for _, _, data in ancillary:
        descriptors.frombytes(data)
    if not descriptors:
        return listen_on_loopback(), lambda: None
    namespaces = descriptors[1:]

    def enter():
        for descriptor in namespaces:
            if ctypes.CDLL(None, use_errno=True).setns(descriptor, 0) != 0:
                raise OSError(ctypes.get_errno(), "setns")
    return CloseAll(socket.socket(fileno=descriptors[0]), namespaces), enter


class CloseAll:
    """The listening socket; closing it also closes what keeps the namespaces alive."""

    def __init__(self, inner, descriptors):
        self._inner = inner
        self._descriptors = descriptors

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        self._inner.close()
        for descriptor in self._descriptors:
            os.close(descriptor)

    def __getattr__(self, name):
        return getattr(self._inner, name)


def listen_on_loopback():
    result = socket.socket()
    result.bind(("127.0.0.1", 0))
    result.listen(1)
    return result


def serve(channel):
    """In a child process: makes the namespaces, listens in them, sends the descriptors (none when it is not allowed)."""
    user, group = os.getuid(), os.getgid()
    flags = CLONE_NEWNET if user == 0 else CLONE_NEWUSER | CLONE_NEWNET
    if ctypes.CDLL(None).unshare(flags) != 0:
        return
    if user != 0:
        write("/proc/self/setgroups", "deny")
        write("/proc/self/uid_map", f"{user} {user} 1")
        write("/proc/self/gid_map", f"{group} {group} 1")
    with socket.socket() as control:
        fcntl.ioctl(control, SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", IFF_UP))
    socket_here = listen_on_loopback()
    names = ["net"] if user == 0 else ["user", "net"]
    descriptors = [socket_here.fileno()] + [os.open(f"/proc/self/ns/{name}", os.O_RDONLY) for name in names]
    socket.send_fds(channel, [b"x"], descriptors)


def write(path, text):
    with open(path, "w", encoding="ascii") as file:
        file.write(text)
