"""The text around a task: an embodiment's own wording, or the one that a checkpoint was trained with, from a file."""

import ast
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lerobot_wam.embodiments.schema import SchemaError, load_yaml

PLACEHOLDER = "{task}"
_NEGATIVE = "negative_prompt"


@dataclass(frozen=True)
class Prompts:
    """What a prompt file holds.

    Attributes:
        templates: embodiment name to its wording, with ``{task}`` once or more.
        negative_prompt: text of the negative branch of guidance, None where the file has none.
    """

    templates: Mapping[str, str]
    negative_prompt: str | None = None

    def template(self, embodiment: str) -> str:
        """The wording for an embodiment.

        Raises:
            ValueError: the file has none for it; there is no wording to guess.
        """
        if embodiment not in self.templates:
            raise ValueError(
                f"no prompt for the embodiment {embodiment!r}, found {', '.join(self.templates) or 'none'}: add a line "
                f"'{embodiment}: text with {PLACEHOLDER}' to the prompt file"
            )
        return self.templates[embodiment]


def load_prompts(path: str | Path) -> Prompts:
    """Read a YAML file of lines ``embodiment: text with {task}`` and, if wanted, ``negative_prompt: text``.

    Raises:
        FileNotFoundError: no such file.
        SchemaError: a value is no text, or an embodiment's text has no ``{task}``.
    """
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"prompt file {file} does not exist: expected the path of a YAML file")
    content = load_yaml(file.read_text(encoding="utf-8"), str(file))
    if not isinstance(content, dict):
        raise SchemaError(f"{file} is {content!r}, expected lines 'embodiment: text with {PLACEHOLDER}'")
    for name, text in content.items():
        if not isinstance(text, str) or (name != _NEGATIVE and PLACEHOLDER not in text):
            raise SchemaError(f"{file}: {name} is {text!r}, expected a text with {PLACEHOLDER} in it")
    negative = content.pop(_NEGATIVE, None)
    return Prompts(content, negative)


def render_prompt(template: str, task: str) -> str:
    """Put a task into every ``{task}`` of a template, by DreamZero's rules (spec §2.6).

    The task is lower-cased; one that is written as a Python list stands for the list's first element.
    """
    return template.replace(PLACEHOLDER, _first_of_list(task).lower())


def _first_of_list(task: str) -> str:
    try:
        value = ast.literal_eval(task)
    except (ValueError, SyntaxError):
        return task
    return str(value[0]) if isinstance(value, list) and value else task
