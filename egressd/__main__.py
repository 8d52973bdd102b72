"""`python -m egressd`."""

import sys

from egressd.cli.main import main

sys.exit(main())
