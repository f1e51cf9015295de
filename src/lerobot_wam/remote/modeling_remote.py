"""`WAMRemotePolicy`: LeRobot's policy contract on top of a connection. No weights and no model code."""

import logging
import weakref
from pathlib import Path
from typing import Any

import torch
from lerobot.configs import PreTrainedConfig
from lerobot.policies.pretrained import PreTrainedPolicy
from lerobot.policies.rtc.modeling_rtc import RTCProcessor
from lerobot.utils.constants import OBS_STATE
from torch import Tensor

import lerobot_wam.processor_wam  # noqa: F401  (LeRobot finds the steps of a saved pipeline by their registered names)
from lerobot_wam.commitment import Commitment
from lerobot_wam.embodiments.spec import EmbodimentSpec
from lerobot_wam.guard.note import NOTE, Answer
from lerobot_wam.remote.configuration_remote import WAMRemoteConfig, read_token
from lerobot_wam.serving.client import Array, WAMClient

logger = logging.getLogger(__name__)


class WAMRemotePolicy(PreTrainedPolicy):
    """One robot at a `lerobot-wam serve`: its actions are those of the policy that is served there.

    Args:
        config: Where the server is.
        kwargs: Whatever else LeRobot's factory passes; not used.

    Raises:
        ConnectionError: Nobody answers.
        PermissionError: The token is not the server's.
        ValueError: The server plans for another robot by now.
    """

    config_class = WAMRemoteConfig
    name = "wam_remote"

    def __init__(self, config: WAMRemoteConfig, **kwargs: Any) -> None:
        super().__init__(config)
        self.config: WAMRemoteConfig = config
        self.spec = EmbodimentSpec.from_dict(config.embodiment)
        self.client = WAMClient(
            config.server,
            token=read_token(config.token_file),
            robot=self.spec.name,
            jpeg=config.jpeg,
            timeout_s=config.timeout_s,
            max_outage_s=config.max_outage_s,
            ca_file=config.ca_file,
        )
        weakref.finalize(self, self.client.close)
        if self.client.welcome["embodiment"] != config.embodiment:
            raise ValueError(
                f"the server at {config.server} plans for another {self.spec.name!r} than this configuration was "
                "written for: start lerobot-wam drive again"
            )
        found = [*self.client.welcome["approximations"], *([f"jpeg={config.jpeg} pictures"] if config.jpeg else [])]
        if found:
            logger.warning(f"approximations: {'; '.join(found)}")
        self.episode = 0
        self.init_rtc_processor()

    @classmethod
    def from_pretrained(
        cls, pretrained_name_or_path: str | Path, *, config: PreTrainedConfig | None = None, **kwargs: Any
    ) -> "WAMRemotePolicy":
        """Connect as the folder's config.json says; there are no weights."""
        config = PreTrainedConfig.from_pretrained(pretrained_name_or_path) if config is None else config
        assert isinstance(config, WAMRemoteConfig)
        return cls(config).eval()

    def reset(self) -> None:
        """Begin a new episode."""
        self.episode += 1
        self.client.reset()

    def select_action(self, batch: dict[str, Any], **kwargs: Any) -> Tensor:
        """Show this control step and return its action, absolute and physical [1, A].

        While the server is away the robot is held still.

        Raises:
            ConnectionError: It was away for `max_outage_s`.
            ValueError: It refuses what the robot shows.
        """
        note = batch.get(NOTE)
        if note is not None and note.replan:
            self.client.replan()
        action = self.client.act(*self._shown(batch))
        self._answer(batch)
        return torch.tensor(action)[None]

    def supports_rtc(self) -> bool:
        """LeRobot's real-time chunking, as near."""
        return True

    def init_rtc_processor(self) -> None:
        """Follow `config.rtc_config`, which `lerobot-rollout --inference.type=rtc` sets before it calls this."""
        rtc = self.config.rtc_config
        self.rtc_processor = None if rtc is None or not rtc.enabled else RTCProcessor(rtc)

    def predict_action_chunk(
        self, batch: dict[str, Any], inference_delay: int = 0, prev_chunk_left_over: Tensor | None = None, **kwargs: Any
    ) -> Tensor:
        """Return a chunk of absolute physical actions [1, T, A] from a window of its own; see `WAMPolicy`.

        Raises:
            ConnectionError: There is none; after an outage, once the server is back.
            ValueError: The server refuses what the robot shows.
        """
        commitment = None
        if prev_chunk_left_over is not None and self.rtc_processor is not None:
            rest = prev_chunk_left_over.reshape(-1, len(self.spec.action))
            steps = self.client.welcome["chunk_steps"]
            commitment = Commitment.of_lerobot(rest, inference_delay, steps, self.rtc_processor)
        asked = None
        if commitment is not None:
            asked = {
                "actions": commitment.actions.numpy(),
                "delay": inference_delay,
                "weights": commitment.weights.numpy(),
                "strength": commitment.strength,
            }
        chunk = self.client.plan(*self._shown(batch), asked)
        self._answer(batch)
        return torch.tensor(chunk.actions)[None]

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Any] | None]:
        """Refuse to train."""
        raise ValueError("policy type wam_remote has no weights: train the checkpoint that the server holds")

    def get_optim_params(self) -> dict[str, Any]:
        """Nothing is trained."""
        return {}

    def _shown(self, batch: dict[str, Any]) -> tuple[dict[str, Array], Array, str]:
        """Return what goes over the wire: the cameras' views as the robot's driver gave them, state and task.

        Raises:
            ValueError: A batch of several robots.
        """
        state, task = batch.get(OBS_STATE, torch.zeros(1, 0)), batch.get("task", "")
        if len(state) != 1:
            raise ValueError(f"found a batch of {len(state)} robots, expected 1: a connection is one robot's")
        images = {
            camera.key: (batch[camera.key][0] * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous().cpu().numpy()
            for camera in self.spec.cameras
            if camera.key in batch  # the server names those that are missing
        }
        return images, state[0].float().cpu().numpy(), task if isinstance(task, str) else task[0]

    def _answer(self, batch: dict[str, Any]) -> None:
        """Tell the guard what the actions are."""
        if NOTE in batch:
            due, overlaps = [self.client.due], self.rtc_processor is not None
            batch[NOTE].answer = Answer(self.spec, self.config.guard_settings, self.episode, due, overlaps)
