# SPDX-License-Identifier: MIT
"""Configures and builds a preset of CMakePresets.json."""
import pathlib
import re
import sys

if __package__ is None:  # run as a program
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from lib.project import BUILD, ROOT, Failure, main_wrapper, run_quietly  # noqa: E402

PROGRAM_HELP = """build.py PRESET [TARGET...] - configures the preset (release, debug, hosted or tools) if need be, and builds the targets."""


def configure(preset):
    """Configures when the preset was not, and again from nothing when the checkout was moved since: CMake's cache has its old place."""
    cache = BUILD / preset / "CMakeCache.txt"
    if cache.exists() and (old := configured_for(cache.read_text(errors="replace"))) and pathlib.Path(old) != ROOT:
        run_quietly(f"Configuring the build again: it was made in {old}", ["cmake", "--fresh", "--preset", preset], cwd=ROOT)
    elif not (BUILD / preset / "build.ninja").exists():
        run_quietly("Configuring the build", ["cmake", "--preset", preset], cwd=ROOT)


def configured_for(cache):
    """The source folder that a CMakeCache.txt is for, or None."""
    found = re.search(r"^CMAKE_HOME_DIRECTORY:INTERNAL=(.*)$", cache, re.M)
    return found.group(1) if found else None


def build(title, preset, *targets):
    configure(preset)
    run_quietly(title, ["cmake", "--build", "--preset", preset, *(["--target", *targets] if targets else [])], cwd=ROOT)


def main():
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("-h", "--help"):
        print(PROGRAM_HELP)
        return 0 if arguments else 2
    if arguments[0] not in ("release", "debug", "hosted", "tools"):
        raise Failure(f"there is no preset {arguments[0]!r}: release, debug, hosted or tools")
    build(f"Building {arguments[0]}", *arguments)
    return 0


if __name__ == "__main__":
    main_wrapper(main)
