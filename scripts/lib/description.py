"""VM descriptions: the one `run` writes, and the files that a user's own one names."""
import pathlib
import tomllib

from . import iso
from .project import Failure

FILE_KEYS = ("kernel", "initrd")


def default(memory, cpus, command_line, kernel="vmlinuz", initrd="initrd.img", name="linux"):
    """memory in MiB; initrd may be None."""
    lines = [f"[vm.{name}]", f'memory = "{memory}M"', f"vcpus = {cpus}", f"kernel = {quoted(kernel)}"]
    if initrd:
        lines.append(f"initrd = {quoted(initrd)}")
    lines.append(f"cmdline = {quoted(command_line)}")
    return "\n".join(lines) + "\n"


def quoted(text):
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def files_named(text):
    """The module names a description asks for. A description that is no TOML names none: Mullion reports what is wrong."""
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return []
    found = []
    pending = [content]
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            found += [value[key] for key in FILE_KEYS if isinstance(value.get(key), str)]
            pending += value.values()
        elif isinstance(value, list):
            pending += value
    return sorted(set(found))


def find_modules(config, known):
    """Maps each module that the description at `config` names to a file: `known` first, then beside the description."""
    modules = {}
    for name in files_named(config.read_text(errors="replace")):
        if name in known:
            modules[iso.module_name(name)] = known[name]()
            continue
        beside = config.parent / name
        if not beside.is_file():
            raise Failure(f"{config} names the file {name!r}, which is not beside it ({beside})")
        modules[iso.module_name(pathlib.PurePath(name).name)] = beside
    return modules
