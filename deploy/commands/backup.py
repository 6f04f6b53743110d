"""`aegis backup`, `restore`, `rebuild`: the data folder as one file, and a lost store filled again."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from deploy.commands.output import load_settings, out, reported


def backup(file: Annotated[Path, typer.Argument(help="The file to write, a compressed tar.")]) -> None:
    """Write broker log, stores and blobs to a file; the system has to be stopped."""
    from deploy.backup import back_up

    settings = load_settings()
    with reported():
        manifest = back_up(settings, file)
    out.print(f"{file}: {len(manifest.files):,} files, {file.stat().st_size / 1e6:.1f} MB.", markup=False)
    if settings.blob_url:
        out.print(f"The blobs in {settings.blob_url} are not in it.", markup=False)


def restore(file: Annotated[Path, typer.Argument(help="What `aegis backup` wrote.", exists=True)]) -> None:
    """Check a backup and put it where AEGIS_DATA_DIR says; that folder has to be empty."""
    from deploy.backup import restore as run

    settings = load_settings()
    with reported():
        manifest = run(settings, file)
    made = f"{manifest.created_at:%Y-%m-%d %H:%M:%S} UTC"
    out.print(f"{settings.data_dir.resolve()}: {len(manifest.files):,} files of {made}.", markup=False)


def rebuild(store: Annotated[Literal["vectors", "graph"], typer.Argument(help="The store that is lost.")]) -> None:
    """Delete an embedded store, for the next `aegis up` to fill it from its topic; the system has to be stopped."""
    from deploy.rebuilding import rebuild as run

    with reported():
        run(load_settings(), store, say=lambda line: out.print(line, markup=False))
    out.print("Start the system with `aegis up`; `aegis lag --watch` shows how far it is.")
