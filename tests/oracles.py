"""Every oracle of the tests under one name: the registry and all that is in it.

Importing it registers the oracles of all families.
"""

import oracles_cross_modal  # noqa: F401
import oracles_pairs  # noqa: F401
import oracles_pairs_more  # noqa: F401
import oracles_proxies  # noqa: F401
import oracles_proxies_classes  # noqa: F401
import oracles_proxies_distances  # noqa: F401
import oracles_proxies_manifold  # noqa: F401
import oracles_proxies_margins  # noqa: F401
import oracles_proxies_sums  # noqa: F401
import oracles_ranking  # noqa: F401
import oracles_softmax  # noqa: F401
import oracles_softmax_more  # noqa: F401
import oracles_triplets  # noqa: F401
import oracles_triplets_more  # noqa: F401
from oracle_registry import *  # noqa: F403
from oracle_rows import DISTANCES, distance  # noqa: F401
from oracles_miners import *  # noqa: F403
