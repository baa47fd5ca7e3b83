"""Metrics of the gateway, and tallies of live traffic by version."""

from gateway.observability.exposition import exposition as exposition
from gateway.observability.live_tallies import LiveTallies as LiveTallies
from gateway.observability.metrics import NO_MODEL as NO_MODEL, Telemetry as Telemetry
from gateway.observability.tally import Tally as Tally
