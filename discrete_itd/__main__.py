"""``python -m discrete_itd``."""

import sys

from discrete_itd.cli.command import main

sys.exit(main())
