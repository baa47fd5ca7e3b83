"""Files of the node: replaced atomically, checked, private, set aside if damaged."""

from gateway.system.files.atomic_files import (
    put_in_place as put_in_place,
    remove_file as remove_file,
    replace_file as replace_file,
    set_aside as set_aside,
    sync_folder as sync_folder,
    write_beside as write_beside,
)
from gateway.system.files.change_log import (
    ChangeLog as ChangeLog,
    LogContent as LogContent,
    add_to_each as add_to_each,
    size_bytes as size_bytes,
)
from gateway.system.files.damaged_files import (
    DamagedFile as DamagedFile,
    DamagedFiles as DamagedFiles,
)
from gateway.system.files.private_folder import make_private as make_private
from gateway.system.files.sealed import (
    AlteredError as AlteredError,
    NewerFormatError as NewerFormatError,
    is_sealed as is_sealed,
    seal as seal,
    unseal as unseal,
    unseal_known as unseal_known,
)
from gateway.worker.process.guarded_read import (
    DamagedFileError as DamagedFileError,
    read_file as read_file,
)
