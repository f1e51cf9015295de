"""`WAMRemoteConfig`: where the model is, and what to do where it cannot be reached."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from lerobot.configs import NormalizationMode, PreTrainedConfig
from lerobot.optim import LRSchedulerConfig, OptimizerConfig

from lerobot_wam.command_line import SettingError, check_rollout_rate
from lerobot_wam.guard.settings import GuardSettings


@PreTrainedConfig.register_subclass("wam_remote")
@dataclass
class WAMRemoteConfig(PreTrainedConfig):
    """Configuration of `WAMRemotePolicy`, which `lerobot-wam drive` writes.

    Args:
        server: ws://HOST:PORT or wss://HOST:PORT of a `lerobot-wam serve`.
        token_file: File with the token that the server was started with; the token itself is never saved.
        ca_file: Certificate authority of the server's certificate, for wss; None takes the system's.
        embodiment: The robot that the server plans for, as it describes it.
        jpeg: Quality (1 to 95) to send pictures with, an approximation; None sends them as they are.
        timeout_s: Seconds to wait for a chunk before the connection counts as lost.
        max_outage_s: Seconds to hold the robot still without actions before the run ends.
        guard: See `WAMConfig`, and the next two.
        guard_max_age_s: Seconds that an action may be late.
        guard_patience: Faults in a row after which the guard ends the run.
    """

    server: str = ""
    token_file: str | None = None
    ca_file: str | None = None
    embodiment: dict[str, Any] = field(default_factory=dict)
    jpeg: int | None = None
    timeout_s: float = 10.0
    max_outage_s: float = 30.0
    guard: str = "hold"
    guard_max_age_s: float | None = 3.0
    guard_patience: int = 10

    # As in `WAMConfig`: set by `lerobot-rollout` after loading.
    rtc_config: ClassVar[Any] = None
    normalization_mapping: ClassVar[dict[str, NormalizationMode]] = {}

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.server or not self.embodiment:
            raise SettingError(
                "policy type wam_remote belongs to a server: use lerobot-wam drive --server=ws://HOST:PORT"
            )
        try:
            _ = self.guard_settings
        except ValueError as error:
            raise SettingError(str(error)) from error
        check_rollout_rate(self.embodiment["name"], self.embodiment["fps"])

    @property
    def guard_settings(self) -> GuardSettings:
        """What the guard does."""
        return GuardSettings(self.guard, self.guard_max_age_s, self.guard_patience)

    @property
    def observation_delta_indices(self) -> None:
        """One observation at a time."""
        return None

    @property
    def action_delta_indices(self) -> None:
        """Chunks come from the server."""
        return None

    @property
    def reward_delta_indices(self) -> None:
        """Rewards are not used."""
        return None

    def get_optimizer_preset(self) -> OptimizerConfig:
        """Refuse to train."""
        raise ValueError("policy type wam_remote has no weights: train the checkpoint that the server holds")

    def get_scheduler_preset(self) -> LRSchedulerConfig | None:
        """Nothing is trained."""
        return None

    def validate_features(self) -> None:
        """The server checks every observation."""


def read_token(file: str | None) -> str | None:
    """Return the token in a file; None where there is none.

    Raises:
        OSError: No such file.
    """
    return None if file is None else Path(file).read_text(encoding="utf-8").strip()
