# SPDX-License-Identifier: MIT
"""Where things are, and how a script tells its user what it is doing."""
import contextlib
import ctypes
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = ROOT / "build"
CACHE = ROOT / ".cache"
SCRIPTS = ROOT / "scripts"
COLUMNS = 80  # the most that a progress line takes

# Set by a script whose output matters more than its progress: without a terminal, only a step that takes long tells of itself.
quiet = False


class Failure(Exception):
    """Something the user can act on: shown without a traceback."""


def say(text):
    print(text, file=sys.stderr, flush=True)


class Progress:
    """One step that takes a while: a spinner with the elapsed time on a terminal, plain lines elsewhere."""
    FIRST_LINE, NEXT_LINE = 10, 30  # seconds after which a step without a terminal says that it goes on

    def __init__(self, title, visible=True):
        self.title = title
        self.detail = ""
        self._started = time.monotonic()
        self._tty = sys.stderr.isatty()
        self._visible = visible
        self._stop = threading.Event()
        self._thread = None

    def __enter__(self):
        if self._visible:
            if not self._tty and not quiet:
                say(f"{self.title} ..."[:COLUMNS])
            self._thread = threading.Thread(target=self._spin if self._tty else self._write_lines, daemon=True)
            self._thread.start()
        return self

    def __exit__(self, kind, value, trace):
        self.finish()

    def finish(self):
        """Clears the spinner; the line is free for whatever comes next. May be called more than once."""
        if self._thread and not self._stop.is_set():
            self._stop.set()
            self._thread.join()
            if self._tty:
                sys.stderr.write("\r\x1b[K")
                sys.stderr.flush()

    def line(self, mark=""):
        return " ".join(f"{mark} {self.title} ({time.monotonic() - self._started:.0f} s) {self.detail}".split())

    def _spin(self):
        turn = 0
        while not self._stop.wait(0.2):
            turn += 1
            width = min(os.get_terminal_size(sys.stderr.fileno()).columns or COLUMNS, COLUMNS)
            sys.stderr.write("\r" + self.line("|/-\\"[turn % 4])[: width - 1] + "\x1b[K")
            sys.stderr.flush()

    def _write_lines(self):
        wait = self.FIRST_LINE
        while not self._stop.wait(wait):
            say(self.line()[:COLUMNS])
            wait = self.NEXT_LINE


def run_quietly(title, command, visible=True, **options):
    """Runs a command; a progress line shows the last line of its output. All of the output is shown only when it fails."""
    output = []
    with Progress(title, visible) as progress:
        process = subprocess.Popen([str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                                   errors="replace", stdin=subprocess.DEVNULL, **options)
        try:
            for line in process.stdout:
                output.append(line)
                if words := "".join(character for character in line if character.isprintable()).strip():
                    progress.detail = words
            status = process.wait()
        except BaseException:
            process.terminate()
            process.wait()
            raise
    text = "".join(output)
    if status != 0:
        raise Failure(f"{text.rstrip()}\n{title}: `{' '.join(map(str, command))}` ended with status {status}")
    return text


def die_with_parent():
    """Runs in the child before exec: not even a killed script leaves an emulator behind."""
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


@contextlib.contextmanager
def scratch_folder(kind, parent=None):
    """A temporary folder that goes away whatever ends this process: a small shell waits for its end and removes what is left.
    parent: where it is, if not where temporary files usually are; its name begins with a dot then."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix=f"{'.' if parent else ''}mullion-{kind}-", dir=parent)).absolute()
    try:
        # In a session of its own, so that what kills this process's group spares it.
        keeper = subprocess.Popen(["/bin/sh", "-c", 'trap "" HUP INT TERM; read -r line; rm -rf -- "$0"', folder], stdin=subprocess.PIPE,
                                  stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/", start_new_session=True)
        try:
            yield folder
        finally:
            keeper.stdin.close()
            keeper.wait()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def replacing(path):
    """Yields a new file beside `path`, which takes its place when all went well; else `path` stays as it was."""
    path = pathlib.Path(path)
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    os.close(descriptor)
    partial = pathlib.Path(name)
    try:
        yield partial
        partial.chmod(0o666 & ~current_umask())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def current_umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def raise_if_not_writable(path):
    """Before minutes of work go into a file that cannot be written."""
    path = pathlib.Path(path)
    if path.is_dir():
        raise Failure(f"{path} is a folder: name a file in it")
    if path.exists() and not path.is_file():
        raise Failure(f"{path} is no ordinary file: write an image to a file, then copy it with dd")
    folder = path.parent
    if not folder.is_dir():
        raise Failure(f"there is no folder {folder} to write {path.name} into")
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise Failure(f"cannot write into the folder {folder}: {error.strerror}") from None


def show_help(script, text):
    if sys.argv[1] in ("-h", "--help"):
        print(text.strip())
        return 0
    say(f"{script}: takes no arguments, found {sys.argv[1]!r}")
    return 2


def main_wrapper(main, help_text=None):
    """Runs a script's main: SIGTERM and SIGHUP unwind like Ctrl-C, so that emulators and temporary files go away.

    help_text: of a script that takes no arguments."""
    def unwind(number, _frame):
        raise SystemExit(128 + number)
    signal.signal(signal.SIGTERM, unwind)
    signal.signal(signal.SIGHUP, unwind)
    script = pathlib.Path(sys.argv[0]).name
    try:
        status = main() if help_text is None or len(sys.argv) == 1 else show_help(script, help_text)
        sys.stdout.flush()
        sys.exit(status)
    except Failure as failure:
        say(f"{script}: {failure}")
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except OSError as error:
        names = " and ".join(str(name) for name in (error.filename, error.filename2) if name is not None)
        say(f"{script}: {names + ': ' if names else ''}{error.strerror or error}")
        sys.exit(1)
