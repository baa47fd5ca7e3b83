"""Metrics of the gateway, and tallies of live traffic by version."""

from gateway.observability.exposition import exposition
from gateway.observability.live_tallies import LiveTallies
from gateway.observability.metrics import NO_MODEL, Telemetry
from gateway.observability.tally import Tally

__all__ = ["NO_MODEL", "LiveTallies", "Tally", "Telemetry", "exposition"]
