"""``python -m recipelang``: the same as the command ``recipe``."""

import sys

from recipelang.cli import main

sys.exit(main())
