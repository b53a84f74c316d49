"""Upload to the Hugging Face hub: the files that were checked, one by one, and nothing else."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from specdef.checkpoint.reader import WEIGHT_SUFFIXES
from specdef.core.text import shown
from specdef.errors import SpecdefError
from specdef.locks.manifest import MANIFEST

_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def check_name(repo: str) -> None:
    """Raise SpecdefError unless `repo` looks like ``org/name``."""
    if not _NAME.fullmatch(repo):
        raise SpecdefError(f"`repo` must be a name such as org/name; got {shown(repr(repo))}.")


def upload(folder: Path, files: Sequence[str], repo: str, *, private: bool = False) -> str:
    """Create a repository where there is none, and put the files there in one commit.

    Args:
        folder: the locked folder, checked.
        files: paths in it, with forward slashes.
        repo: ``org/name``.
        private: of a repository that is created.

    Returns:
        Where the commit can be seen.

    Raises:
        SpecdefError: a bad name, the hub cannot be reached or refuses, or the repository holds weights that would stay
            there unlocked.
    """
    check_name(repo)
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        api = HfApi()
        try:
            present = list(api.list_repo_files(repo))
        except RepositoryNotFoundError:
            present = []
        _refuse_unlocked(present, files, repo)
        api.create_repo(repo, private=private, exist_ok=True)
        operations = [CommitOperationAdd(name, str(folder / name)) for name in files]
        done: Any = api.create_commit(repo, operations, commit_message="Model locked with specdef")
    except SpecdefError:
        raise
    except Exception as error:  # whatever a network, a login or a server says
        reason = (str(error).splitlines() or [""])[0] or type(error).__name__
        raise SpecdefError(
            f"`repo` {repo} could not be published to the hub ({shown(reason)}). "
            "Check the name, the network, and `hf auth login`."
        ) from error
    return str(done.commit_url)


def _refuse_unlocked(present: Sequence[str], files: Sequence[str], repo: str) -> None:
    """A repository keeps its other files and its history: unlocked weights in either are still published."""
    weights = [name for name in present if {suffix.lower() for suffix in Path(name).suffixes} & WEIGHT_SUFFIXES]
    weights = [name for name in weights if not name.endswith(".json")]
    other = [name for name in weights if name not in files]
    if other:
        raise SpecdefError(
            f"`repo` must hold no other weights; {repo} holds {shown(other[0])}, which would stay there unlocked. "
            "Give a new name."
        )
    if weights and MANIFEST not in present:
        raise SpecdefError(
            f"`repo` must be new or hold a locked model; {repo} holds {shown(weights[0])} without {MANIFEST}, and its "
            "history would keep it unlocked. Give a new name."
        )
