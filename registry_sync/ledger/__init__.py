"""The node's memory: the ledger, the holds file, and the backlog of both."""

from registry_sync.ledger.damaged_ledger import set_aside_damaged as set_aside_damaged
from registry_sync.ledger.database import begin_immediate as begin_immediate
from registry_sync.ledger.holds_file import HoldsFile as HoldsFile
from registry_sync.ledger.journal import Journal as Journal
from registry_sync.ledger.ledger import Ledger as Ledger
from registry_sync.ledger.tables import metadata as metadata
