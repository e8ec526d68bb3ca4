# SPDX-License-Identifier: MIT
"""What can be found wrong before anything is downloaded, built or booted."""
import re
import struct
import subprocess
import tomllib

from . import build, emulator, grub_elf
from .project import BUILD, Failure

MIB = 1 << 20
LEAST_GUEST_MEMORY, GUEST_MEMORY_STEP, MOST_GUEST_MEMORY = 16, 2, 16 << 20  # MiB
MOST_GUEST_CPUS = 32
MOST_CPUS = {"bochs": 8, "qemu": 255, "qemu-kvm": 255}
# Beside the VMs and the boot modules: Mullion, GRUB and the firmware, MiB.
LEAST_REST = 32
PT_INTERP, ET_REL = 3, 1
MULTIBOOT_MAGIC = {0x1BADB002: 8192, 0xE85250D6: 32768}  # and within how many bytes it must be


def in_range(name, value, least, most):
    if not least <= value <= most:
        raise Failure(f"{name}: expected {least} to {most}, found {value}")


def guest_size(memory, cpus):
    in_range("--guest-memory", memory, LEAST_GUEST_MEMORY, MOST_GUEST_MEMORY)
    if memory % GUEST_MEMORY_STEP:
        raise Failure(f"--guest-memory: expected a multiple of {GUEST_MEMORY_STEP} MiB, found {memory}: write {memory + GUEST_MEMORY_STEP - 1}")
    in_range("--guest-cpus", cpus, 1, MOST_GUEST_CPUS)


def machine_size(kind, cpus):
    if cpus > MOST_CPUS[kind]:
        raise Failure(f"--cpus: {kind} has at most {MOST_CPUS[kind]} CPUs, found {cpus}")
    in_range("--cpus", cpus, 1, MOST_CPUS[kind])


def memory_suffices(memory, guests, loaded):
    """All in MiB: the machine's memory, that of its VMs if known, and the boot modules."""
    if memory < (needed := guests + loaded + LEAST_REST):
        vms = f"{guests} for the VM, " if guests else "what the VMs have, "
        raise Failure(f"--memory: expected at least {needed} MiB, found {memory}: {vms}{loaded} for the boot modules, "
                      f"{LEAST_REST} for Mullion and GRUB")


def readable_file(what, path):
    if path.is_dir():
        raise Failure(f"{what}: {path} is a folder, expected a file")
    if not path.exists():
        raise Failure(f"{what}: there is no file {path}")
    with open(path, "rb"):  # an OSError says why not
        pass


def kernel(what, path, linux_only=False):
    """linux_only: where GRUB loads it, without Mullion."""
    readable_file(what, path)
    with open(path, "rb") as file:
        start = file.read(max(MULTIBOOT_MAGIC.values()))
    if complaint := kernel_complaint(start, linux_only):
        raise Failure(f"{what}: {path} {complaint}")


def kernel_complaint(start, linux_only=False):
    """Why a file that starts with these bytes cannot be a guest's kernel, or None."""
    if start[0x202:0x206] == b"HdrS":
        return None
    if linux_only:
        return "is no Linux bzImage"
    if start[:4] == b"\x7fELF":
        return elf_complaint(start)
    for magic, limit in MULTIBOOT_MAGIC.items():
        if any(struct.unpack_from("<I", start, at)[0] == magic for at in range(0, min(limit, len(start)) - 3, 4)):
            return None
    if not start:
        return "is empty"
    return "is no kernel: expected a Linux bzImage, an ELF file or a Multiboot header"


def elf_complaint(start):
    is_64 = start[4:5] == b"\x02"
    if len(start) < 64:
        return "is cut"
    kind, machine = struct.unpack_from("<HH", start, 16)
    if start[5] != 1 or machine not in (3, 62):
        return "is an ELF file for another machine than x86"
    at, = struct.unpack_from("<Q" if is_64 else "<I", start, 32 if is_64 else 28)
    size, count = struct.unpack_from("<HH", start, 54 if is_64 else 42)
    types = [struct.unpack_from("<I", start, at + i * size)[0] for i in range(count) if at + i * size + 4 <= len(start)]
    if PT_INTERP in types:
        return "is a program for Linux, not a kernel (it asks for a dynamic loader)"
    if kind == ET_REL or not count:
        return "is an object file that was not linked, not a kernel"
    return None


def hypervisor(path):
    readable_file("--elf", path)
    if found := next(iter(grub_elf.complaints(path.read_bytes())), None):
        raise Failure(f"--elf: {path} is no mullion.elf that GRUB can boot: {found}")


def description(path):
    """What a description holds, so far that its files can be found; it must be TOML, of which Mullion reads a part: see by_mullion()."""
    readable_file("--config", path)
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise Failure(f"{path}: expected text in UTF-8, found the byte {error.object[error.start]:#04x} at offset {error.start}") from None
    except tomllib.TOMLDecodeError as error:
        raise Failure(toml_message(path, str(error))) from None


def by_mullion(path, name, modules, cpus=None, memory=None):
    """By the hypervisor's own parser and loaders: what it would refuse when it starts, is refused here. modules: name -> path;
    cpus and memory (MIB) are the machine's, if it is known."""
    build.build("Building mullion-check", "tools", "mullion-check")
    command = [BUILD / "tools/tools/mullion-check", "--name", name, *(["--cpus", str(cpus)] if cpus else []),
               *(["--memory", str(memory)] if memory else [])]
    for module, file in modules.items():
        command += ["--module", f"{module}={file}"]
    done = subprocess.run([*command, path], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, errors="replace")
    if done.returncode != 0:
        raise Failure(done.stderr.strip() or f"mullion-check ended with status {done.returncode}")


def toml_message(path, text):
    """FILE:LINE first, as Mullion writes it."""
    found = re.fullmatch(r"(.*?) \(at (?:line (\d+), column (\d+)|end of document)\)", text, re.S)
    if not found:
        return f"{path}: {text}"
    if not found.group(2):
        return f"{path}: {found.group(1)}, at the end of the file"
    return f"{path}:{found.group(2)}: {found.group(1)}, at column {found.group(3)}"


def cpu_model(kind, name):
    """The emulator must know it; one that is not there yet cannot be asked."""
    command = {"bochs": [emulator.bochs_binary(), "--help", "cpu"]}.get(kind, ["qemu-system-x86_64", "-cpu", "help"])
    wanted = name.split(",")[0]
    try:
        listing = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60).stdout
    except (OSError, subprocess.TimeoutExpired):
        return
    words = listing.split()
    if wanted and words and wanted not in words:
        raise Failure(f"--cpu-model: {kind} has no CPU model {wanted!r}; `{' '.join(command)}` lists them")
