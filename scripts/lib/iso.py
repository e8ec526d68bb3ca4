# SPDX-License-Identifier: MIT
"""Makes a bootable ISO (BIOS and UEFI, from CD or disk) with GRUB on it."""
import os
import pathlib
import re
import shlex
import shutil
import subprocess

from .project import Failure, die_with_parent, replacing, scratch_folder

# Not the time of the build: the same input makes the same image.
IMAGE_TIME = 1700000000
MODULES = "normal iso9660 part_msdos part_gpt part_acorn part_amiga part_apple part_bsd part_dfly part_dvh part_plan part_sun " \
          "part_sunpc fat multiboot multiboot2 acpi linux serial terminal terminfo echo test minicmd configfile reboot halt all_video"
# EFI has no text mode to leave to the hypervisor: without a video driver in GRUB it would get no screen. On a BIOS, GRUB's
# must stay out: its VBE probe damages its own heap with some BIOSes.
PREAMBLE = """serial --unit=0 --speed=115200
terminfo serial dumb
terminal_input console serial
terminal_output console serial
if [ "$grub_platform" = efi ]; then insmod efi_gop; set gfxpayload=auto; fi
"""


# What GRUB writes when a command of ours failed, before it stands at its prompt.
NOT_LOADED = "GRUB could not load Mullion: see above."


def quoted(words):
    """Words as GRUB's shell reads them, each as it is."""
    return " ".join(word if re.fullmatch(r"[A-Za-z0-9._+,:/@%=-]+", word) else "'" + word.replace("'", "'\\''") + "'" for word in words)


def mullion_config(options, modules):
    """modules: names, or a mapping of which they are the keys; files() puts their files in the same places."""
    lines = [f"multiboot2 /boot/mullion.elf {quoted(options.split())}".rstrip()]
    lines += [f"module2 /{place} {name}" for name, place in places(modules).items()]
    return lines


def places(modules):
    """Where each module is on the image. A name with folders in it gets a folder with a number instead."""
    return {name: f"boot/modules/{name}" if "/" not in name else f"boot/modules/{number}/{name.rsplit('/', 1)[1]}"
            for number, name in enumerate(modules)}


def files(modules):
    """Maps the place of each module to its content."""
    return {place: modules[name] for name, place in places(modules).items()}


def linux_config(command_line):
    return [f"linux /boot/modules/vmlinuz {quoted(split(command_line))}", "initrd /boot/modules/initrd.img"]


def multiboot_config(kernel, options):
    """A guest kernel of tests/guest, without Mullion underneath."""
    return [f"multiboot /boot/modules/{kernel} {quoted(split(options))}".rstrip()]


def split(command_line):
    try:
        return shlex.split(command_line)
    except ValueError as error:
        raise Failure(f"the command line {command_line!r}: {error}") from None


def grub_config(commands):
    """Each command must succeed for the next to run; the message of the one that fails stays on both terminals."""
    chain = "if " + "; then if ".join(commands) + "; then boot; fi" + "; fi" * (len(commands) - 1)
    return PREAMBLE + chain + f'\necho "{NOT_LOADED}"\n'


def build(output, commands, files):
    """Writes OUTPUT: `files` maps a path on the image to a file here or to bytes, `commands` are GRUB's."""
    with scratch_folder("image") as folder:
        tree = folder / "tree"
        for path, content in {**files, "boot/grub/grub.cfg": grub_config(commands).encode()}.items():
            target = tree / path
            target.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, bytes):
                target.write_bytes(content)
            else:
                shutil.copyfile(content, target)
        for path in [*tree.rglob("*"), tree]:
            os.utime(path, (IMAGE_TIME, IMAGE_TIME))
            path.chmod(0o755 if path.is_dir() else 0o644)
        image = folder / "image.iso"
        rescue(image, tree)
        remove_the_clock(image)
        with replacing(output) as partial:
            shutil.copyfile(image, partial)


def build_data(output, files):
    """Writes an image with files only, that nothing boots from."""
    with scratch_folder("image") as folder:
        for name, content in files.items():
            (folder / name).write_bytes(content if isinstance(content, bytes) else content.read_bytes())
        subprocess.run(["xorriso", "-as", "mkisofs", "-quiet", "-R", "-o", output, folder], check=True, capture_output=True)


def rescue(output, tree):
    modules = [name for name in MODULES.split() if pathlib.Path(f"/usr/lib/grub/i386-pc/{name}.mod").exists()]
    command = ["grub-mkrescue", "--output", str(output), f"--install-modules={' '.join(modules)}", "--fonts=", "--locales=", "--themes=",
               "--compress=no", str(tree), "--", "-volid", "MULLION", "-volume_date", "uuid", "2023111422132000",
               "-volume_date", "all_file_dates", f"={IMAGE_TIME}"]
    # Its own temporary files go where ours are, and away with them.
    environment = {**os.environ, "SOURCE_DATE_EPOCH": str(IMAGE_TIME), "LC_ALL": "C", "TZ": "UTC", "TMPDIR": str(output.parent)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, errors="replace", stdin=subprocess.DEVNULL,
                          preexec_fn=die_with_parent)
    if done.returncode != 0 or not output.exists():
        raise Failure(f"grub-mkrescue failed:\n{done.stderr.strip()}")


def remove_the_clock(image):
    """Overwrites what grub-mkrescue and mformat take from the clock: GRUB 2.12 finds its medium by a file that is named after the
    time, and the EFI system partition has a serial number."""
    content = image.read_bytes()
    found = re.search(rb"/\.disk/(\d{4}(?:-\d\d){6})\.uuid", content)
    if found:
        now, fixed = found.group(1).decode(), "2023-11-14-22-13-20-00"
        content = content.replace(f"{now}.uuid".encode(), f"{fixed}.uuid".encode())
        content = content.replace(f"{now}.uuid".encode("utf-16-be"), f"{fixed}.uuid".encode("utf-16-be"))  # Joliet
        short = [stem.replace("-", "_")[:8].encode() + b".UUI;1" for stem in (now, fixed)]  # ISO 9660
        content = content.replace(*short)
    content = bytearray(content)
    for sector in range(0, min(len(content), 1 << 20) - 511, 512):
        if content[sector + 3:sector + 7] == b"MTOO" and content[sector + 38] == 0x29:
            content[sector + 39:sector + 43] = b"MULL"
    image.write_bytes(content)


def module_name(text):
    if not re.fullmatch(r"[A-Za-z0-9._+/-]+", text):
        raise Failure(f"module name {text!r}: only letters, digits and . _ + - / can be named in GRUB")
    return text
