"""Where things are, and how a script tells its user what it is doing."""
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = ROOT / "build"
CACHE = ROOT / ".cache"
SCRIPTS = ROOT / "scripts"


# Set by a script whose output matters more than its progress: then only a spinner on a terminal tells of it.
quiet = False


class Failure(Exception):
    """Something the user can act on: shown without a traceback."""


def say(text):
    print(text, file=sys.stderr, flush=True)


class Progress:
    """One step that takes a while: a spinner with the elapsed time on a terminal, one plain line elsewhere."""

    def __init__(self, title, visible=True):
        self.title = title
        self.detail = ""
        self._started = time.monotonic()
        self._tty = sys.stderr.isatty()
        self._visible = visible
        self._stop = threading.Event()
        self._thread = None

    def __enter__(self):
        if self._visible and self._tty:
            self._thread = threading.Thread(target=self._spin, daemon=True)
            self._thread.start()
        elif self._visible and not quiet:
            say(f"{self.title} ...")
        return self

    def __exit__(self, kind, value, trace):
        self.finish()

    def finish(self):
        """Clears the spinner; the line is free for whatever comes next. May be called more than once."""
        if self._thread and not self._stop.is_set():
            self._stop.set()
            self._thread.join()
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()

    def _spin(self):
        turn = 0
        while not self._stop.wait(0.2):
            turn += 1
            width = os.get_terminal_size(sys.stderr.fileno()).columns
            seconds = time.monotonic() - self._started
            text = "{} {} ({:.0f} s) {}".format("|/-\\"[turn % 4], self.title, seconds, self.detail)
            sys.stderr.write("\r" + text[: width - 1] + "\x1b[K")
            sys.stderr.flush()


def run_quietly(title, command, visible=True, **options):
    """Runs a command behind a progress line; its output is shown only when it fails."""
    with Progress(title, visible):
        done = subprocess.run([str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                              errors="replace", stdin=subprocess.DEVNULL, **options)
    if done.returncode != 0:
        raise Failure(f"{done.stdout.rstrip()}\n{title}: `{' '.join(map(str, command))}` ended with status {done.returncode}")
    return done.stdout


def main_wrapper(main):
    """Runs a script's main: SIGTERM and SIGHUP unwind like Ctrl-C, so that emulators and temporary files go away."""
    def unwind(number, _frame):
        raise SystemExit(128 + number)
    signal.signal(signal.SIGTERM, unwind)
    signal.signal(signal.SIGHUP, unwind)
    try:
        sys.exit(main())
    except Failure as failure:
        say(f"{pathlib.Path(sys.argv[0]).name}: {failure}")
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
