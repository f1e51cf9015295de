"""What one message may hold. Imports nothing: the command line reads it, also where serving is not installed."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """What one message may hold.

    Attributes:
        message_bytes: Its length.
        text_bytes: Length of a string.
        containers: Maps and lists in it, nested ones included.
        entries: Entries of one map or list.
        rank: Axes of an array.
    """

    message_bytes: int = 32 * 2**20
    text_bytes: int = 4096
    containers: int = 4096
    entries: int = 1024
    rank: int = 4


LIMITS = Limits()
"""Where nobody says otherwise."""
