"""Shell texts as a reader types them, without a shell."""

import re
import shlex
import string
from collections.abc import Iterator, Mapping

ASSIGNMENT = re.compile(r"(\w+)=(?:\$\{\w+:-(?P<default>[^}]*)\}|(?P<value>\S+))")
NOTHING: Mapping[str, str] = {}


def commands(text: str, given: Mapping[str, str] = NOTHING) -> Iterator[list[str]]:
    """The words of every command; variables hold what is given, or what the text sets them to above it."""
    variables = dict(given)
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(string.Template(line).safe_substitute(variables), comments=True)
        assignment = ASSIGNMENT.fullmatch(line)
        if assignment:
            variables |= {assignment[1]: assignment["default"] or assignment["value"], **given}
        elif words:
            yield words[: words.index("&")] if "&" in words else words
