"""The recipe of a mixture: which datasets, how often, and as which robot. Written as YAML, kept in the checkpoint."""

import dataclasses
import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lerobot_wam.embodiments.schema import load_yaml, parse


@dataclass(frozen=True)
class MixtureEntry:
    """One dataset of a mixture.

    Attributes:
        repo_id: The dataset, as in `--dataset.repo_id`.
        root: Its folder, as in `--dataset.root`; None looks in LeRobot's cache, then on the Hub.
        revision: Of the Hub's dataset.
        name: Unique in the recipe; losses are logged under it. Empty: the last part of `repo_id`.
        weight: Its share of the samples, relative to the other entries'.
        embodiment: A name (of the checkpoint or built in), the path of a YAML file, or "auto".
        cameras: The embodiment's camera -> the dataset's, where the names differ.
        episodes: Which ones: numbers and Python's slices, such as "0:100" or "3,7,-10:"; None takes all.
        text: What becomes of the task, `{task}` standing for it.
        actions: False uses the video alone; states and actions are not read.
        latents: Folder of its cached latents; None looks in `latents/NAME` of the dataset, "none" uses none.
        in_memory: Decode every frame once, at the start, and keep it: for small datasets of stored images.
    """

    repo_id: str
    root: str | None = None
    revision: str | None = None
    name: str = ""
    weight: float = 1.0
    embodiment: str = "auto"
    cameras: dict[str, str] = field(default_factory=dict)
    episodes: str | None = None
    text: str = "{task}"
    actions: bool = True
    latents: str | None = None
    in_memory: bool = False

    def __post_init__(self) -> None:
        if not self.name:
            object.__setattr__(self, "name", self.repo_id.rsplit("/")[-1])
        if not 0 <= self.weight < float("inf"):
            raise ValueError(f"{self.name}: weight is {self.weight}, expected 0 or more")
        self._parsed_episodes()

    def chosen_episodes(self, total: int) -> list[int]:
        """Return the numbers of the chosen ones of a dataset's `total` episodes, in order.

        Raises:
            ValueError: An episode that the dataset does not have, or none is left.
        """
        chosen: set[int] = set()
        try:
            for part in self._parsed_episodes():
                chosen |= {*range(total)[part]} if isinstance(part, slice) else {range(total)[part]}
        except IndexError:
            chosen.clear()
        if not chosen:
            raise ValueError(f"{self.name}: episodes is {self.episodes!r}, the dataset has 0 to {total - 1}")
        return sorted(chosen)

    def _parsed_episodes(self) -> list[int | slice]:
        parsed: list[int | slice] = []
        for part in (self.episodes or ":").split(","):
            try:
                bounds = [int(bound) if bound.strip() else None for bound in part.split(":")]
                parsed.append(slice(*bounds) if ":" in part else int(part))
            except (ValueError, TypeError) as error:
                raise ValueError(
                    f"{self.name}: episodes is {self.episodes!r}, expected numbers and slices, such as "
                    '"0:100" or "3,7,-10:"'
                ) from error
        return parsed


@dataclass(frozen=True)
class MixtureRecipe:
    """What a policy is trained on.

    Attributes:
        datasets: The entries; their names differ and their weights do not sum to zero.
    """

    datasets: tuple[MixtureEntry, ...]

    def __post_init__(self) -> None:
        if not self.datasets:
            raise ValueError("datasets is empty: name at least one, as {repo_id: USER/DATASET}")
        if not sum(entry.weight for entry in self.datasets):
            raise ValueError("the weights sum to zero: nothing would be trained on; give one entry a weight above 0")
        for name, count in Counter(entry.name for entry in self.datasets).items():
            if count > 1:
                raise ValueError(f"{count} entries are named {name!r}: tell them apart with name: ...")

    def to_dict(self) -> dict[str, Any]:
        """Return the recipe as JSON values; `from_dict` gives it back equal."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    @classmethod
    def from_dict(cls, data: Any, where: str = "mixture") -> "MixtureRecipe":
        """Read a recipe from plain values, strictly; `where` names the source in errors (SchemaError)."""
        return parse(cls, data, where)


def load_recipe(path: str | Path) -> MixtureRecipe:
    """Read a mixture's YAML file. Embodiment files are found from its folder; datasets' roots, from where you are.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: Its content is wrong.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"mixture file {path} does not exist: expected the path of a YAML file with `datasets`")
    data = load_yaml(path.read_text(encoding="utf-8"), str(path))
    for entry in data.get("datasets") or () if isinstance(data, dict) else ():
        if isinstance(entry, dict) and isinstance(entry.get("episodes"), list):
            entry["episodes"] = ",".join(map(str, entry["episodes"]))
    recipe = MixtureRecipe.from_dict(data, str(path))
    return MixtureRecipe(tuple(_with_path(entry, path.parent) for entry in recipe.datasets))


def difference(old: MixtureRecipe, new: MixtureRecipe) -> str | None:
    """Name the first difference in what two recipes train on; None where there is none.

    Where a dataset and its latents lie, and whether it is kept in memory, are no differences.
    """
    names = [[entry.name for entry in recipe.datasets] for recipe in (old, new)]
    if names[0] != names[1]:
        return f"its datasets are {', '.join(names[1])}, not {', '.join(names[0])}"
    for before, after in zip(old.datasets, new.datasets, strict=True):
        for entry in dataclasses.fields(MixtureEntry):
            was, now = getattr(before, entry.name), getattr(after, entry.name)
            if was != now and entry.name not in ("root", "latents", "in_memory"):
                return f"{entry.name} of {before.name} is {now!r}, not {was!r}"
    return None


def _with_path(entry: MixtureEntry, folder: Path) -> MixtureEntry:
    if not entry.embodiment.endswith((".yaml", ".yml")):
        return entry
    return dataclasses.replace(entry, embodiment=str(folder / entry.embodiment))
