"""Every error this package raises on purpose, with the exit code the command line gives it.

    SdclrError                       a message that states what is wrong, where, and how to fix it
    ├── ConfigError          78      a setting is wrong, or a run folder was made with other settings
    ├── DataError            65      the data exist but are unusable
    ├── MissingInputError    66      a named file or folder does not exist
    ├── RunFolderError       73      the run folder is locked by another process, or not writable
    ├── StorageError         74      the disk is full or failed
    ├── Preempted            75      stopped on request; the same command resumes from here
    ├── Interrupted          130     Ctrl-C in a command that keeps no unfinished work
    ├── CheckpointError      76      a checkpoint is damaged, foreign or does not fit
    ├── NonFiniteError       79      the loss is no longer a finite number
    ├── DistributedError     80      the process group could not be used
    ├── FailedRunsError      81      some runs of a grid failed; the others are done
    └── RemoteError          69      data at an address cannot be read, are missing or have changed

A command that cannot be parsed exits with 2. Anything else that escapes is a bug of ours (exit code 70) and is shown
with its traceback.
"""

from __future__ import annotations

EXIT_BUG = 70


class SdclrError(Exception):
    """Base of all errors meant for the user; ``str(error)`` is the whole message.

    >>> try:
    ...     raise ConfigError("epochs must be at least 1, got 0.")
    ... except SdclrError as error:
    ...     print(error, error.exit_code)
    epochs must be at least 1, got 0. 78
    """

    exit_code = 1
    reported_elsewhere = False
    """Whether another process of the same run reports it to the user."""


class ConfigError(SdclrError):
    exit_code = 78


class DataError(SdclrError):
    exit_code = 65


class NoLabelsError(DataError):
    """There are images, but they have no labels."""


class ChangedDataError(DataError):
    """A file was written or replaced while it was read; no single image in it is at fault."""


class MissingInputError(SdclrError):
    exit_code = 66


class RunFolderError(SdclrError):
    exit_code = 73


class InUseError(RunFolderError):
    """Another process holds the lock of a folder or file."""


class StorageError(SdclrError):
    exit_code = 74


class Preempted(SdclrError):
    exit_code = 75


class Interrupted(SdclrError):
    exit_code = 130


class CheckpointError(SdclrError):
    exit_code = 76


class NonFiniteError(SdclrError):
    exit_code = 79


class DistributedError(SdclrError):
    exit_code = 80


class FailedRunsError(SdclrError):
    exit_code = 81


class RemoteError(SdclrError):
    exit_code = 69
