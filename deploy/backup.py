"""A data folder as one file: a compressed tar whose last member is a manifest with every file's SHA-256."""

import hashlib
import io
import json
import shutil
import tarfile
import zlib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from pydantic import BaseModel

from deploy.running import owned
from schemas.settings import Settings

_MANIFEST = "manifest.json"
_LEFT_OUT = frozenset({"lock", "running.json", "reindex.lock", "logs", "faust"})  # hold nothing that matters


class Manifest(BaseModel):
    """What a backup holds: SHA-256 by path below the data folder."""

    format: int = 1
    created_at: datetime
    files: dict[str, str]


def back_up(settings: Settings, file: Path) -> Manifest:
    """Write the data folder of a stopped system to ``file``, which is there whole or not at all.

    Raises:
        NotRunningError: A system runs on the folder: its stores and its log change while they are read.
        ValueError: A part is not in the folder, ``file`` exists, or there is nothing to back up.
    """
    folder = settings.data_dir.resolve()
    if settings.kafka.bootstrap_servers or settings.vectors.url or settings.graph.url:
        raise ValueError("broker and stores have to be in the data folder; back up servers by their own means")
    if not (folder / "broker").is_dir():
        raise ValueError(f"{folder} holds no system")
    if file.exists():
        raise ValueError(f"{file} exists; a backup does not overwrite one")
    draft = file.with_name(f"{file.name}.draft")
    with owned(folder):
        try:
            manifest = _write(folder, draft)
            draft.replace(file)
        finally:
            draft.unlink(missing_ok=True)
    return manifest


def restore(settings: Settings, file: Path) -> Manifest:
    """Put a backup where the settings' data folder is to be.

    Raises:
        ValueError: That folder is not empty, or ``file`` is no backup or damaged. The folder is left as it was.
    """
    folder = settings.data_dir.resolve()
    if folder.exists() and any(folder.iterdir()):
        raise ValueError(f"{folder} is not empty; restore into a folder that is empty or does not exist yet")
    draft = folder.with_name(f"{folder.name}.restoring")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    try:
        with tarfile.open(file) as archive:
            archive.extractall(draft, filter="data")
        manifest = _checked(draft)
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise ValueError(f"{file} cannot be restored: {error}") from error
    else:
        (draft / _MANIFEST).unlink()
        draft.replace(folder)
        return manifest
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _write(folder: Path, draft: Path) -> Manifest:
    hashes = {}
    with tarfile.open(draft, "w:gz", compresslevel=1) as archive:
        for path in _paths(folder):
            name = path.relative_to(folder).as_posix()
            if path.is_dir():
                archive.addfile(archive.gettarinfo(path, name))
                continue
            with path.open("rb") as opened:
                reader = _Hashing(opened)
                archive.addfile(archive.gettarinfo(path, name), reader)
            hashes[name] = reader.digest.hexdigest()
        manifest = Manifest(created_at=datetime.now(UTC), files=hashes)
        content = manifest.model_dump_json(indent=1).encode()
        entry = tarfile.TarInfo(_MANIFEST)
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))
    return manifest


def _paths(folder: Path) -> Iterator[Path]:
    for top in sorted(folder.iterdir()):
        if top.name not in _LEFT_OUT and not top.name.endswith(".draft"):
            yield from (top, *sorted(path for path in top.rglob("*") if path.is_file() or path.is_dir()))


class _Hashing(io.RawIOBase):
    """Reads through to a file and keeps the digest of what was read."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.digest = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        """As a file's."""
        piece = self._file.read(size)
        self.digest.update(piece)
        return piece


def _checked(folder: Path) -> Manifest:
    """The manifest of what was unpacked.

    Raises:
        ValueError: A file is missing, is not in the manifest, or is not what it was.
    """
    if not (folder / _MANIFEST).is_file():
        raise ValueError("it has no manifest: it is cut off, or not a backup")
    manifest = Manifest.model_validate(json.loads((folder / _MANIFEST).read_text()))
    found = {path.relative_to(folder).as_posix(): _sha256(path) for path in folder.rglob("*") if path.is_file()}
    del found[_MANIFEST]
    if wrong := sorted(
        name for name in found.keys() | manifest.files.keys() if found.get(name) != manifest.files.get(name)
    ):
        raise ValueError(f"{len(wrong)} files are not what they were when they were backed up; the first is {wrong[0]}")
    return manifest


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
