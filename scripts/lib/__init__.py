# SPDX-License-Identifier: MIT
"""What the scripts share."""
import pathlib
import sys

# tomllib and the like. Checked here, before any other part is loaded, so that an older one gives a sentence and no traceback.
if sys.version_info < (3, 11):
    sys.exit(f"{pathlib.Path(sys.argv[0]).name}: needs Python 3.11 or newer, and this is {sys.version.split()[0]} ({sys.executable}). "
             "Debian 12 and 13 and Ubuntu 24.04 have it; Ubuntu 22.04 is too old for Mullion (it has no clang 19 either).")
