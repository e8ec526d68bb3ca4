# SPDX-License-Identifier: MIT
"""Unit tests of the test runner: what a result is, and what is printed of it."""
import pathlib
import subprocess
import sys
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))
from lib import testing  # noqa: E402


class TestingTest(unittest.TestCase):
    def run_one(self, *command, limit=10):
        return testing.run(testing.Test("x", "host", list(command), limit), ROOT)

    def test_results(self):
        self.assertEqual(self.run_one("true").result, testing.PASSED)
        self.assertEqual(self.run_one("false").result, testing.FAILED)
        self.assertEqual(self.run_one("sh", "-c", "exit 77").result, testing.SKIPPED)

    def test_time_limit(self):
        outcome = self.run_one("sleep", "1000", limit=0.2)
        self.assertEqual((outcome.result, outcome.why), (testing.FAILED, "not done after 0.2 s"))

    def test_last_line(self):
        self.assertEqual(testing.summary([self.run_one("true"), self.run_one("false")]), "1 passed, 1 failed, 0 skipped")

    def test_what_failed_stands_together_with_its_last_lines(self):
        bad = self.run_one("sh", "-c", "seq 200; exit 3")
        # The fewer they are, the more lines each has.
        for count, first in ((1, 81), (2, 141), (20, 189)):
            self.assertEqual(testing.failures([self.run_one("true"), *[bad] * count]).splitlines(),
                             ["failed: x  [host]: status 3", *[f"    {n}" for n in range(first, 201)]] * count)
        self.assertEqual(testing.failures([self.run_one("true")]), "")

    def test_the_table_says_where_each_test_ran_and_why_not_elsewhere(self):
        platforms = ["vt-x/a", "amd-v/a", "amd-v/b"]

        def outcome(name, backend, result, where=("vt-x/a", "amd-v/b"), why="", log=""):
            return testing.Outcome(testing.Test(name, backend, [], 1, platforms=where, why_not=why), result, 2, log)
        table = testing.table([outcome("unit", "host", testing.PASSED), outcome("both", "vt-x/a", testing.PASSED),
                               outcome("both", "amd-v/b", testing.SKIPPED, log="x\nskipped: no disk\n"),
                               outcome("one", "amd-v/a", testing.FAILED, ("amd-v/a",), why="no UEFI"),
                               outcome("half", "vt-x/a", testing.PASSED)], platforms, "the note").splitlines()
        self.assertEqual([line.split() for line in table[:6]],
                         [["name", "host", *platforms, "remarks"], ["unit", "passed", "2", "s", "-", "-", "-"],
                          ["both", "-", "passed", "2", "s", "-", "skipped", "2", "s", "amd-v/b:", "no", "disk"],
                          ["one", "-", "-", "failed", "2", "s", "-", "no", "UEFI"],
                          ["half", "-", "passed", "2", "s", "-", "-", "amd-v/b:", "not", "chosen"], []])
        self.assertEqual(table[-1], "the note")

    def test_zero_tests_fail(self):
        done = subprocess.run([ROOT / "scripts/test", "-k", "no test has this name"], capture_output=True, text=True)
        self.assertEqual((done.returncode, done.stdout.splitlines()[-1]), (1, "0 passed, 0 failed, 0 skipped"))


if __name__ == "__main__":
    unittest.main()
