# SPDX-License-Identifier: MIT
"""Unit tests of the scripts: what they decide, without an emulator."""
import io
import lzma
import os
import pathlib
import re
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import tomllib
import unittest
import unittest.mock

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))
from lib import bridge, build, checks, cpio, description, emulator, grub_elf, guest, iso, project, stall, verdict  # noqa: E402


def script(name):
    """Imports a script that has no .py ending, without running its main."""
    source = (ROOT / "scripts" / name).read_text().replace("\nmain_wrapper(main", "\n(main")
    module = type(sys)(name.replace("-", "_"))
    module.__dict__["__name__"] = module.__name__
    exec(compile(source, name, "exec"), module.__dict__)  # noqa: S102
    return module


class CommandOutputTest(unittest.TestCase):
    STREAM = b"boot\r\n\n<mullion-command 12>\nline\n<mullion-status 99 1>\nno newline<mullion-status 12 7>\nrest"
    EXPECTED = b"line\n<mullion-status 99 1>\nno newline"

    def test_any_division_of_the_stream_gives_the_same(self):
        for size in range(1, len(self.STREAM) + 1):
            output = verdict.CommandOutput("12")
            parts = [output.feed(self.STREAM[i:i + size]) for i in range(0, len(self.STREAM), size)]
            self.assertEqual((b"".join(parts), output.status), (self.EXPECTED, 7), size)

    def test_what_is_no_output_is_kept_apart(self):
        for size in range(1, len(self.STREAM) + 1):
            output = verdict.CommandOutput("12")
            parts = [output.split(self.STREAM[i:i + size]) for i in range(0, len(self.STREAM), size)]
            self.assertEqual(b"".join(rest for _, rest in parts), b"boot\r\n\nrest", size)

    def test_nothing_before_the_begin(self):
        output = verdict.CommandOutput("12")
        self.assertEqual(output.feed(b"x<mullion-status 12 0>\n"), b"")
        self.assertIsNone(output.status)


class VerdictTest(unittest.TestCase):
    SERIAL = (b"[ 1.0] mullion: vm linux ended: poweroff, ran 12.345 s\r\nmullion: vm b ended: crash: triple fault, at 0x1000, ran 0.001 s\r\n"
              b"mullion: power off, status 3\r\n")

    def test_lines(self):
        self.assertEqual(verdict.ended_vms(self.SERIAL), [("linux", "poweroff", 12.345), ("b", "crash: triple fault, at 0x1000", 0.001)])
        self.assertEqual(verdict.mullion_status(self.SERIAL), 3)
        self.assertIsNone(verdict.mullion_status(b"mullion: panic"))


class KeysTest(unittest.TestCase):
    def feed(self, *parts):
        keys = bridge.Keys()
        results = [keys.feed(part) for part in parts]
        return b"".join(data for data, _ in results), [command for _, commands in results for command in commands]

    def test_keys(self):
        self.assertEqual(self.feed(b"ab\x03"), (b"ab\x03", []))
        self.assertEqual(self.feed(b"a\x01", b"xb"), (b"ab", ["x"]))
        self.assertEqual(self.feed(b"\x01h"), (b"", ["h"]))
        self.assertEqual(self.feed(b"\x01c\x01\x01x"), (b"\x01c\x01\x01x", []))


class CpioTest(unittest.TestCase):
    def test_cpio_reads_it(self):
        archive = cpio.Archive()
        archive.file("a/b/file", b"content", 0o755)
        archive.symlink("a/link", "b/file")
        whole = archive.finish()
        self.assertEqual(len(whole) % 512, 0)
        self.assertEqual(whole[:6], b"070701")
        self.assertEqual(whole.count(b"070701"), 5)  # a, a/b, file, link, trailer
        self.assertIn(b"a/b/file\0", whole)
        self.assertIn(b"content\0", whole)


class DescriptionTest(unittest.TestCase):
    def test_default_names_its_files(self):
        text = description.default(64, 1, 'say="x\\y"')
        content = tomllib.loads(text)
        self.assertEqual(description.files_named(content), ["initrd.img", "vmlinuz"])
        self.assertEqual(description.files_named(content, ("kernel",)), ["vmlinuz"])
        self.assertIn('cmdline = "say=\\"x\\\\y\\""', text)

    def test_modules_are_files_with_a_command_line(self):
        content = tomllib.loads('[vm.x]\nkernel = "xen"\nmodules = ["dom0.gz console=hvc0", "ramdisk"]\n')
        self.assertEqual(description.files_named(content), ["dom0.gz", "ramdisk", "xen"])

    def test_a_disk_may_be_a_file(self):
        content = tomllib.loads('[vm.x]\nkernel = "k"\n[[vm.x.disk]]\nsource = "module:root.img"\nserial = "s"\n'
                                '[[vm.x.disk]]\nsource = "ram:64M"\n')
        self.assertEqual(description.files_named(content), ["k", "root.img"])

    def test_files_beside_the_description(self):
        with tempfile.TemporaryDirectory() as folder:
            config = pathlib.Path(folder, "x.toml")
            kernel = pathlib.Path(folder, "sub", "my-kernel")
            content = {"vm": {"a": {"kernel": "sub/my-kernel", "initrd": "initrd.img"}, "b": {"kernel": str(kernel)}}}
            with self.assertRaisesRegex(project.Failure, "'.*sub/my-kernel', which is not there"):
                description.find_modules(config, content, {"initrd.img": config})
            kernel.parent.mkdir()
            kernel.touch()
            # Mullion looks for a module by the very name that the description has.
            self.assertEqual(description.find_modules(config, content, {"initrd.img": config}),
                             {"sub/my-kernel": kernel, str(kernel): kernel, "initrd.img": config})

    def test_each_module_has_a_place_of_its_own_on_the_image(self):
        modules = {"vms.toml": 1, "k": 2, "a/k": 3, "/b/k": 4, "../k": 5}
        places = iso.places(modules)
        self.assertEqual(len(set(places.values())), len(modules))
        self.assertTrue(all(".." not in place and place.startswith("boot/modules/") for place in places.values()), places)
        self.assertEqual({places[name]: content for name, content in modules.items()}, iso.files(modules))
        self.assertIn(f"module2 /{places['/b/k']} /b/k", iso.mullion_config("", modules))


class IsoTest(unittest.TestCase):
    def test_options_reach_grub_as_they_are(self):
        self.assertEqual(iso.quoted(["a=b", "c;d", "it's", 'say="x"', "$y"]), "a=b 'c;d' 'it'\\''s' 'say=\"x\"' '$y'")
        with self.assertRaisesRegex(project.Failure, "quot"):
            iso.linux_config('a="b')

    def test_every_partition_module_that_grub_asks_for_is_there(self):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder, "x.iso")
            iso.build(path, ["true"], {})
            listing = subprocess.run(["xorriso", "-indev", path, "-find", "/boot/grub/i386-pc", "-name", "*.mod"], capture_output=True, text=True)
        there = {pathlib.PurePath(line.strip("'")).stem for line in listing.stdout.splitlines()}
        wanted = {path.stem for path in pathlib.Path("/usr/lib/grub/i386-pc").glob("part_*.mod")}
        self.assertTrue(wanted)
        self.assertEqual(wanted - there, set())

    def test_a_failed_image_leaves_the_old_one_and_nothing_else(self):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder, "x.iso")
            path.write_bytes(b"old")
            with unittest.mock.patch.object(iso.shutil, "copyfile", side_effect=OSError(28, "No space left on device")), \
                    unittest.mock.patch.object(iso, "rescue", lambda output, tree: output.write_bytes(bytes(1024))):
                with self.assertRaises(OSError):
                    iso.build(path, ["true"], {})
            self.assertEqual((path.read_bytes(), os.listdir(folder)), (b"old", ["x.iso"]))

    def test_a_module_name_cannot_end_the_grub_command(self):
        for name in ("a b", "x;reboot", "", "$x"):
            with self.assertRaises(project.Failure):
                iso.module_name(name)

    def test_config_boots_only_when_everything_loaded(self):
        text = iso.grub_config(iso.mullion_config("debug", ["vms.toml", "vmlinuz"]))
        self.assertIn("if multiboot2 /boot/mullion.elf debug; then if module2 /boot/modules/vms.toml vms.toml; then", text)
        self.assertIn("boot; fi; fi; fi\n", text)

    def test_the_same_input_makes_the_same_image(self):
        images = []
        for name in ("one.iso", "two.iso"):
            with tempfile.TemporaryDirectory() as folder:
                path = pathlib.Path(folder, name)
                iso.build(path, ["true"], {"boot/file": b"content"})
                images.append(path.read_bytes())
            time.sleep(1.1)  # neither the time of the build
        self.assertEqual(images[0], images[1])


class GrubElfTest(unittest.TestCase):
    """A file of one segment and a table of section names, and what each mistake in it is called."""
    SIZE = 0x1000
    SECTIONS = 0x800  # two headers, then the names

    def image(self, **changes):
        fields = {"machine": 62, "entry": 0xFFFFFFFF80200100, "segments_at": 64, "sections_at": self.SECTIONS, "segment_count": 1,
                  "section_size": 64, "section_count": 2, "names_index": 1, "physical": 0x200000, "file_size": 0x400,
                  "section_kind": 3, "name_bytes": 11, **changes}
        content = bytearray(self.SIZE)
        grub_elf.HEADER.pack_into(content, 0, b"\x7fELF\x02\x01\x01" + bytes(9), 2, fields["machine"], 1, fields["entry"],
                                  fields["segments_at"], fields["sections_at"], 0, 64, 56, fields["segment_count"],
                                  fields["section_size"], fields["section_count"], fields["names_index"])
        grub_elf.SEGMENT.pack_into(content, 64, 1, 5, 0x200, 0xFFFFFFFF80200000, fields["physical"], fields["file_size"], 0x1000, 4096)
        struct.pack_into("<IIII", content, 0x200, 0xE85250D6, 0, 16, (1 << 32) - 0xE85250D6 - 16)
        grub_elf.SECTION.pack_into(content, self.SECTIONS + 64, 1, fields["section_kind"], 0, 0, 0x900, fields["name_bytes"], 0, 0, 1, 0)
        return bytes(content)

    def test_a_good_file_has_no_complaint(self):
        self.assertEqual(list(grub_elf.complaints(self.image())), [])

    def test_what_each_grub_refuses(self):
        mistakes = {"want a section header table": {"sections_at": 0, "section_count": 0, "names_index": 0},
                    "e_shnum 65280": {"section_count": 0xFF00}, "e_shstrndx": {"names_index": 2},
                    "table (2 times 64 bytes at 0xfc0) ends": {"sections_at": 0xFC0}, "2 times 40 bytes": {"section_size": 40},
                    "relocation": {"section_kind": 4}, "debug information": {"name_bytes": 5000},
                    "program headers end": {"segments_at": 0x8000}, "e_phnum 0": {"segment_count": 0},
                    "in no segment": {"entry": 0x200000}, "crosses 4 GiB": {"physical": 0xFFFFF001}, "no executable": {"machine": 3},
                    "more bytes in the file": {"file_size": 0x1001}}
        for text, change in mistakes.items():
            self.assertTrue(any(text in line for line in grub_elf.complaints(self.image(**change))), text)
        self.assertIn("no Multiboot2 header", " ".join(grub_elf.complaints(self.image().replace(b"\xd6\x50\x52\xe8", bytes(4)))))

    def test_a_file_cut_anywhere_is_refused_without_a_traceback(self):
        content = self.image()[:self.SECTIONS + 128 + 11]
        for size in range(len(content) - 12):
            self.assertTrue(list(grub_elf.complaints(content[:size])), size)


class EmulatorTest(unittest.TestCase):
    def test_the_faster_one_is_the_default_and_an_intel_model_takes_bochs(self):
        self.assertEqual(emulator.choose(None, False, "")[0], "qemu")
        self.assertEqual(emulator.choose(None, False, "EPYC-Rome,+svm")[0], "qemu")
        for model in (emulator.BOCHS_MODEL, "sapphire_rapids", "arrow_lake", "corei3_cnl", "wildcat_lake"):
            self.assertEqual(emulator.choose(None, False, model)[0], "bochs", model)
        self.assertEqual(emulator.choose(None, True, "")[0], "qemu")
        for kind in ("bochs", "qemu", "qemu-kvm"):
            self.assertEqual(emulator.choose(kind, False, ""), (kind, "as asked for"))

    def test_how_bochs_ended(self):
        terminal = "=====\nBochs is exiting with the following message:\n{}\n=====\n"
        # The last lines of Bochs 2.7's log file, and of Bochs 3's.
        old = "02179910480p[ACPI  ] >>PANIC<< ACPI control: soft power off\n02179910480i[CPU0  ] CPU is in long mode (active)\n"
        new = old + "00000000000i[SIM   ] quit_sim called with exit code 1\n"
        for messages in (old, new):
            off = emulator.bochs_end(terminal.format("[ACPI  ] ACPI control: soft power off"), messages)
            self.assertEqual((off.orderly, off.ticks), (True, 2179910480))
        crash = emulator.bochs_end(terminal.format("[CPU0  ] exception(): 3rd (13) exception with no resolution"), "")
        self.assertEqual((crash.orderly, crash.ticks), (False, None))

    def test_the_firmware_is_the_one_that_the_release_has(self):
        with tempfile.TemporaryDirectory() as folder, unittest.mock.patch.object(emulator, "OVMF_FOLDER", pathlib.Path(folder)):
            with self.assertRaisesRegex(project.Failure, "OVMF_CODE_4M.fd or OVMF_CODE.fd"):
                emulator.ovmf()
            pathlib.Path(folder, "OVMF_CODE.fd").touch()
            self.assertEqual(emulator.ovmf().name, "OVMF_CODE.fd")
            pathlib.Path(folder, "OVMF_CODE_4M.fd").touch()
            self.assertEqual(emulator.ovmf().name, "OVMF_CODE_4M.fd")


class StallTest(unittest.TestCase):
    """A machine whose serial line and whose emulator's CPU time are ours to say."""

    def watch(self, up=False, native=False, kind="qemu"):
        self.now = self.cpu = 0.0
        return stall.Watch(kind, lambda: self.cpu, lambda: up, native, clock=lambda: self.now)

    def after(self, watch, tail, seconds, cpu_share):
        """The first reason within so many seconds of this tail, or None."""
        for _ in range(seconds):
            reason = watch(tail)
            if reason:
                return reason
            self.now += 1
            self.cpu += cpu_share
        return None

    def test_a_prompt_of_grub_ends_it(self):
        for tail in (b"error: no such file\r\ngrub> ", b"grub rescue> ", b"x\r\n\r\ngrub> \x1b[0m"):
            self.assertRegex(self.after(self.watch(), tail, 20, 1.0) or "", "GRUB's prompt", tail)

    def test_a_prompt_with_something_after_it_does_not(self):
        self.assertIsNone(self.after(self.watch(up=True), b"grub> ls\r\n", 20, 1.0))
        self.assertIsNone(self.after(self.watch(up=True), b"Mullion starts\r\ngrub> ", 20, 1.0))

    def test_grubs_failure_and_a_panic_end_it_at_once(self):
        self.assertIn("GRUB could not load", self.watch()(b"error: x\r\n" + iso.NOT_LOADED.encode()))
        self.assertIn("Mullion stopped", self.watch(up=True)(b"panic\r\n" + verdict.STOPPED))

    def test_an_idle_machine_without_a_word_is_named_with_its_place(self):
        self.assertRegex(self.after(self.watch(), b"", 40, 0.0) or "", "done nothing for 3. s.*firmware or GRUB")
        self.assertRegex(self.after(self.watch(), b"Mullion starts\r\n", 40, 0.0) or "", "in Mullion or its guest")
        self.assertRegex(self.after(self.watch(native=True), b"", 40, 0.0) or "", "kernel")

    def test_a_busy_machine_has_longer_and_a_slow_computer_as_long_as_it_needs(self):
        self.assertIsNone(self.after(self.watch(), b"", 110, 1.0))
        self.assertRegex(self.after(self.watch(), b"", 130, 1.0) or "", "CPU time")
        self.assertIsNone(self.after(self.watch(), b"", 1000, 0.1))
        self.assertIsNone(self.after(self.watch(kind="bochs"), b"", 300, 1.0))

    def test_what_is_up_may_be_silent(self):
        self.assertIsNone(self.after(self.watch(up=True), b"Mullion starts\r\nguest:~# ", 1000, 0.0))

    def test_what_was_up_may_be_silent_when_its_prompt_has_left_the_end_of_the_line(self):
        self.now = self.cpu = 0.0
        ups = iter([True])
        watch = stall.Watch("qemu", lambda: self.cpu, lambda: next(ups, False), clock=lambda: self.now)
        self.assertIsNone(watch(b"guest:~# yes | head -c 100000; sleep 1000\r\n"))
        self.assertIsNone(self.after(watch, b"y\r\ny\r\n", 1000, 0.0))

    def test_a_guests_panic_ends_it(self):
        self.assertRegex(self.after(self.watch(up=True), b"x\r\n[ 1.0] ---[ end Kernel panic - not syncing: x ]---\r\n", 20, 1.0) or "", "panicked")


class ChecksTest(unittest.TestCase):
    def test_kernels(self):
        linux = bytes(0x202) + b"HdrS" + bytes(64)
        self.assertIsNone(checks.kernel_complaint(linux))
        self.assertIsNone(checks.kernel_complaint(linux, linux_only=True))
        self.assertIsNone(checks.kernel_complaint(bytes(64) + struct.pack("<I", 0x1BADB002) + bytes(64)))
        self.assertIn("program for Linux", checks.kernel_complaint(pathlib.Path(sys.executable).read_bytes()[:32768]))
        self.assertIn("no Linux bzImage", checks.kernel_complaint(pathlib.Path(sys.executable).read_bytes()[:32768], linux_only=True))
        for content in (b"", b"text", bytes(40000), b"\x7fELF", b"\x7fELF\x02\x01" + bytes(100)):
            self.assertTrue(checks.kernel_complaint(content), content[:8])

    def test_an_elf_file_cut_or_changed_anywhere_gives_no_traceback(self):
        content = bytearray(pathlib.Path(sys.executable).read_bytes()[:1024])
        for at in range(0, 128):
            checks.kernel_complaint(bytes(content[:at]))
            checks.kernel_complaint(bytes(content[:at]) + b"\xff\xff\xff\xff" + bytes(content[at + 4:]))

    def test_a_syntax_error_has_its_line(self):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder, "x.toml")
            for text, message in (("[vm.a]\nmemory = 12M\n", r"x\.toml:2: .* at column \d+$"), ("[vm", r"x\.toml: .* end of the file$"),
                                  ("\n\n[vm.a]\n[vm.a]\n", r"x\.toml:4: ")):
                path.write_text(text)
                with self.assertRaisesRegex(project.Failure, message):
                    checks.description(path)
            path.write_bytes(b"[vm.a]\n# \xff\n")
            with self.assertRaisesRegex(project.Failure, "UTF-8"):
                checks.description(path)

    def test_the_examples_are_sound(self):
        for path in (ROOT / "examples").glob("*.toml"):
            self.assertTrue(description.files_named(checks.description(path), ("kernel",)))


class BuildTest(unittest.TestCase):
    def test_a_moved_checkout_is_configured_again(self):
        with tempfile.TemporaryDirectory() as folder, unittest.mock.patch.object(build, "BUILD", pathlib.Path(folder)), \
                unittest.mock.patch.object(build, "run_quietly") as run:
            preset = pathlib.Path(folder, "release")
            build.configure("release")
            self.assertEqual(run.call_args.args[1], ["cmake", "--preset", "release"])
            preset.mkdir()
            (preset / "build.ninja").touch()
            (preset / "CMakeCache.txt").write_text(f"A:STRING=b\nCMAKE_HOME_DIRECTORY:INTERNAL={build.ROOT}\n")
            run.reset_mock()
            build.configure("release")
            run.assert_not_called()
            (preset / "CMakeCache.txt").write_text("CMAKE_HOME_DIRECTORY:INTERNAL=/elsewhere/mullion\n")
            build.configure("release")
            self.assertEqual(run.call_args.args[1], ["cmake", "--fresh", "--preset", "release"])
            self.assertIn("/elsewhere/mullion", run.call_args.args[0])


class ProgressTest(unittest.TestCase):
    def test_a_long_step_speaks_in_quiet_mode_within_80_columns(self):
        with unittest.mock.patch.object(project, "quiet", True), unittest.mock.patch("sys.stderr", io.StringIO()) as shown, \
                unittest.mock.patch.object(project.Progress, "FIRST_LINE", 0.05), unittest.mock.patch.object(project.Progress, "NEXT_LINE", 0.05):
            with project.Progress("A step " + "that has a long name " * 10):
                time.sleep(0.3)
        lines = shown.getvalue().splitlines()
        self.assertGreater(len(lines), 1)
        self.assertTrue(all(line.startswith("A step") and len(line) <= 80 for line in lines), lines)

    def test_a_short_step_does_not(self):
        with unittest.mock.patch.object(project, "quiet", True), unittest.mock.patch("sys.stderr", io.StringIO()) as shown:
            with project.Progress("A step"):
                pass
        self.assertEqual(shown.getvalue(), "")

    def test_a_failed_command_shows_all_it_wrote(self):
        with unittest.mock.patch("sys.stderr", io.StringIO()), self.assertRaisesRegex(project.Failure, "(?s)one\ntwo\nWorking: .* status 3"):
            project.run_quietly("Working", ["sh", "-c", "echo one; echo two >&2; exit 3"])


class ScratchFolderTest(unittest.TestCase):
    PROGRAM = ("import sys, time; sys.path.insert(0, sys.argv[1])\nfrom lib import project\n"
               "with project.scratch_folder('test') as folder:\n (folder / 'f').write_bytes(bytes(99)); print(folder, flush=True); time.sleep(100)")

    def test_a_killed_script_leaves_none(self):
        process = subprocess.Popen([sys.executable, "-c", self.PROGRAM, ROOT / "scripts"], stdout=subprocess.PIPE, text=True, start_new_session=True)
        folder = pathlib.Path(process.stdout.readline().strip())
        process.stdout.close()
        self.assertTrue((folder / "f").exists())
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        deadline = time.monotonic() + 20
        while folder.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        self.assertFalse(folder.exists())

    def test_an_ended_one_leaves_none(self):
        with project.scratch_folder("test") as folder:
            (folder / "f").touch()
        self.assertFalse(folder.exists())


class CommandLineTest(unittest.TestCase):
    """The scripts as their users call them: wrong arguments are found at once, in a sentence."""

    def refused(self, *arguments, status=None):
        started = time.monotonic()
        done = subprocess.run([ROOT / "scripts" / arguments[0], *arguments[1:]], capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60)
        self.assertNotIn("Traceback", done.stderr, arguments)
        self.assertNotIn("Building", done.stderr, arguments)
        self.assertEqual(done.returncode, status or done.returncode, done)
        self.assertIn(done.returncode, (1, 2), (arguments, done))
        self.assertLess(time.monotonic() - started, 30)
        return done.stderr

    def test_run_refuses_before_it_builds(self):
        with tempfile.TemporaryDirectory() as folder:
            broken, absent = pathlib.Path(folder, "broken.toml"), pathlib.Path(folder, "absent.toml")
            broken.write_text("[vm.a\n")
            absent.write_text('[vm.a]\nmemory = "32M"\nkernel = "sub/none"\n')
            program, image = pathlib.Path(folder, "program.toml"), f"{folder}/x.iso"
            program.write_text(f'[vm.a]\nmemory = "32M"\nkernel = "{sys.executable}"\n')
            wrong = {("uname", "-a"): r"run -- uname -a", ("--no-such",): "no such option: --no-such", ("--",): "no command",
                     ("--config", folder): "is a folder", ("--config", f"{folder}/none"): "no file", ("--config", broken): r"broken\.toml:1: ",
                     ("--config", absent): "sub/none", ("--config", program): "program for Linux", ("--config", absent, "--guest-cpus", "2"): "leave out --guest-cpus",
                     ("--memory", "16", "--", "true"): "at least .* MiB, found 16", ("--uefi", "--emulator", "bochs"): "by BIOS",
                     ("--kernel", sys.executable): "program for Linux", ("--kernel", broken): "no kernel", ("--kernel", folder): "is a folder",
                     ("--elf", sys.executable): "no mullion.elf", ("--guest-memory", "31"): "multiple of 2", ("--guest-memory", "8"): "16 to",
                     ("--guest-cpus", "33"): "1 to 32", ("--cpus", "0"): "1 to", ("--emulator", "bochs", "--cpus", "16"): "at most 8",
                     ("--timeout", "-1"): "above 0", ("--image-only", folder): "is a folder", ("--image-only", f"{folder}/no/x.iso"): "no folder",
                     ("--image-only", image, "--config", broken): r"broken\.toml:1: ", ("--image-only", image, "--guest-memory", "8"): "16 to",
                     ("--image-only", image, "--config", program): "program for Linux", ("--image-only", image, "--kernel", broken): "no kernel",
                     ("--image-only", "/dev/null"): "no ordinary file", ("--image-only", "/proc/x.iso"): "cannot write",
                     ("--native", "--append", "x"): "leave out --append", ("--net", "0"): "1 to 65535, found 0", ("--net", "x"): "invalid int",
                     ("--net", "--emulator", "bochs"): "take QEMU", ("--net", "--native"): "leave out --native",
                     ("--net", "--disk", absent, "--disk-system", "full"): "leave out --disk-system full"}
            for arguments, message in wrong.items():
                self.assertRegex(self.refused("run", *arguments), message)
            self.assertEqual(sorted(os.listdir(folder)), ["absent.toml", "broken.toml", "program.toml"])

    def test_run_refuses_a_port_that_somebody_has(self):
        with socket.create_server(("127.0.0.1", 0)) as other:
            port = other.getsockname()[1]
            self.assertRegex(self.refused("run", "--net", str(port), "--", "true"), f"--net: port {port} is in use on this computer")

    def test_a_full_disk_leaves_no_image_and_no_traceback(self):
        with tempfile.TemporaryDirectory() as folder:
            limited = f'ulimit -f 2000; exec "{ROOT}/scripts/image" "{folder}/x.iso" --native "" --module vmlinuz=/bin/sh --module initrd.img=/bin/sh'
            done = subprocess.run(["bash", "-c", limited], capture_output=True, text=True)
            self.assertEqual((done.returncode, os.listdir(folder)), (1, []), done)
            self.assertNotIn("Traceback", done.stderr)
            self.assertTrue(done.stderr.startswith("image: "), done.stderr)

    def test_every_script_says_what_it_does_and_does_nothing_else(self):
        scripts = sorted(path.name for path in (ROOT / "scripts").iterdir() if path.is_file() and os.access(path, os.X_OK))
        self.assertGreater(len(scripts), 10)
        for name in scripts:
            done = subprocess.run([ROOT / "scripts" / name, "--help"], capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=30)
            self.assertEqual((done.returncode, done.stderr), (0, ""), (name, done))
            self.assertTrue(re.match(rf"(usage: )?{name}\b", done.stdout), (name, done.stdout))
            self.refused(name, "--no-such-option")


class SymbolsTest(unittest.TestCase):
    def test_short_names(self):
        shorten = script("make-symbols").shorten
        self.assertEqual(shorten("platform::(anonymous namespace)::f<int, a<b>>::g"), "platform::f<>::g")
        self.assertEqual(shorten("a<int>::operator<"), "a<>::operator<")
        self.assertEqual(shorten("a::operator<=>"), "a::operator<=>")
        self.assertEqual(shorten("a<b>::operator->"), "a<>::operator->")

    def test_assembly(self):
        text = script("make-symbols").assembly([(0xFFFFFFFF80001000, "b"), (0xFFFFFFFF80001010, "a")])
        self.assertIn(".quad 2\n.long 0x1000, 26\n.long 0x1010, 24\n.asciz \"a\"\n.asciz \"b\"\n", text)


class BenchTest(unittest.TestCase):
    SERIAL = (b"[   0.000000] Mullion starts\r\n[   0.012093] memory: 511 MiB RAM; Mullion has 708 KiB of it (image 576 KiB)\r\n"
              b"[   0.377438] vm bench: started, 256 MiB, 1 vCPU\r\nbench: cpuid_0 130 128 140\r\nbench: x2apic_* n/a\r\n")

    def test_rows_are_lines_of_the_guest(self):
        self.assertEqual(script("bench").LINE.findall(self.SERIAL), [(b"cpuid_0", b"130", b"128", b"140")])

    def test_targets(self):
        target_of = script("bench").target_of
        self.assertEqual(target_of("cpuid_0", 150, [964, 875, None]), 150)
        self.assertEqual(target_of("wbinvd", None, [964, 875, None]), 875)
        self.assertIsNone(target_of("timer_spin_latency", None, [424]))
        self.assertIsNone(target_of("new", None, [None]))

    def test_start_costs(self):
        text = script("bench").start_costs(self.SERIAL)
        self.assertIn("| 4.2 M | 10.0 M | met |", text)  # 37.74 M less 33.55 M for 256 MiB
        self.assertIn("| 708 KiB | 8,192 KiB | met |", text)

    def test_the_prose_of_the_output_file_stays(self):
        bench = script("bench")
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder, "x.md")
            bench.write(path, "new\n")
            self.assertEqual(path.read_text(), "new\n")
            path.write_text(f"prose\n{bench.MARK}\nold\n")
            bench.write(path, "new\n")
            self.assertEqual(path.read_text(), f"prose\n{bench.MARK}\n\nnew\n")

    def test_a_part_replaces_its_sections_only(self):
        bench = script("bench")
        size = bench.IMAGE_SIZE
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder, "x.md")
            path.write_text(f"prose\n{bench.MARK}\n\n## A\n\n1\n\n### a\n\n## B\n\n2\n\n{size}5 bytes\n")
            bench.write(path, f"## C\n\n3\n\n## A\n\n4\n\n{size}6 bytes\n", is_part=True)
            self.assertEqual(path.read_text(), f"prose\n{bench.MARK}\n\n## A\n\n4\n\n## B\n\n2\n\n## C\n\n3\n\n{size}6 bytes\n")

    def test_disks_are_compared_with_their_targets(self):
        costs = script("bench").disk_costs
        reference = {"x": {"operation": "x", "target": "215", "kvm_vmx": "1288", "kvm_svm": "-", "kvmtool": "1.10", "qemu_q35": "-"}}
        self.assertIn("| x | 200 | 215 | 215 | 1,288 | - | 1.10 | - | met |", costs.table({"bochs": {"x": 200}, "qemu": {"x": 215}}, reference))
        self.assertIn("| x | 216 | 215 | 1,288 | - | 1.10 | - | **missed** |", costs.table({"qemu": {"x": 216}}, reference))
        self.assertTrue(all(set(row) >= {"operation", *costs.COLUMNS} for row in costs.peers().values()))


class PowerButtonTest(unittest.TestCase):
    """The kernel's modules go the way from its package through the cache into the initramfs."""
    BUTTON, EVDEV = (f"lib/modules/6.1.0-1/{module}" for module in guest.POWER_BUTTON_MODULES)
    RANDOM = f"lib/modules/6.1.0-1/{guest.VIRTIO_MODULES[5]}"

    def way(self, **files):
        with tempfile.TemporaryDirectory() as scratch, unittest.mock.patch.object(guest, "CACHE", pathlib.Path(scratch)):
            tree, kernel = pathlib.Path(scratch, "tree"), pathlib.Path(scratch, "kernel/vmlinuz-6.1.0-1")
            kernel.parent.mkdir()
            for name, content in {"boot/vmlinuz-6.1.0-1": b"", **files}.items():
                (tree / name).parent.mkdir(parents=True, exist_ok=True)
                (tree / name).write_bytes(content)
            guest.keep_modules(tree)
            guest.keep_modules(tree)  # another process may have been faster
            self.assertTrue(guest.cached_modules(kernel).is_dir(), "it would be downloaded again each time")
            self.assertEqual(list(kernel.parent.iterdir()), [guest.cached_modules(kernel)])
            return guest.modules_of(kernel), guest.initramfs(kernel)

    def test_plain_and_compressed_modules_come_along(self):
        found, archive = self.way(**{self.BUTTON: b"first", f"usr/{self.EVDEV}.xz": lzma.compress(b"second"), self.RANDOM: b"third"})
        self.assertEqual(found, [("button.ko", b"first"), ("evdev.ko", b"second"), ("virtio-rng.ko", b"third")])
        self.assertTrue(b"lib/modules/6.1.0-1/evdev.ko\0" in archive)

    def test_a_kernel_with_all_built_in_needs_none(self):
        found, archive = self.way()
        self.assertEqual(found, [])
        self.assertFalse(b"lib/modules/6.1.0-1" in archive)


class LayersTest(unittest.TestCase):
    def test_the_deepest_folder_wins(self):
        layers = script("check-layers")
        self.assertEqual(layers.layer_of(ROOT / "vm/src/x.cpp"), "vm")
        self.assertEqual(layers.layer_of(ROOT / "kernel/src/x.cpp"), "kernel")
        self.assertEqual(layers.layer_of(ROOT / "boot/parsers/src/x.cpp"), "parsers")
        self.assertIsNone(layers.layer_of(ROOT / "tests/unit/x.cpp"))

    def test_a_forbidden_include_is_found(self):
        layers = script("check-layers")
        project.CACHE.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=project.CACHE) as folder:
            path = pathlib.Path(folder, "x.cpp")
            path.write_text('#include <array>\n#include <lib/types.hpp>\n# include <kernel/time.hpp>\n')
            owners = {"lib/types.hpp": "lib", "kernel/time.hpp": "kernel"}
            bad = list(layers.complaints(path, "platform", owners))
        self.assertEqual(len(bad), 1)
        self.assertIn(":3: layer platform may not include kernel", bad[0])


class LicenceLineTest(unittest.TestCase):
    def test_it_comes_first_or_after_what_runs_a_script(self):
        check = script("check-spdx")
        line = check.line_for(pathlib.Path("scripts/run"))
        self.assertEqual(check.with_line("#!/bin/sh\necho\n", line), f"#!/bin/sh\n{line}echo\n")
        self.assertEqual(check.with_line("text\n", line), f"{line}text\n")
        for text in ("#!/bin/sh\necho\n", "text\n", ""):
            self.assertEqual(check.with_line(check.with_line(text, line), line), check.with_line(text, line))

    def test_each_kind_of_file_has_its_comment(self):
        check = script("check-spdx")
        for name, start in (("a/b.cpp", "// SPDX"), ("CMakeLists.txt", "# SPDX"), ("docs/a.md", "<!-- SPDX"), ("a.ld", "/* SPDX")):
            self.assertTrue(check.line_for(pathlib.Path(name)).startswith(start), name)
        self.assertIsNone(check.line_for(pathlib.Path("tests/corpus/acpi/x.bin")))
        self.assertRaises(project.Failure, check.line_for, pathlib.Path("a.unknown"))


class PackageTest(unittest.TestCase):
    def test_the_version_is_that_of_the_change_log(self):
        self.assertRegex(script("package").version(), r"^[0-9]+\.[0-9.]+$")

    def test_its_scripts_are_for_a_plain_shell(self):
        for name in ("25_mullion", "mullion-try", "postinst", "postrm"):
            subprocess.run(["sh", "-n", ROOT / "package" / name], check=True)
        subprocess.run(["bash", "-n", ROOT / "package/completion"], check=True)

    def test_text_in_a_man_page_keeps_its_signs(self):
        self.assertEqual(script("package").roff("a-b\\c"), "a\\-b\\ec")


if __name__ == "__main__":
    unittest.main()
