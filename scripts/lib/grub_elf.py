# SPDX-License-Identifier: MIT
"""What GRUB's Multiboot2 loader tests before it boots an ELF64 file: versions 2.06, 2.12 and 2.14, which refuse different things.
GRUB is not asked itself, because a computer has one of these versions only. Source: GRUB 2.14, grub-core/loader/multiboot_mbi2.c,
multiboot_elfxx.c and grub-core/kern/elfXX.c; the file format: [elf]."""
import dataclasses
import struct

SEARCH = 32768  # how much of the file is searched for the header, [multiboot2] 3.1
MAGIC, HEADER_ALIGN = 0xE85250D6, 8
FOUR_GIB = 1 << 32
ET_EXEC, ET_DYN, EM_X86_64, PT_LOAD = 2, 3, 62, 1
SHT_RELOCATIONS, SHN_LORESERVE, PN_XNUM = (4, 9), 0xFF00, 0xFFFF
# GRUB gives memory to every section without an address and loads it, debug information too; GRUB 2.06 corrupts its heap with
# megabytes of it. A table of the sections' names is all that should be left.
MOST_BYTES_WITHOUT_ADDRESS = 4096


@dataclasses.dataclass
class Segment:
    kind: int
    flags: int
    offset: int
    virtual: int
    physical: int
    file_size: int
    memory_size: int
    align: int


@dataclasses.dataclass
class Section:
    name: int
    kind: int
    flags: int
    address: int
    offset: int
    size: int
    link: int
    info: int
    align: int
    entry_size: int


HEADER, SEGMENT, SECTION = struct.Struct("<16sHHIQQQIHHHHHH"), struct.Struct("<IIQQQQQQ"), struct.Struct("<IIQQQQIIQQ")


def complaints(content):
    """Yields why GRUB would not boot this file (bytes)."""
    if len(content) < HEADER.size or content[:4] != b"\x7fELF":
        yield "it is no ELF file"
        return
    (identity, kind, machine, version, entry, segments_at, sections_at, _, _, segment_size, segment_count, section_size, section_count,
     names_index) = HEADER.unpack_from(content)
    if identity[4] != 2 or identity[5] != 1 or machine != EM_X86_64 or version != 1 or kind not in (ET_EXEC, ET_DYN):
        yield "it is no executable ELF64 file for x86-64"
        return
    if not has_multiboot2_header(content):
        yield f"its first {SEARCH} bytes have no Multiboot2 header"
    yield from segment_complaints(content, entry, segments_at, segment_size, segment_count)
    yield from section_complaints(content, sections_at, section_size, section_count, names_index)


def has_multiboot2_header(content):
    for offset in range(0, min(SEARCH, len(content)) - 15, HEADER_ALIGN):
        magic, architecture, length, checksum = struct.unpack_from("<IIII", content, offset)
        if magic == MAGIC and architecture == 0 and (magic + architecture + length + checksum) % FOUR_GIB == 0:
            return offset + length <= SEARCH
    return False


def segment_complaints(content, entry, at, size, count):
    if size != SEGMENT.size or not 0 < count < PN_XNUM:
        yield f"e_phentsize is {size} and e_phnum {count}"
        return
    if at + count * size > min(SEARCH, len(content)):
        yield f"the program headers end at {at + count * size:#x}, after what GRUB reads"
        return
    segments = [Segment(*SEGMENT.unpack_from(content, at + i * size)) for i in range(count)]
    for segment in segments:
        if segment.kind != PT_LOAD:
            continue
        if segment.physical + segment.memory_size > FOUR_GIB:
            yield f"the segment at {segment.physical:#x} crosses 4 GiB"
        if segment.offset + segment.file_size > len(content):
            yield f"the segment at {segment.physical:#x} ends after the file's end"
        if segment.file_size > segment.memory_size:
            yield f"the segment at {segment.physical:#x} has more bytes in the file than in memory"
    around = [segment for segment in segments if segment.virtual <= entry < segment.virtual + segment.memory_size]
    if not around:
        yield f"the entry point {entry:#x} is in no segment"
    elif entry - around[0].virtual + around[0].physical >= FOUR_GIB:
        yield f"the entry point {entry:#x} is loaded above 4 GiB"


def section_complaints(content, at, size, count, names_index):
    if at == 0 or not 0 < count < SHN_LORESERVE:
        yield f"e_shoff is {at} and e_shnum {count}: GRUB 2.12 and later want a section header table"
        return
    if names_index >= min(count, SHN_LORESERVE):
        yield f"e_shstrndx is {names_index}, but there are {count} sections"
    if size != SECTION.size or at + count * size > len(content):
        yield f"the section header table ({count} times {size} bytes at {at:#x}) ends after the file's end"
        return
    sections = [Section(*SECTION.unpack_from(content, at + i * size)) for i in range(count)]
    if any(section.kind in SHT_RELOCATIONS for section in sections):
        yield "it has relocation sections"
    loaded = [section for section in sections if section.address == 0 and section.size != 0]
    for section in loaded:
        # GRUB reads these bytes from the file whatever the section's type says.
        if section.offset + section.size > len(content):
            yield f"the section at offset {section.offset:#x} ends after the file's end"
    if sum(section.size for section in loaded) > MOST_BYTES_WITHOUT_ADDRESS:
        yield f"GRUB would load {sum(section.size for section in loaded)} bytes of sections that have no address (debug information?)"
