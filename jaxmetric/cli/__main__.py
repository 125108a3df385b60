"""`python -m jaxmetric.cli`, the same as `jaxmetric`."""

import sys

from jaxmetric.cli import main

sys.exit(main())
