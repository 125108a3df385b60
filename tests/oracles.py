"""Every oracle of the tests under one name: the registry and all that is in it.

Importing it registers the oracles of all families.
"""

import oracles_pairs  # noqa: F401
import oracles_proxies  # noqa: F401
import oracles_softmax  # noqa: F401
import oracles_triplets  # noqa: F401
from oracle_registry import *  # noqa: F403
from oracle_rows import DISTANCES, distance  # noqa: F401
from oracles_miners import *  # noqa: F403
