"""Which shards an address names: one, a range {000..146}, a glob, or all of a folder. Opens none."""

from __future__ import annotations

from pathlib import Path

from sdclr.addresses import HTTP, Address, share_secrets
from sdclr.data.choices import SHARD_SUFFIX
from sdclr.data.remote.ranges import names_below
from sdclr.data.sources.globs import Glob
from sdclr.data.sources.tar_shards import expand_braces
from sdclr.errors import ConfigError, DataError
from sdclr.safe_text import shown

_MAGIC = "*?["
_BUCKETS = ("s3", "s3a", "gs", "gcs")


def shards_at(address: Address) -> tuple[Address, list[str]]:
    """The folder of the shards, and their names in it.

    Raises DataError for an address that names no shards, ConfigError where a server has no list of its files.
    """
    name, folder = address.name, address.parent
    if not address.server and address.protocol in (*HTTP, *_BUCKETS):
        raise ConfigError(
            f"{shown(address)} names no server or bucket. Write it as in s3://bucket/train-000.tar."
        )
    if "*" in str(folder):
        raise ConfigError(
            f"{shown(address)}: a glob names shards of one folder (s3://bucket/photos/*.tar). Give the folder's name."
        )
    if not name and folder.suffix.lower() == SHARD_SUFFIX and address.protocol in HTTP:
        raise _slash_after(address)
    if "*" in name and address.protocol in HTTP:
        raise _no_list(folder)
    is_glob = any(sign in name for sign in _MAGIC) and address.protocol not in HTTP
    if is_glob and name.lower().endswith(SHARD_SUFFIX):
        below = _shards_below(folder)
        # a shard with exactly this name takes precedence, as on a disk
        names = [name] if name in below else Glob(Path(), name).matching(below)
        if not names:
            raise DataError(
                f"no shard below {shown(folder)} matches {shown(name)}. * stays inside a folder, capitals matter."
            )
        return folder, names
    if address.suffix.lower() == SHARD_SUFFIX:
        names = expand_braces(name)
        share_secrets(str(address), [str(folder / one) for one in names])
        return folder, names
    if name and address.suffix:
        raise DataError(
            f"{shown(address)} is not a shard: at an address, images are read from {SHARD_SUFFIX} shards only "
            "(train-{000..146}.tar, or their folder). Copy other collections to a disk."
        )
    has_slash, folder = not name, address if name else folder
    names = _shards_below(folder)
    if has_slash and names == [folder.name]:  # a listing of a file is the file
        raise _slash_after(address)
    if not names:
        raise DataError(f"{shown(folder)} holds no {SHARD_SUFFIX} shards. Give their folder.")
    return folder, names


def _slash_after(address: Address) -> ConfigError:
    return ConfigError(f"{shown(address)} ends with a slash, and a shard does not. Leave it out.")


def _no_list(folder: Address) -> ConfigError:
    return ConfigError(
        f"{shown(folder)}: a web server has no list of its files. Name the shards, as in "
        f"{shown(folder / 'train-{000..146}.tar')}."
    )


def _shards_below(folder: Address) -> list[str]:
    if folder.protocol in HTTP:
        raise _no_list(folder)
    names = names_below(str(folder))
    return [name for name in names if name.lower().endswith(SHARD_SUFFIX) and name[0] != "."]
