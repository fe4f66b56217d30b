"""Released checkpoints by hub name: downloaded once, resumed when the line drops, read from the cache afterwards."""

from __future__ import annotations

import os
from pathlib import Path

from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.file_download import http_get
from huggingface_hub.utils import WeakFileLock, build_hf_headers  # type: ignore[attr-defined]

from gar_edge.models.checkpoint import CONFIG, INDEX, WEIGHTS, Checkpoint, open_checkpoint, shard_names
from gar_edge.runtime.errors import GarError, GarHubError
from gar_edge.runtime.files.digests import sha256

_SMALL = ["*.json", "*.jinja"]  # never remote code; weights one by one, see _fetch
_SHA256 = 64  # hexadecimal digits


def hub_checkpoint(repository: str, revision: str | None = None) -> Checkpoint:
    """Fetch (or find in the cache) and open a checkpoint, e.g. "HaochenWang/GAR-1B".

    Uses huggingface_hub's cache, progress bars and `HF_*` environment; works offline once cached.
    Raises `GarHubError` with the remedy where that fails.
    """
    folder = Path(download(repository, revision))
    # A cache snapshot's folder is named by its commit.
    return open_checkpoint(folder, name=repository, revision=folder.name)


def download(repository: str, revision: str | None = None) -> str:
    """The local snapshot folder of a repository's config, tokenizer and safetensors, in the hub library's own cache."""
    what = repository if revision is None else f"{repository} at revision {revision}"
    try:
        folder = Path(snapshot_download(repository, revision=revision, allow_patterns=_SMALL))
        for name in _weight_files(folder):
            if not (folder / name).exists():
                _fetch(repository, folder, name)
        return str(folder)
    except GatedRepoError:
        raise GarHubError(
            f"{what}: its licence must be accepted on the hub first; then log in (`hf auth login`) or set HF_TOKEN"
        ) from None
    except RevisionNotFoundError:
        raise GarHubError(f"{repository}: the hub has no revision {revision!r}") from None
    except RepositoryNotFoundError:
        raise GarHubError(f"{repository}: no such repository on the hub, or no access to it (set HF_TOKEN)") from None
    except LocalEntryNotFoundError as error:
        reason = _first_line(error.__cause__ or error)
        raise GarHubError(
            f"{what}: the hub cannot be reached ({reason}) and the cache does not hold it; check the network and run "
            "again (files already fetched are kept), or give a local folder with --checkpoint"
        ) from None
    except GarError:
        raise
    except Exception as error:  # the hub's errors and those of its HTTP libraries, old and new, share no other base
        raise GarHubError(
            f"{what}: download failed ({_first_line(error)}); run again, files already fetched are kept"
        ) from None


def _weight_files(folder: Path) -> list[str]:
    """The safetensors that a snapshot's index names, or the single file; none where there is no model at all."""
    if (folder / INDEX).exists():
        return shard_names(folder / INDEX)
    return [WEIGHTS] if (folder / CONFIG).exists() else []


def _fetch(repository: str, folder: Path, name: str) -> None:
    """Put one file into the cache, going on where an earlier run, however it ended, broke off.

    huggingface_hub (2.4) throws the beginning of a file away when a download fails or is killed; of gigabytes over a
    robot's network that is too much. So the bytes are collected beside its blobs under a name of our own, and given
    the blob's name once they are whole and their digest is right.
    """
    commit = folder.name
    url = hf_hub_url(repository, name, revision=commit)
    headers = build_hf_headers()
    metadata = get_hf_file_metadata(url, headers=headers)
    if metadata.etag is None:
        raise OSError(f"the hub names no version of {name}")
    blobs = folder.parents[1] / "blobs"
    part = blobs / f"{metadata.etag}.part"
    blobs.mkdir(parents=True, exist_ok=True)
    with WeakFileLock(part.with_suffix(".lock")):
        part.touch()
        with part.open("r+b") as file:
            begin = file.seek(0, os.SEEK_END)
            http_get(
                url, file, resume_size=begin, headers=headers, expected_size=metadata.size, displayed_filename=name
            )
        if len(metadata.etag) == _SHA256 and sha256(part) != metadata.etag:
            part.unlink()
            raise OSError(f"{name} arrived damaged")
        part.replace(blobs / metadata.etag)
    hf_hub_download(repository, name, revision=commit)  # finds the blob: only links it


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
