"""LeRobot's batches as the objective takes them: tiled, encoded, normalised, masked."""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lerobot_wam.configuration_wam import WAMConfig
from lerobot_wam.data.batch import (
    ACTION,
    ACTION_IS_PAD,
    ANCHOR,
    CATEGORY,
    CONDITION,
    LATENT,
    STATE,
    WINDOW,
    WINDOW_IS_PAD,
)
from lerobot_wam.data.views import draw_augmentations, tile_views
from lerobot_wam.data.windows import cut_batch, hold_last, latent_frame_mask
from lerobot_wam.diffusion.objective import TrainingWindow
from lerobot_wam.embodiments.action_space import ActionSpace
from lerobot_wam.embodiments.spec import FRAMES_PER_LATENT
from lerobot_wam.frozen import FrozenCodecs

logger = logging.getLogger(__name__)

AUGMENTATION = "augmentation"
"""Key of a training batch's list of random crops and colours, one a sample."""


@dataclass(frozen=True)
class _Windows:
    """Windows of a batch before codecs and normalisation, whatever loader they come from.

    Attributes:
        pixels: Tiled pictures [B, T, 3, H, W] in [-1, 1]; None where `latent` replaces them.
        latent: Clean latents [B, C, F, h, w], or None.
        condition: First-frame conditioning channels that came with the latents, or None.
        anchor: The picture that each chunk starts from, [B, N, 3, H, W] in [-1, 1].
        frame_real: Real frames [B, T].
        action_real: Real action steps [B, N * H].
        state: Physical states at the chunks' first steps [B, N, S]; None where there are none.
        action: Physical actions [B, N * H, A], likewise.
        category: Index of each sample's robot [B], on the CPU.
        tasks: Instruction of each sample.
        seconds: Time since the episode's start [B], or None.
    """

    pixels: Tensor | None
    latent: Tensor | None
    condition: Tensor | None
    anchor: Tensor
    frame_real: Tensor
    action_real: Tensor
    state: Tensor | None
    action: Tensor | None
    category: Tensor
    tasks: list[str]
    seconds: Tensor | None


class BatchReader:
    """Reads the batches of LeRobot's loader, which hold one robot, and those of a mixture, which hold several.

    Args:
        config: The policy's configuration.
        spaces: Per category, the robot's description and normalisation.
        category: The robot that LeRobot's batches are of, and that acts.
        codecs: Pixels and text to what the model takes.
        task_horizon: For every frame of LeRobot's training dataset the steps until its task changes [frames]; None
            where it never does.
    """

    def __init__(
        self,
        config: WAMConfig,
        spaces: Sequence[ActionSpace],
        category: int,
        codecs: FrozenCodecs,
        task_horizon: Tensor | None,
    ) -> None:
        self.config = config
        self.spaces = spaces
        self.category = category
        self.codecs = codecs
        self.task_horizon = task_horizon
        self._announced: set[str] = set()

    @property
    def space(self) -> ActionSpace:
        """Of the robot that acts."""
        return self.spaces[self.category]

    def recognise_robot(self, batch: dict[str, Any]) -> None:
        """Find the robot that observes, where the checkpoint knows several and the configuration names none.

        Raises:
            ValueError: None fits what is observed, or several do.
        """
        names = list(self.config.embodiments)
        if len(names) == 1 or self.config.embodiment in names:
            return
        width = batch[STATE].shape[-1] if batch.get(STATE) is not None else 0
        fitting = [
            index
            for index, space in enumerate(self.spaces)
            if space.spec.action and len(space.spec.state) == width and all(c.key in batch for c in space.spec.cameras)
        ]
        if len(fitting) != 1:
            raise ValueError(
                f"{len(fitting)} of this checkpoint's embodiments have these cameras and {width} states: say which one "
                f"acts with --policy.embodiment={'|'.join(names)}"
            )
        self.category = fitting[0]

    @property
    def frame_tokens(self) -> int:
        """Tokens of one latent frame of the acting robot's tiled picture."""
        return math.prod(self.config.latent_size(self.space.spec.grid)) // self.config.patch_size**2

    def augmented(self, batch: dict[str, Any], generators: Sequence[torch.Generator]) -> dict[str, Any]:
        """Return the batch with a random crop and colours for each sample, where the robot has them.

        A mixture draws its own while it loads.
        """
        video = self.space.spec.video
        if CATEGORY in batch or not video.augments:
            return batch
        return {**batch, AUGMENTATION: [draw_augmentations(video, 1, generator)[0] for generator in generators]}

    def window(self, batch: dict[str, Any], rows: Tensor | None = None, chunks: int = 0) -> TrainingWindow:
        """Turn a batch into clean latents, normalised actions and masks.

        Args:
            batch: LeRobot's batch, see `WAMPolicy.forward`, or a mixture's, see `lerobot_wam.data.batch`.
            rows: Samples to take; None takes all.
            chunks: Chunks to keep; 0 keeps all.
        """
        config, codecs = self.config, self.codecs
        chunks = chunks or config.max_chunks
        windows = (self._of_mixture if CATEGORY in batch else self._of_lerobot)(batch, rows, chunks)
        frame_mask = latent_frame_mask(~windows.frame_real, FRAMES_PER_LATENT)
        device, first = frame_mask.device, windows.anchor[:, 0]
        latent, condition = windows.latent, windows.condition
        if latent is None:
            assert windows.pixels is not None
            latent = codecs.video.encode(windows.pixels.transpose(1, 2))
            condition = codecs.video.condition(first, frame_mask.shape[1]) if config.condition_channels else None
        state, action, action_mask = self._normalised(windows, chunks)
        specs = [self.spaces[category].spec for category in windows.category.tolist()]
        prompts = [spec.render_prompt(task) for spec, task in zip(specs, windows.tasks, strict=True)]
        tokens, _ = codecs.text.encode(prompts)
        weight = None
        if config.early_anchor_steps and windows.seconds is not None:
            fps = torch.tensor([spec.fps for spec in specs], device=device)
            early = (windows.seconds * fps).round() < config.early_anchor_steps
            weight = torch.where(early, config.early_anchor_weight, 1.0)
        has_robot = windows.action_real.any(dim=1)
        return TrainingWindow(
            latent=latent,
            frame_mask=frame_mask,
            action=action,
            action_mask=action_mask,
            state=state,
            category=windows.category.to(device),
            text=tokens.to(device),
            anchor_frame=windows.anchor,
            weight=weight,
            image=None if codecs.image is None else codecs.image.encode(first),
            condition=condition,
            channel_weight=codecs.video.channel_weight.to(device) if config.channel_weighting else None,
            has_robot=None if bool(has_robot.all()) else has_robot,
        )

    def _of_lerobot(self, batch: dict[str, Any], rows: Tensor | None, chunks: int) -> _Windows:
        """Read the batch of one robot: its cameras by name, states at every video frame."""
        config = self.config
        frames_per_chunk = config.chunk_steps // config.video_stride
        if rows is not None:
            batch = cut_batch(batch, rows, 1 + chunks * frames_per_chunk, chunks * config.chunk_steps)
        pixels = self.tiled(batch) * 2 - 1
        frame_real, action_real = self.real_steps(batch)
        action = batch.get(ACTION)
        if self.task_horizon is not None:  # partly real latents must not show the next task
            pixels = hold_last(pixels, frame_real)
            action = None if action is None else hold_last(action, action_real)
        anchors = slice(0, chunks * frames_per_chunk, frames_per_chunk)
        state = batch.get(STATE)
        return _Windows(
            pixels=pixels,
            latent=None,
            condition=None,
            anchor=pixels[:, anchors],
            frame_real=frame_real,
            action_real=action_real,
            state=None if state is None else state[:, anchors],
            action=action,
            category=torch.full((len(pixels),), self.category),
            tasks=self.tasks(batch, len(pixels)),
            seconds=batch["timestamp"].flatten().to(pixels.device) if "timestamp" in batch else None,
        )

    def _of_mixture(self, batch: dict[str, Any], rows: Tensor | None, chunks: int) -> _Windows:
        """Read a batch of several robots, whose pictures come tiled and whose vectors come padded."""
        config = self.config
        if rows is None:
            rows = torch.arange(len(batch[CATEGORY]))
        frames, steps = 1 + chunks * config.chunk_steps // config.video_stride, chunks * config.chunk_steps
        frames_per_chunk = config.chunk_steps // config.video_stride

        def take(key: str, length: int, dim: int = 1) -> Tensor:
            value = batch[key]
            return value[rows.to(value.device)].narrow(dim, 0, length)

        pixels = latent = condition = None
        if LATENT in batch:
            latents = 1 + (frames - 1) // FRAMES_PER_LATENT
            latent, anchor = take(LATENT, latents, 2).float(), take(ANCHOR, chunks) * 2 - 1
            condition = take(CONDITION, latents, 2).float() if CONDITION in batch else None
        else:
            pixels = take(WINDOW, frames) * 2 - 1
            anchor = pixels[:, : chunks * frames_per_chunk : frames_per_chunk]
        tasks = [batch["task"][row] for row in rows.tolist()]
        return _Windows(
            pixels=pixels,
            latent=latent,
            condition=condition,
            anchor=anchor,
            frame_real=~take(WINDOW_IS_PAD, frames),
            action_real=~take(ACTION_IS_PAD, steps),
            state=take(STATE, chunks),
            action=take(ACTION, steps),
            category=batch[CATEGORY][rows.to(batch[CATEGORY].device)].cpu(),
            tasks=tasks,
            seconds=batch["timestamp"][rows.to(batch["timestamp"].device)],
        )

    def _normalised(self, windows: _Windows, chunks: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return padded normalised states [B, N, S] and actions [B, N * H, A], and which actions are real."""
        config, device = self.config, windows.frame_real.device
        batch_size = len(windows.category)
        state = torch.zeros(batch_size, chunks, config.state_dim, device=device)
        action = torch.zeros(batch_size, chunks * config.chunk_steps, config.action_dim, device=device)
        action_mask = torch.zeros_like(action, dtype=torch.bool)
        for category in windows.category.unique().tolist():
            space = self.spaces[category]
            S, A = len(space.spec.state), len(space.spec.action)
            if S and windows.state is None:
                continue
            rows = (windows.category == category).nonzero().flatten().to(device)
            anchor_state = state[rows, :, :0] if windows.state is None else windows.state[rows, :, :S].float()
            state[rows, :, :S] = space.encode_state(anchor_state)
            if windows.action is not None and A:
                physical = windows.action[rows, :, :A].float().unflatten(1, (chunks, -1))
                action[rows, :, :A] = space.encode(physical, anchor_state).flatten(1, 2)
                action_mask[rows, :, :A] = windows.action_real[rows, :, None]
        return state, action, action_mask

    def real_steps(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Return which frames [B, T] and action steps [B, H] belong to the window's episode and task."""
        if CATEGORY in batch:
            return ~batch[WINDOW_IS_PAD], ~batch[ACTION_IS_PAD]
        stride = self.config.video_stride
        camera = self.space.spec.cameras[0].key
        view = batch[camera]
        batch_size, frames, device = view.shape[0], view.shape[1], view.device
        steps = (frames - 1) * stride

        def real(flags: Tensor | None, count: int) -> Tensor:
            everything = torch.ones(batch_size, count, dtype=torch.bool, device=device)
            return everything if flags is None else ~flags.to(device, torch.bool)

        frame_real = real(batch.get(f"{camera}_is_pad"), frames)
        action_real = real(batch.get("action_is_pad"), steps)
        if batch.get(ACTION) is None:
            action_real = torch.zeros_like(action_real)
        if self.task_horizon is not None and "index" in batch:
            horizon = self.task_horizon[batch["index"].flatten().cpu()].to(device)[:, None]
            # The frame right after a chunk's last action may already carry the next text (spec §2.3).
            frame_real &= torch.arange(frames, device=device) * stride <= horizon
            action_real &= torch.arange(steps, device=device) < horizon
        return frame_real, action_real

    def tiled(self, batch: dict[str, Any]) -> Tensor:
        """Tile the cameras of the embodiment: [B, T, 3, H, W] in [0, 1]."""
        spec, config = self.space.spec, self.config
        frames = {camera.key: batch[camera.key] for camera in spec.cameras if camera.key in batch}
        for key, view in frames.items():
            trained = (config.input_features or {}).get(key)
            if trained is not None and tuple(view.shape[-2:]) != tuple(trained.shape[-2:]):
                self._announce(
                    f"{key} is {view.shape[-2]}x{view.shape[-1]} pixels, the policy was trained on "
                    f"{trained.shape[-2]}x{trained.shape[-1]}: every frame is resized"
                )
        single = {key: view.unsqueeze(1) if view.ndim == 4 else view for key, view in frames.items()}
        return tile_views(single, spec, config.image_size, config.head_resize, batch.get(AUGMENTATION))

    def tasks(self, batch: dict[str, Any], count: int) -> list[str]:
        """Return one instruction per sample; where there is none, empty text."""
        task = batch.get("task")
        tasks = [task or ""] * count if task is None or isinstance(task, str) else list(task)
        if not all(text.strip() for text in tasks):
            self._announce("no task text: the policy is told nothing to do (an empty instruction)")
        return tasks

    def _announce(self, message: str) -> None:
        """Warn, once per policy and message."""
        if message not in self._announced:
            self._announced.add(message)
            logger.warning(message)
