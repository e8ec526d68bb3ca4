"""Single files out of Debian packages that are not to be installed."""
import pathlib
import shutil
import tempfile

from .project import run_quietly


def file_of_package(package, pattern, folder, title, visible=True, take_more=None):
    """Downloads the package through apt, puts the one file in it that matches into the folder, and returns its path.
    take_more: is called with the package's unpacked tree before that, to take other things from it."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        # apt drops its privileges to download; it needs a directory that it may write to.
        pathlib.Path(scratch).chmod(0o777)
        run_quietly(f"Downloading {title}", ["apt-get", "download", package], visible, cwd=scratch)
        archive = next(pathlib.Path(scratch).glob("*.deb"))
        run_quietly("Unpacking it", ["dpkg-deb", "-x", archive, f"{scratch}/tree"], visible)
        tree = pathlib.Path(scratch, "tree")
        if take_more:
            take_more(tree)
        found = next(tree.glob(pattern))
        destination = folder / found.name
        shutil.move(found, destination)
    return destination
