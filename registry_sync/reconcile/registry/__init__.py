"""The registry as it was listed last, and the hints that it may have changed."""

from registry_sync.reconcile.registry.hints import Hints as Hints
from registry_sync.reconcile.registry.registry_view import Listings as Listings
