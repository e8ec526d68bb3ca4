# SPDX-License-Identifier: MIT
"""The test runner's own parts: what a test is, how one runs, and the table of results."""
import dataclasses
import os
import pathlib
import signal
import subprocess
import tempfile
import time

PASSED, FAILED, SKIPPED = "passed", "failed", "skipped"
STATUS_SKIP = 77
LOG_LINES = 120
LAST_LINES = 120  # of all failed tests at the end, where a log that was cut short still has them


@dataclasses.dataclass
class Test:
    name: str
    backend: str  # what it runs on: host, or a platform of tests/system/framework.py
    command: list
    limit: int  # seconds
    quick: bool = True
    alone: bool = False  # builds and the like, which use every CPU themselves and come first
    environment: dict = dataclasses.field(default_factory=dict)
    platforms: tuple = ()  # all that it is for
    why_not: str = ""  # on the others

    @property
    def label(self):
        return f"{self.name}  [{self.backend}]"


@dataclasses.dataclass
class Outcome:
    test: Test
    result: str
    seconds: float
    log: str
    why: str = ""


def run(test, root):
    """Runs one test in a process group of its own, so that nothing of it lives on past its limit."""
    started = time.monotonic()
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen([str(part) for part in test.command], cwd=root, stdin=subprocess.DEVNULL, stdout=log,
                                   stderr=subprocess.STDOUT, start_new_session=True, env={**os.environ, **test.environment})
        try:
            status = process.wait(test.limit)
            why = f"status {status}"
        except subprocess.TimeoutExpired:
            status, why = None, f"not done after {test.limit} s"
        finally:
            stop_group(process)
        log.seek(0)
        text = log.read().decode(errors="replace")
    result = PASSED if status == 0 else SKIPPED if status == STATUS_SKIP else FAILED
    return Outcome(test, result, time.monotonic() - started, text, why)


def stop_group(process):
    """SIGTERM first: the scripts remove their files then."""
    for number, patience in ((signal.SIGTERM, 5), (signal.SIGKILL, 5)):
        if process.poll() is not None:
            break
        os.killpg(process.pid, number)
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            pass
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def log_tail(outcome, count=LOG_LINES):
    lines = outcome.log.replace("\r", "").rstrip().splitlines()[-count:]
    return "\n".join("    " + line for line in lines)


def cell(outcome):
    return f"{outcome.result} {outcome.seconds:.0f} s" if outcome else "-"


def skip_reason(outcome):
    found = [line for line in outcome.log.splitlines() if line.startswith("skipped: ")]
    return f"{outcome.test.backend}: {found[-1].removeprefix('skipped: ') if found else 'it did not say'}"


def remarks(by_backend, test, platforms):
    """Why a test was skipped, or does not run on both vendors."""
    found = [skip_reason(outcome) for outcome in by_backend.values() if outcome.result == SKIPPED]
    def vendors(names):
        return {name.split("/")[0] for name in names}
    if "host" in by_backend:
        return "; ".join(found)
    if vendors(test.platforms) != vendors(platforms):
        found.append(test.why_not or "no reason was given")
    if missing := [name for name in test.platforms if name not in by_backend]:
        found.append(f"{', '.join(missing)}: not chosen")
    return "; ".join(found)


def table(outcomes, platforms, note):
    """One row per test: how it went on each platform, and why not on others."""
    rows = {}
    for outcome in outcomes:
        rows.setdefault(outcome.test.name, {})[outcome.test.backend] = outcome
    columns = ["host", *platforms]
    wide = max(12, *map(len, columns))
    width = max([len(name) for name in rows] + [4])
    lines = [f"{'name':{width}}  " + "  ".join(f"{column:{wide}}" for column in columns) + "  remarks"]
    for name, by_backend in rows.items():
        cells = "  ".join(f"{cell(by_backend.get(column)):{wide}}" for column in columns)
        lines.append(f"{name:{width}}  {cells}  {remarks(by_backend, next(iter(by_backend.values())).test, platforms)}".rstrip())
    return "\n".join([*lines, "", note])


def failures(outcomes):
    """What failed, all in one place."""
    failed = [outcome for outcome in outcomes if outcome.result == FAILED]
    return "\n".join(f"failed: {outcome.test.label}: {outcome.why}\n{log_tail(outcome, max(12, LAST_LINES // len(failed)))}" for outcome in failed)


def summary(outcomes):
    counts = {result: sum(outcome.result == result for outcome in outcomes) for result in (PASSED, FAILED, SKIPPED)}
    return f"{counts[PASSED]} passed, {counts[FAILED]} failed, {counts[SKIPPED]} skipped"


def executables(folder, pattern):
    return [path for path in sorted(pathlib.Path(folder).glob(pattern)) if path.is_file() and os.access(path, os.X_OK)]
