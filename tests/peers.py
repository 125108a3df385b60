"""Every comparison with losses of PyTorch: importing this registers them all."""

import peers_nn  # noqa: F401
import peers_pairs  # noqa: F401
import peers_proxies  # noqa: F401
import peers_softmax  # noqa: F401
import peers_triplets  # noqa: F401
from peer_registry import PEERS

__all__ = ["PEERS"]
