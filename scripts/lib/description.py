# SPDX-License-Identifier: MIT
"""VM descriptions: the one `run` writes, and the files that a user's own one names."""

from . import iso
from .project import Failure

FILE_KEYS = ("kernel", "initrd", "modules", "source")


def default(memory, cpus, command_line, kernel="vmlinuz", initrd="initrd.img", name="linux", restart="never", physical=None, disk=None):
    """memory in MiB; initrd may be None; physical: the machine's CPUs on which it may run; disk: the source of one. Without another
    word in `restart`, a guest that reboots ends the machine: whoever waits for its end does not wait for ever for one that panics
    again and again."""
    lines = [f"[vm.{name}]", f'memory = "{memory}M"', f"vcpus = {cpus}", f"kernel = {quoted(kernel)}"]
    if physical:
        lines.append(f"cpus = {quoted(physical)}")
    if initrd:
        lines.append(f"initrd = {quoted(initrd)}")
    lines += [f"cmdline = {quoted(command_line)}", f"restart = {quoted(restart)}"]
    if disk:
        lines += ["", f"[[vm.{name}.disk]]", f"source = {quoted(disk)}"]
    return "\n".join(lines) + "\n"


def quoted(text):
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def file_in(key, text):
    """The module name in a value of this key, or None."""
    if key == "modules":  # a name and, after a space, its command line
        return text.split(" ")[0]
    if key == "source":  # of a disk
        return text.removeprefix("module:") if text.startswith("module:") else None
    return text


def files_named(content, keys=FILE_KEYS):
    """The module names that a description asks for under these keys, given what its TOML holds."""
    found = []
    pending = [content]
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            for key in keys:
                named = value.get(key)
                texts = [named] if isinstance(named, str) else named if isinstance(named, list) else []
                found += [name for name in (file_in(key, text) for text in texts if isinstance(text, str)) if name]
            pending += value.values()
        elif isinstance(value, list):
            pending += value
    return sorted(set(found))


def find_modules(config, content, known):
    """Maps each module that the description at `config` names to a file, or to a function that makes one: `known` first, then
    beside the description. A module's name is what the description says, folders and all."""
    modules = {}
    for name in files_named(content):
        iso.module_name(name)
        if name in known:
            modules[name] = known[name]
            continue
        beside = config.parent / name
        if beside.is_dir():
            raise Failure(f"{config} names {name!r}, which is a folder ({beside})")
        if not beside.is_file():
            raise Failure(f"{config} names the file {name!r}, which is not there ({beside})")
        modules[name] = beside
    return modules
