# SPDX-License-Identifier: MIT
"""The scripts on systems that the tests do not run on: Ubuntu 24.04 and its package names, and a Python that is too old."""
import contextlib
import pathlib
import subprocess
import sys
import tempfile
import unittest
import unittest.mock

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))
from lib import packages, project  # noqa: E402

OS_RELEASE = """PRETTY_NAME="Ubuntu 24.04.3 LTS"
NAME="Ubuntu"
VERSION_ID="24.04"
VERSION="24.04.3 LTS (Noble Numbat)"
VERSION_CODENAME=noble
ID=ubuntu
ID_LIKE=debian
HOME_URL="https://www.ubuntu.com/"
UBUNTU_CODENAME=noble
"""


def names_of_ubuntu():
    lines = pathlib.Path(__file__).with_name("ubuntu-24.04-packages.tsv").read_text().splitlines()
    return {line.split()[0] for line in lines if not line.startswith("#")}


class UbuntuTest(unittest.TestCase):
    @contextlib.contextmanager
    def ubuntu(self, names):
        """A fresh Ubuntu whose archive has these names; gives the commands that would run."""
        with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as patches:
            release = pathlib.Path(folder, "os-release")
            release.write_text(OS_RELEASE)
            every = [package for group in packages.GROUPS.values() for package in group]
            for name, value in (("OS_RELEASE", release), ("as_root", lambda: []), ("say", lambda text: None), ("is_font_missing", lambda groups: True),
                                ("missing", lambda groups: list(dict.fromkeys(every))), ("known_to_apt", lambda wanted: set(wanted) <= names)):
                patches.enter_context(unittest.mock.patch.object(packages, name, value))
            patches.enter_context(unittest.mock.patch.object(packages.shutil, "which", lambda tool: f"/usr/bin/{tool}"))
            run = patches.enter_context(unittest.mock.patch.object(packages, "run_quietly"))
            font = patches.enter_context(unittest.mock.patch.object(packages.download, "file_of_package"))
            yield run, font

    def test_every_package_has_a_name_that_ubuntu_knows(self):
        with self.ubuntu(names_of_ubuntu()) as (run, font):
            self.assertTrue(packages.is_debian_like())
            packages.install(list(packages.GROUPS))
        installs = [call.args[1] for call in run.call_args_list if "install" in call.args[1]]
        self.assertEqual(len(installs), 1)
        self.assertIn("clang-19", installs[0])
        self.assertEqual(font.call_args.args[0], packages.FONT_PACKAGE)

    def test_a_name_that_the_release_has_not_is_said(self):
        with self.ubuntu(names_of_ubuntu() - {"clang-19"}) as (run, _):
            with self.assertRaisesRegex(project.Failure, "this release has no package clang-19;"):
                packages.install(["build"])
        self.assertFalse([call for call in run.call_args_list if "install" in call.args[1]])

    def test_the_list_has_nothing_else(self):
        wanted = {package for group in packages.GROUPS.values() for package in group} | {packages.FONT_PACKAGE}
        self.assertEqual(sorted(names_of_ubuntu()), sorted(wanted))

    def test_another_distribution_is_none(self):
        with tempfile.TemporaryDirectory() as folder:
            release = pathlib.Path(folder, "os-release")
            release.write_text('ID=fedora\nID_LIKE="rhel"\n')
            with unittest.mock.patch.object(packages, "OS_RELEASE", release):
                self.assertFalse(packages.is_debian_like())


class OldPythonTest(unittest.TestCase):
    # Python 3.10 as far as it shows: its version, and no tomllib.
    PROGRAM = ("import runpy, sys; sys.version_info = (3, 10, 12, 'final', 0); sys.version = '3.10.12 (main)'; sys.modules['tomllib'] = None\n"
               "sys.argv = sys.argv[1:]; sys.path[0] = sys.argv[0].rpartition('/')[0]; runpy.run_path(sys.argv[0], run_name='__main__')")

    def test_every_script_says_what_it_needs_in_a_sentence(self):
        scripts = [path for path in sorted((ROOT / "scripts").iterdir()) if path.is_file() and b"\nfrom lib import" in path.read_bytes()]
        self.assertGreater(len(scripts), 5)
        for script in scripts:
            done = subprocess.run([sys.executable, "-c", self.PROGRAM, script, "--help"], capture_output=True, text=True, timeout=30)
            self.assertEqual((done.returncode, done.stdout), (1, ""), (script.name, done))
            self.assertTrue(done.stderr.startswith(f"{script.name}: needs Python 3.11 or newer, and this is 3.10.12 ("), (script.name, done.stderr))
            self.assertIn("Ubuntu 24.04 have it", done.stderr)


if __name__ == "__main__":
    unittest.main()
