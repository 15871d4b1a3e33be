"""Reading changes from git: bare mirrors, local repositories; objects alone. The one place where git is called."""

from worker.checkout.limits import CheckoutLimits
from worker.checkout.local import open_local
from worker.checkout.mirror import MirrorCheckout
from worker.checkout.tree import ObjectTree

__all__ = ["CheckoutLimits", "MirrorCheckout", "ObjectTree", "open_local"]
