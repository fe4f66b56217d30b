"""Released checkpoints by hub name: downloaded once, resumed when the line drops, read from the cache afterwards."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from gar_edge.models.checkpoint import Checkpoint, open_checkpoint
from gar_edge.runtime.errors import GarHubError

_WANTED = ["*.json", "*.safetensors", "*.jinja"]  # never remote code


def hub_checkpoint(repository: str, revision: str | None = None) -> Checkpoint:
    """Fetch (or find in the cache) and open a checkpoint, e.g. "HaochenWang/GAR-1B".

    Uses huggingface_hub's cache, progress bars, resume and `HF_*` environment; works offline once cached.
    Raises `GarHubError` with the remedy where that fails.
    """
    folder = Path(download(repository, revision))
    # A cache snapshot's folder is named by its commit.
    return open_checkpoint(folder, name=repository, revision=folder.name)


def download(repository: str, revision: str | None = None) -> str:
    """The local snapshot folder of a repository's config, tokenizer and safetensors."""
    what = repository if revision is None else f"{repository} at revision {revision}"
    try:
        return snapshot_download(repository, revision=revision, allow_patterns=_WANTED)
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
    except Exception as error:  # the hub's errors and those of its HTTP libraries, old and new, share no other base
        raise GarHubError(
            f"{what}: download failed ({_first_line(error)}); run again, files already fetched are kept"
        ) from None


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
