"""What `lerobot-wam serve` can be told. Imports nothing heavy: the command line reads it for its defaults."""

import os
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from lerobot_wam.serving.limits import Limits

_GROUP_OR_OTHERS = 0o077


@dataclass(frozen=True)
class ServeSettings:
    """How a server listens, whom it lets in and what it spends on them.

    Attributes:
        host: Address to listen at; loopback unless a token guards the door.
        port: TCP port; 0 takes a free one.
        token: What a client must present; None lets everybody in.
        insecure: Whether to listen beyond loopback without a token.
        tls_cert: Certificate chain (PEM) for wss://; None speaks plain ws://.
        tls_key: Its private key (PEM).
        max_message_mb: Largest message, in MiB.
        rate_limit: Messages a client may send per second, in the long run; twice as many at once.
        max_sessions: Robots, those whose session waits for their return included.
        max_connections: Connections of any kind.
        max_batch: Robots whose chunks are computed at once.
        memory_gb: Bound of the memory that windows take, in GB; those of the robots unseen longest are forgotten.
        session_timeout: Seconds that the session of a vanished client is kept.
        idle_timeout: Seconds of silence after which a connection is closed.
        handshake_timeout: Seconds until a connection must have said who it is.
        send_timeout: Seconds that a client may take to read an answer.
        dashboard: Whether the live page is served.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    token: str | None = None
    insecure: bool = False
    tls_cert: Path | None = None
    tls_key: Path | None = None
    max_message_mb: float = 32.0
    rate_limit: float = 200.0
    max_sessions: int = 16
    max_connections: int = 64
    max_batch: int = 8
    memory_gb: float = 8.0
    session_timeout: float = 120.0
    idle_timeout: float = 300.0
    handshake_timeout: float = 10.0
    send_timeout: float = 10.0
    dashboard: bool = False

    def __post_init__(self) -> None:
        for name in (
            "max_message_mb",
            "rate_limit",
            "max_sessions",
            "max_connections",
            "max_batch",
            "memory_gb",
            "session_timeout",
            "idle_timeout",
            "handshake_timeout",
            "send_timeout",
        ):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}, expected more than 0")
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("TLS needs both a certificate and its key: give tls_cert and tls_key")
        if self.token is None and not self.insecure and not self.is_loopback:
            raise ValueError(
                f"host {self.host} can be reached from other machines and no token is set: anybody could see the "
                "cameras and use the model; give --token-file=FILE (or --insecure on a network of your own)"
            )

    @property
    def is_loopback(self) -> bool:
        """Whether only programs on this machine can connect."""
        if self.host == "localhost":
            return True
        try:
            return ip_address(self.host).is_loopback
        except ValueError:  # the name of a machine
            return False

    @property
    def limits(self) -> Limits:
        """What a message may hold."""
        return Limits(message_bytes=int(self.max_message_mb * 2**20))


def read_token(path: Path) -> str:
    """Return the token in a file.

    Raises:
        OSError: No such file.
        ValueError: It is empty, too short to resist guessing, or readable by others.
    """
    token = path.read_text(encoding="utf-8").strip()
    if len(token) < 16 or not token.isascii() or not token.isprintable() or " " in token:
        raise ValueError(
            f"{path} holds {len(token)} characters, expected at least 16 printable ASCII ones without blanks: write "
            'one with python -c "import secrets; print(secrets.token_urlsafe())"'
        )
    if os.name == "posix" and path.stat().st_mode & _GROUP_OR_OTHERS:
        raise ValueError(f"{path} can be read by other users of this machine: chmod 600 {path}")
    return token
