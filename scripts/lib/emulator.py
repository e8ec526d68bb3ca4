# SPDX-License-Identifier: MIT
"""Starts a machine in Bochs or QEMU and hands out its serial line. Nothing of it outlives the script."""
import contextlib
import dataclasses
import json
import os
import pathlib
import re
import shutil
import socket
import subprocess

from . import demo_network, private_network
from .project import Failure, die_with_parent, scratch_folder

# Linux' programs crash with XSAVES and AVX-512 together (docs/CAVEATS.md): this CPU has neither.
BOCHS_MODEL = "corei7_haswell_4770"
BOCHS_MODEL_WITH_MOST_FEATURES = "corei7_skylake_x"
# Bochs counts one tick per instruction and this many of them as one second of the machine. A machine that waits for time, as
# firmware and GRUB do, is done the sooner the fewer they are; with less than this, Linux' timer takes too large a part.
BOCHS_TICKS_PER_SECOND = 30_000_000
BOCHS_LOG = "machine.log"
BOCHS_WITH_UEFI = (3, 1)
# From this version on, Linux in a VM dies at its start on a machine with several CPUs: Bochs' fault (docs/CAVEATS.md).
BOCHS_LOSING_LINUX = (3, 0)
BOCHS_UEFI = ["romimage: file=/usr/share/ovmf/OVMF.fd, address=0xffc00000", "fw_cfg: enabled=1"]
# How the names of Bochs' CPU models begin; QEMU has none of these.
BOCHS_MODELS = ("bx_generic", "i386", "i486dx4", "pentium_mmx", "p2_", "p3_", "p4_", "core_duo", "core2_", "corei3_", "corei5_", "corei7_",
                "atom_", "athlon_xp", "athlon64_", "turion64_", "phenom_", "amd_k6", "broadwell_", "tigerlake", "sapphire_rapids",
                "arrow_lake", "wildcat_lake", "ryzen", "zambezi", "trinity_")
# UEFI firmware for QEMU: Debian 13 and Ubuntu 24.04 have the larger one only.
OVMF = ("OVMF_CODE_4M.fd", "OVMF_CODE.fd")
OVMF_FOLDER = pathlib.Path("/usr/share/OVMF")
DISK_SERIAL = "mullion0"
# What connects a disk to the machine: QEMU's arguments. The machine's own AHCI controller has the CD with the boot image.
DISK_CONTROLLERS = {"nvme": ("-device", f"nvme,drive=disk0,serial={DISK_SERIAL}"),
                    "ahci": ("-device", "ich9-ahci,id=ahci0", "-device", f"ide-hd,bus=ahci0.0,drive=disk0,serial={DISK_SERIAL}"),
                    "virtio": ("-device", f"virtio-blk-pci,drive=disk0,serial={DISK_SERIAL},disable-legacy=on"),
                    "ide": ("-device", "piix3-ide,id=ide0", "-device", f"ide-hd,bus=ide0.0,drive=disk0,serial={DISK_SERIAL}")}
BOCHS_DISK = "disk"  # Bochs puts its lock file beside it: in the machine's folder, which goes away with the machine


@dataclasses.dataclass
class Options:
    kind: str = "bochs"  # or qemu, qemu-kvm
    cpus: int = 1
    memory: int = 512  # MiB
    cpu_model: str = ""
    uefi: bool = False  # QEMU, or Bochs from 3.1 on
    screen: bool | None = None  # QEMU: a VGA; None: if there is UEFI, where a machine without one is rare
    ignore_bad_msrs: bool = False  # Bochs: Linux without a hypervisor underneath reads MSRs that Bochs lacks
    deterministic: bool = False  # QEMU: one tick per instruction
    ticks_per_second: int = BOCHS_TICKS_PER_SECOND
    tick_shift: int = 0  # and this is its length: 1 ns << tick_shift
    disk: pathlib.Path | None = None  # an image, which the machine may write to
    disk_controller: str = ""  # one of DISK_CONTROLLERS; empty: usual_disk_controller()
    network: demo_network.Forward | None = None  # QEMU: the machine has a NIC, and a network of the emulator's own outside
    extra: tuple = ()  # QEMU: arguments; Bochs: lines of its configuration


@dataclasses.dataclass
class End:
    reason: str
    orderly: bool  # the machine was switched off, not stopped by a crash or by us
    ticks: int | None = None  # Bochs: instructions since power-on


def is_bochs_model(cpu_model):
    return cpu_model.startswith(BOCHS_MODELS)


def choose(asked, uefi, cpu_model):
    """Returns the kind of machine to start and why: the fastest that is known to work, unless something speaks against it."""
    if asked:
        return asked, "as asked for"
    if is_bochs_model(cpu_model):
        return "bochs", f"{cpu_model} is one of its CPU models"
    if uefi:
        return "qemu", "Bochs has no UEFI"
    return "qemu", "AMD-V in software, many times as fast as Bochs; --emulator bochs has Intel VT-x"


def usual_disk_controller(kind):
    """Bochs has no other."""
    return "ide" if kind == "bochs" else "nvme"


def hypervisor_options(kind, own=""):
    """What Mullion is told in this emulator: `own`, and in Bochs to do without virtual-interrupt delivery, which Bochs gets
    wrong now and then (docs/CAVEATS.md); but who says himself what to do without knows better."""
    if kind != "bochs" or "vmx-disable=" in own:
        return own
    return f"vmx-disable=virtual-interrupts {own}".rstrip()


class Machine:
    """A running emulator. `serial` is a connected socket: the first serial port of the machine."""

    def __init__(self, image, options):
        self._files = contextlib.ExitStack()
        self.folder = self._files.enter_context(scratch_folder("machine"))
        self.serial = None
        self.process = None
        self._log = self.folder / "emulator.log"
        try:
            start = self._start_bochs if options.kind == "bochs" else self._start_qemu
            start(pathlib.Path(image).resolve(), options)
        except BaseException:
            self.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        self.close()

    def log(self):
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def _messages(self):
        file = self.folder / BOCHS_LOG
        return file.read_text(errors="replace") if file.exists() else ""

    def close(self):
        """Stops the emulator if it still runs and removes its files."""
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        if self.serial:
            self.serial.close()
            self.serial = None
        self._files.close()

    def cpu_seconds(self):
        """CPU time that the emulator has used so far; less than it ever was when it is gone."""
        try:
            fields = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        except OSError:
            return 0.0
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def qmp(self, command, **arguments):
        """Has QEMU run a command of its QMP, on a machine with a screen."""
        with socket.socket(socket.AF_UNIX) as monitor:
            monitor.settimeout(60)
            monitor.connect(str(self.folder / "qmp"))
            lines = monitor.makefile("r")
            for request in ({"execute": "qmp_capabilities"}, {"execute": command, "arguments": arguments}):
                monitor.sendall(json.dumps(request).encode())
                for line in lines:
                    reply = json.loads(line)
                    if "error" in reply:
                        raise Failure(f"QEMU refused {request['execute']}: {reply['error'].get('desc')}")
                    if "return" in reply:  # not the greeting, nor an event
                        break
                else:
                    raise Failure(f"QEMU ended during {request['execute']}")

    def screenshot(self):
        """Returns the screen as a PPM."""
        self.qmp("screendump", filename=str(self.folder / "screen.ppm"))
        return (self.folder / "screen.ppm").read_bytes()

    def end(self, wait=10):
        """Waits for the emulator to leave after its serial line closed, and says how the machine ended."""
        try:
            self.process.wait(wait)
        except subprocess.TimeoutExpired:
            return End("the emulator closed the serial line but runs on", False)
        return bochs_end(self.log(), self._messages()) if self.is_bochs else qemu_end(self.process.returncode, self.log())

    def _spawn(self, command, **options):
        with open(self._log, "wb") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, cwd=self.folder,
                                            start_new_session=True, **options)

    def _start_bochs(self, image, options):
        self.is_bochs = True
        binary = bochs_binary()
        if not shutil.which(binary):
            raise Failure(f"there is no {binary}; ./scripts/setup bochs installs it")
        if options.uefi and (version := bochs_version(binary)) < BOCHS_WITH_UEFI:
            raise Failure("UEFI needs Bochs {}.{} or newer, and this is {}.{}; QEMU has it".format(*BOCHS_WITH_UEFI, *version))
        if options.disk:
            (self.folder / BOCHS_DISK).symlink_to(pathlib.Path(options.disk).resolve())
        (self.folder / "commands").write_text("c\n")
        listener, enter = private_network.listener()
        with listener:
            port = listener.getsockname()[1]
            (self.folder / "bochsrc").write_text(bochs_configuration(image, options, port))

            def prepare():
                enter()
                die_with_parent()
            self._spawn([binary, "-q", "-f", "bochsrc", "-rc", "commands"], preexec_fn=prepare)
            self.serial = self._accept(listener)

    def _accept(self, listener):
        listener.settimeout(0.1)
        for _ in range(300):
            try:
                connection, _ = listener.accept()
                connection.setblocking(True)
                return connection
            except TimeoutError:
                if self.process.poll() is not None:
                    break
        raise Failure("Bochs did not start:\n" + bochs_reason(self.log()))

    def _start_qemu(self, image, options):
        self.is_bochs = False
        if not shutil.which("qemu-system-x86_64"):
            raise Failure("there is no qemu-system-x86_64; ./scripts/setup qemu installs it")
        self.serial, other = socket.socketpair()
        with other:
            command = qemu_command(image, options, other.fileno(), self.folder)
            self._spawn(command, pass_fds=[other.fileno()], preexec_fn=die_with_parent)


def bochs_binary():
    return os.environ.get("BOCHS", "bochs")


def loses_linux(kind, cpus):
    """Whether this emulator loses a Linux in a VM on a machine with so many CPUs."""
    return kind == "bochs" and cpus > 1 and bochs_version(bochs_binary()) >= BOCHS_LOSING_LINUX


def bochs_version(binary):
    text = subprocess.run([binary, "--help"], capture_output=True, stdin=subprocess.DEVNULL, text=True, errors="replace")
    found = re.search(r"Bochs x86 Emulator (\d+)\.(\d+)", text.stdout + text.stderr)
    return (int(found.group(1)), int(found.group(2))) if found else (0, 0)


def bochs_configuration(image, options, port):
    model = options.cpu_model or BOCHS_MODEL
    lines = [
        "config_interface: textconfig",
        'display_library: rfb, options="timeout=0, hideIPS"',
        *(BOCHS_UEFI if options.uefi else ["romimage: file=/usr/share/bochs/BIOS-bochs-latest"]),
        "vgaromimage: file=/usr/share/bochs/VGABIOS-lgpl-latest",
        f"cpu: model={model}, count={options.cpus}, ips={options.ticks_per_second}, reset_on_triple_fault=0, "
        f"ignore_bad_msrs={int(options.ignore_bad_msrs)}",
        "clock: sync=none, time0=1700000000",
        f"megs: {options.memory}",
        *bochs_drives(image, options),
        "boot: cdrom",
        f"com1: enabled=1, mode=socket-client, dev=127.0.0.1:{port}",
        # Without a sound card in the host, the default driver brings Bochs down.
        "sound: waveoutdrv=dummy, waveindrv=dummy, midioutdrv=dummy",
        "speaker: enabled=0",
        "panic: action=fatal",
        "error: action=ignore",
        "info: action=report",
        "debug: action=ignore",
        f"log: {BOCHS_LOG}",
        *options.extra,
    ]
    return "\n".join(lines) + "\n"


def bochs_drives(image, options):
    """A disk has the first place, where software looks for one, and the CD the first of the second channel."""
    boot_medium = f"type=cdrom, path={image}, status=inserted"
    if not options.disk:
        return [f"ata0-master: {boot_medium}"]
    if (options.disk_controller or "ide") != "ide":
        raise Failure(f"Bochs has IDE disks only, found {options.disk_controller}")
    return [f"ata0-master: type=disk, mode=flat, path={BOCHS_DISK}",
            "ata1: enabled=1, ioaddr1=0x170, ioaddr2=0x370, irq=15", f"ata1-master: {boot_medium}"]


def bochs_reason(log):
    found = re.findall(r"Bochs is exiting with the following message:\s*\n\s*(.*)", log)
    return found[-1] if found else "\n".join(line for line in log.splitlines()[-8:] if "ALSA" not in line)


def bochs_end(log, messages):
    """log: what Bochs wrote to its terminal; messages: its log file."""
    reason = bochs_reason(log)
    # "ACPI control: soft power off" and the shutdown port are how a machine switches itself off; all end with status 1.
    orderly = "power off" in reason.lower() or "shutdown port" in reason.lower()
    # Each line begins with the ticks since power-on; the last power-off lines of Bochs 3 say 0.
    ticks = [int(digits) for digits in re.findall(r"^(\d{11,})[a-z]\[", messages, re.M)]
    return End(reason, orderly, max(ticks, default=None))


def ovmf():
    """Returns the file of the UEFI firmware's code; that of its variables is named after it."""
    found = [OVMF_FOLDER / name for name in OVMF if (OVMF_FOLDER / name).exists()]
    if not found:
        raise Failure(f"there is no {' or '.join(OVMF)} in {OVMF_FOLDER}; ./scripts/setup qemu installs it")
    return found[0]


def qemu_command(image, options, serial_descriptor, folder):
    command = ["qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none", "-machine", "q35", "-m", str(options.memory),
               "-smp", str(options.cpus), "-chardev", f"socket,id=serial0,fd={serial_descriptor}", "-serial", "chardev:serial0",
               "-cdrom", str(image), "-boot", "d", "-no-reboot"]
    if options.kind == "qemu-kvm":
        command += ["-accel", "kvm", "-cpu", options.cpu_model or "host"]
    else:
        command += ["-cpu", options.cpu_model or "EPYC,+svm"]
        command += ["-accel", "tcg,thread=single", "-icount", f"shift={options.tick_shift},sleep=off", "-rtc", "base=2026-01-01,clock=vm"] \
            if options.deterministic else ["-accel", "tcg,thread=multi"]
    if options.uefi if options.screen is None else options.screen:
        command += ["-vga", "std", "-qmp", f"unix:{folder / 'qmp'},server=on,wait=off"]
    if options.uefi:
        firmware, variables = ovmf(), folder / "variables.fd"
        shutil.copyfile(firmware.with_name(firmware.name.replace("CODE", "VARS")), variables)
        command += ["-drive", f"if=pflash,format=raw,readonly=on,file={firmware}", "-drive", f"if=pflash,format=raw,file={variables}"]
    if options.disk:
        file = str(pathlib.Path(options.disk).resolve()).replace(",", ",,")
        command += ["-drive", f"if=none,id=disk0,file={file},format=raw,cache=writeback",
                    *DISK_CONTROLLERS[options.disk_controller or usual_disk_controller(options.kind)]]
    if options.network:
        command += options.network.qemu_arguments()
    return command + list(options.extra)


def qemu_end(status, log):
    if status == 0:
        return End("the machine was switched off or reset", True)
    return End(f"QEMU ended with status {status}: " + log.strip()[-2000:], False)
