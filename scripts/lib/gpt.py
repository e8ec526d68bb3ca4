# SPDX-License-Identifier: MIT
"""Partition tables of disk images. [uefi] 5.3"""
import dataclasses
import struct
import uuid
import zlib

SECTOR = 512
LINUX_ROOT = "4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709"  # the type of a root of x86-64
ENTRIES, ENTRY_SIZE, HEADER_SIZE = 128, 128, 92
TABLE_SECTORS = ENTRIES * ENTRY_SIZE // SECTOR
MOST_TABLE_BYTES = 1 << 20  # of a table that is read: more than any tool writes
SIGNATURE = b"EFI PART"
HEADER = "<8sIIIIQQQQ16sQIII"
LABEL_BYTES = 72


@dataclasses.dataclass
class Partition:
    kind: str  # the GUID of its type
    first: int  # sector
    last: int
    label: str = ""
    identity: str = ""  # its own GUID

    @property
    def offset(self):
        return self.first * SECTOR

    @property
    def size(self):
        return (self.last - self.first + 1) * SECTOR


def guid(text):
    return uuid.UUID(text).bytes_le


def write(file, size, partitions, identity):
    """Writes both copies of a table into a file of this size that is open for writing. identity: the disk's GUID."""
    last = size // SECTOR - 1
    entries = b"".join(guid(part.kind) + guid(part.identity) + struct.pack("<QQQ", part.first, part.last, 0)
                       + part.label.encode("utf-16-le").ljust(LABEL_BYTES, b"\0") for part in partitions).ljust(ENTRIES * ENTRY_SIZE, b"\0")

    def header(here, other, table):
        fields = struct.pack(HEADER, SIGNATURE, 0x10000, HEADER_SIZE, 0, 0, here, other, 2 + TABLE_SECTORS, last - 1 - TABLE_SECTORS,
                             guid(identity), table, ENTRIES, ENTRY_SIZE, zlib.crc32(entries))
        return (fields[:16] + struct.pack("<I", zlib.crc32(fields)) + fields[20:]).ljust(SECTOR, b"\0")
    protective = struct.pack("<B3sB3sII", 0, b"\0\2\0", 0xEE, b"\xff\xff\xff", 1, min(last, 0xFFFFFFFF))
    file.seek(446)
    file.write(protective + bytes(48) + b"\x55\xaa" + header(1, last, 2) + entries)
    file.seek((last - TABLE_SECTORS) * SECTOR)
    file.write(entries + header(last, 1, last - TABLE_SECTORS))


def read(file):
    """Returns the partitions of the first copy that is whole, or None if the file has neither. Expects sectors of 512 bytes."""
    file.seek(0, 2)
    sectors = file.tell() // SECTOR
    for place in (1, sectors - 1):
        if place > 0 and (found := read_copy(file, place, sectors)) is not None:
            return found
    return None


def read_copy(file, place, sectors):
    file.seek(place * SECTOR)
    sector = file.read(SECTOR)
    if len(sector) < SECTOR or sector[:8] != SIGNATURE:
        return None
    fields = struct.unpack_from(HEADER, sector)
    size, checksum, here, table, count, step, table_checksum = fields[2], fields[3], fields[5], fields[10], *fields[11:14]
    if not HEADER_SIZE <= size <= SECTOR or here != place or step < ENTRY_SIZE or step % 8 or not 0 < count * step <= MOST_TABLE_BYTES:
        return None
    if zlib.crc32(sector[:16] + bytes(4) + sector[20:size]) != checksum or not 2 <= table < sectors:
        return None
    file.seek(table * SECTOR)
    entries = file.read(count * step)
    if len(entries) < count * step or zlib.crc32(entries) != table_checksum:
        return None
    return [partition for at in range(0, count * step, step) if (partition := entry(entries[at:at + ENTRY_SIZE], sectors))]


def entry(raw, sectors):
    """The partition that an entry describes, or None: it is not in use, or not on this disk."""
    first, last = struct.unpack_from("<QQ", raw, 32)
    if not any(raw[:16]) or not 0 < first <= last < sectors:
        return None
    label = raw[56:56 + LABEL_BYTES].decode("utf-16-le", errors="replace").split("\0")[0]
    return Partition(str(uuid.UUID(bytes_le=raw[:16])).upper(), first, last, label, str(uuid.UUID(bytes_le=raw[16:32])))
