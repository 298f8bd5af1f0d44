"""``python -m discrete_itd``, and for several processes ``torchrun --nproc-per-node 2 -m discrete_itd fit ...``."""

import sys

from discrete_itd.cli.command import main

sys.exit(main())
