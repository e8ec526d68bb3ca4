# SPDX-License-Identifier: MIT
"""Single files out of Debian packages that are not to be installed."""
import pathlib
import shutil
import tempfile

from .project import run_quietly


def file_of_package(package, pattern, folder, title, visible=True, take_more=None, environment=None):
    """Downloads the package through apt, puts the one file in it that matches into the folder, and returns its path.
    take_more: is called with the package's unpacked tree before that, to take other things from it. environment: apt's."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        # apt drops its privileges to download; it needs a directory that it may write to.
        pathlib.Path(scratch).chmod(0o777)
        run_quietly(f"Downloading {title}", ["apt-get", "download", package], visible, cwd=scratch,
                    env=environment)
        archive = next(pathlib.Path(scratch).glob("*.deb"))
        tree = pathlib.Path(scratch, "tree")
        # Not all of it without need: a kernel's modules are hundreds of megabytes.
        wanted = "*" if take_more else f"./{pattern}"
        unpack = 'mkdir "$2" && dpkg-deb --fsys-tarfile "$1" | tar -xC "$2" --wildcards "$3"'
        run_quietly("Unpacking it", ["sh", "-c", unpack, "sh", archive, tree, wanted], visible)
        if take_more:
            take_more(tree)
        found = next(path for path in tree.glob(f"**/{pathlib.PurePath(pattern).name}") if path.is_file())
        destination = folder / found.name
        shutil.move(found, destination)
    return destination
