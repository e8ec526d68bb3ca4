# SPDX-License-Identifier: MIT
"""Writes "newc" cpio archives, byte for byte the same for the same content: no time, inode or owner of the build machine."""
import stat


class Archive:
    def __init__(self):
        self._parts = []
        self._inode = 0
        self._directories = set()

    def directory(self, path, mode=0o755):
        if path and path not in self._directories:
            self.directory(path.rpartition("/")[0])
            self._directories.add(path)
            self._entry(path, stat.S_IFDIR | mode, b"")

    def file(self, path, content, mode=0o644):
        self.directory(path.rpartition("/")[0])
        self._entry(path, stat.S_IFREG | mode, content)

    def symlink(self, path, target):
        self.directory(path.rpartition("/")[0])
        self._entry(path, stat.S_IFLNK | 0o777, target.encode())

    def character_device(self, path, major, minor, mode=0o600):
        self.directory(path.rpartition("/")[0])
        self._entry(path, stat.S_IFCHR | mode, b"", major, minor)

    def finish(self):
        """Returns the archive, padded to 512 bytes so that another one may follow it."""
        self._inode = 0
        self._entry("TRAILER!!!", 0, b"")
        whole = b"".join(self._parts)
        return whole + bytes(-len(whole) % 512)

    def _entry(self, path, mode, content, major=0, minor=0):
        self._inode += 1
        links = 2 if stat.S_ISDIR(mode) else 1
        name = path.encode() + b"\0"
        fields = (self._inode, mode, 0, 0, links, 0, len(content), 0, 0, major, minor, len(name), 0)
        head = b"070701" + b"".join(b"%08X" % field for field in fields) + name
        self._parts.append(head + bytes(-len(head) % 4) + content + bytes(-len(content) % 4))
