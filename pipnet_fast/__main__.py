"""``python -m pipnet_fast`` is the command ``pipnet-fast``."""

import sys

from pipnet_fast.cli import main

sys.exit(main())
