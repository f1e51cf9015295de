"""A checkpoint's weights on disk: read strictly, tensor by tensor; written so that a crash spoils nothing.

A checkpoint is a folder with `config.json` and either `model.safetensors` or shards with their index, as the Hugging
Face libraries lay them out.
"""

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from huggingface_hub.constants import SAFETENSORS_INDEX_FILE as INDEX
from huggingface_hub.constants import SAFETENSORS_SINGLE_FILE as SINGLE
from safetensors import SafetensorError, safe_open
from torch import Tensor

CONFIG = "config.json"
MANIFEST = "manifest.json"  # an importer's sha256 of each file; a later save makes it untrue
PER_ROBOT = ("state_encoder.", "action_encoder.", "action_decoder.", "bc_head.", "visual_summary.posture.")
_WRITING, _WRITTEN = ".saving", ".saved"
_SHOWN = 5


def is_per_robot(name: str) -> bool:
    """Whether a tensor has rows of its own for every robot."""
    return any(part in name for part in PER_ROBOT)


def weight_files(folder: Path) -> list[Path]:
    """The files that hold a checkpoint's weights.

    Raises:
        FileNotFoundError: There are none, or shards that the index names are missing.
        ValueError: The index is damaged.
    """
    single, index = folder / SINGLE, folder / INDEX
    if single.is_file():
        return [single]
    if not index.is_file():
        raise FileNotFoundError(f"no weights in {folder}: expected {SINGLE} or {INDEX}; copy or download it again")
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (json.JSONDecodeError, KeyError) as error:
        raise ValueError(f"{index} is damaged ({error!r}): copy or download it again") from error
    if missing := [name for name in names if not (folder / name).is_file()]:
        raise FileNotFoundError(
            f"{folder} lacks {len(missing)} of {len(names)} weight files: {_some(missing)}; copy or download them again"
        )
    return [folder / name for name in names]


def open_weights(path: Path, headers_only: bool = False) -> Any:
    """Open one safetensors file; its header is held against the file's size, no tensor is read.

    Args:
        path: The file.
        headers_only: Names, shapes and types are enough. Then a file may be larger than the memory: for torch it is
            mapped as writable, which the system may refuse.

    Raises:
        ValueError: The file is damaged or cut short.
    """
    try:
        return safe_open(path, framework="numpy" if headers_only else "pt")
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged ({error}): copy or download it again") from error


def open_checkpoint(folder: Path, headers_only: bool = False) -> dict[str, Any]:
    """Open a checkpoint's files, see `open_weights`; returns for every tensor its name and the file that it is in.

    Raises:
        FileNotFoundError: Files are missing.
        ValueError: A file is damaged or cut short.
    """
    settle(folder)
    tensors: dict[str, Any] = {}
    for path in weight_files(folder):
        file = open_weights(path, headers_only)
        tensors |= dict.fromkeys(file.keys(), file)
    return tensors


def read_weights(folder: Path, expected: Mapping[str, Tensor], device: str) -> dict[str, Tensor]:
    """Read a checkpoint that must hold exactly the tensors of `expected`, returned in their shapes and dtypes.

    One tensor at a time is in memory besides the result. See `match` for what fits.

    Raises:
        FileNotFoundError: Files are missing.
        ValueError: A file is damaged, or tensors are missing, unexpected or of another shape.
    """
    files = open_checkpoint(folder)
    shapes = {name: file.get_slice(name).get_shape() for name, file in files.items()}
    stored_as, problems = match(shapes, expected)
    if problems:
        raise ValueError(f"{folder} does not fit the configuration in {len(problems)} tensors: {_some(problems)}")
    state = {}
    for name, like in expected.items():
        view_of_file = files[stored_as[name]].get_tensor(stored_as[name])
        # A copy of its own: the file's odd addresses would change how some kernels round.
        state[name] = view_of_file.to(device, like.dtype, copy=True).expand(like.shape).contiguous()
    return state


def match(stored: Mapping[str, list[int]], expected: Mapping[str, Tensor]) -> tuple[dict[str, str], list[str]]:
    """Find the stored tensor for each of a policy's, and what does not fit.

    A checkpoint with a weight average (`ema_model.*`) fits a policy that keeps none: the average, which acts, becomes
    the model. One without fits a policy that keeps one: the average starts from the model. Per-robot weights of a
    single category, as official checkpoints have them, fill all categories.

    Args:
        stored: Shapes of the checkpoint's tensors.
        expected: The policy's tensors; they may be on the meta device.

    Returns:
        The stored name by the policy's name; and one text for each tensor that is missing, unexpected or misshapen.
    """
    averaged, keeps_average = (any(name.startswith("ema_model.") for name in names) for names in (stored, expected))
    stored_as = {name: name for name in stored}
    if averaged and not keeps_average:
        stored_as = {name.removeprefix("ema_"): name for name in stored if not name.startswith("model.")}
    elif keeps_average and not averaged:
        stored_as |= {f"ema_{name}": name for name in stored if name.startswith("model.")}
    problems = [f"missing {name}" for name in expected.keys() - stored_as.keys()]
    problems += [f"unexpected {name}" for name in stored_as.keys() - expected.keys()]
    for name in expected.keys() & stored_as.keys():
        found, wanted = stored[stored_as[name]], list(expected[name].shape)
        shared = is_per_robot(name) and found == [1, *wanted[1:]]
        if found != wanted and not shared:
            problems.append(f"{name} is {found}, expected {wanted}")
    return stored_as, sorted(problems)


def _some(words: list[str]) -> str:
    return "; ".join(words[:_SHOWN]) + (" ..." if len(words) > _SHOWN else "")


@contextmanager
def replaced(folder: Path) -> Iterator[Path]:
    """Give a fresh folder to write a checkpoint into; when the block ends, it becomes the checkpoint at `folder`.

    A process that is killed, at whatever point, leaves a usable checkpoint: the old one until the new `config.json` is
    moved into place, which is a single step, and the new one from then on. Files of other names stay as they are.
    """
    settle(folder)
    writing, written = folder / _WRITING, folder / _WRITTEN
    for remains in (writing, written):
        shutil.rmtree(remains, ignore_errors=True)
    writing.mkdir(parents=True)
    try:
        yield writing
    except BaseException:  # a full disk among others: the remains would keep it full
        shutil.rmtree(writing, ignore_errors=True)
        raise
    writing.rename(written)
    (written / CONFIG).replace(folder / CONFIG)
    settle(folder)


def settle(folder: Path) -> None:
    """Finish a replacement that was interrupted after its decisive step; else do nothing."""
    written = folder / _WRITTEN
    if not written.is_dir() or (written / CONFIG).exists():
        return
    files = [path for path in written.rglob("*") if path.is_file()]
    for path in sorted(files, key=lambda path: path.name == INDEX):  # the index after its shards
        target = folder / path.relative_to(written)
        if path.name == INDEX:
            (folder / SINGLE).unlink(missing_ok=True)
        target.parent.mkdir(exist_ok=True)
        path.replace(target)
    current = weight_files(folder)
    stale = set(folder.glob("model-*-of-*.safetensors")) - set(current)
    stale |= {folder / MANIFEST} | ({folder / INDEX} if current == [folder / SINGLE] else set())
    for path in stale:
        path.unlink(missing_ok=True)
    shutil.rmtree(written)
