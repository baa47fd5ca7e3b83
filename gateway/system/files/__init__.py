"""Files of the node: replaced atomically, checked, private, set aside if damaged."""

from gateway.system.files.atomic_files import (
    put_in_place,
    remove_file,
    replace_file,
    set_aside,
    sync_folder,
    write_beside,
)
from gateway.system.files.change_log import ChangeLog, LogContent, add_to_each, size_bytes
from gateway.system.files.damaged_files import DamagedFile, DamagedFiles
from gateway.system.files.private_folder import make_private
from gateway.system.files.sealed import (
    AlteredError,
    NewerFormatError,
    is_sealed,
    seal,
    unseal,
    unseal_known,
)
from gateway.worker.process.guarded_read import DamagedFileError, read_file

__all__ = [
    "AlteredError",
    "ChangeLog",
    "DamagedFile",
    "DamagedFileError",
    "DamagedFiles",
    "LogContent",
    "NewerFormatError",
    "add_to_each",
    "is_sealed",
    "make_private",
    "put_in_place",
    "read_file",
    "remove_file",
    "replace_file",
    "seal",
    "set_aside",
    "size_bytes",
    "sync_folder",
    "unseal",
    "unseal_known",
    "write_beside",
]
