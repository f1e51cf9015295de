"""LeRobot's batches as the objective takes them: tiled, encoded, normalised, masked."""

import logging
from typing import Any

import torch
from lerobot.utils.constants import ACTION, OBS_STATE
from torch import Tensor

from lerobot_wam.configuration_wam import WAMConfig
from lerobot_wam.data.views import draw_augmentations, tile_views
from lerobot_wam.data.windows import cut_batch, hold_last, latent_frame_mask
from lerobot_wam.diffusion.objective import TrainingWindow
from lerobot_wam.embodiments.action_space import ActionSpace
from lerobot_wam.frozen import FrozenCodecs

logger = logging.getLogger(__name__)

AUGMENTATION = "augmentation"
"""Key of a training batch's list of random crops and colours, one a sample."""


class BatchReader:
    """Reads the batches of one robot.

    Args:
        config: The policy's configuration.
        space: The robot's description and normalisation.
        category: Index of the robot's embodiment.
        codecs: Pixels and text to what the model takes.
        task_horizon: For every frame of the training dataset the steps until its task changes [frames]; None where
            it never does.
    """

    def __init__(
        self,
        config: WAMConfig,
        space: ActionSpace,
        category: int,
        codecs: FrozenCodecs,
        task_horizon: Tensor | None,
    ) -> None:
        self.config = config
        self.space = space
        self.category = category
        self.codecs = codecs
        self.task_horizon = task_horizon
        self._announced: set[str] = set()

    def augmented(self, batch: dict[str, Any], count: int, generator: torch.Generator) -> dict[str, Any]:
        """Return the batch with a random crop and colours for each of `count` samples, where the robot has them."""
        video = self.space.spec.video
        if video.crop == 1 and not video.color_jitter:
            return batch
        return {**batch, AUGMENTATION: draw_augmentations(video, count, generator)}

    def window(self, batch: dict[str, Any], rows: Tensor | None = None, chunks: int = 0) -> TrainingWindow:
        """Turn LeRobot's batch into clean latents, normalised actions and masks.

        Args:
            batch: LeRobot's batch, see `WAMPolicy.forward`.
            rows: Samples to take; None takes all.
            chunks: Chunks to keep; 0 keeps all.
        """
        config, space, codecs = self.config, self.space, self.codecs
        spec, steps, chunks = space.spec, config.chunk_steps, chunks or config.max_chunks
        if rows is not None:
            batch = cut_batch(batch, rows, 1 + chunks * steps // config.video_stride, chunks * steps)
        pixels_BTCHW = self.tiled(batch) * 2 - 1
        batch_size, device = len(pixels_BTCHW), pixels_BTCHW.device
        frame_real, action_real = self.real_steps(batch)
        if self.task_horizon is not None:
            pixels_BTCHW = hold_last(pixels_BTCHW, frame_real)  # partly real latents must not show the next task
        frame_mask = latent_frame_mask(~frame_real, codecs.video.temporal_stride)
        frames_per_chunk = steps // config.video_stride
        anchors = slice(0, chunks * frames_per_chunk, frames_per_chunk)

        state = torch.zeros(batch_size, chunks, config.state_dim, device=device)
        action = torch.zeros(batch_size, chunks * steps, config.action_dim, device=device)
        action_mask = torch.zeros_like(action, dtype=torch.bool)
        if spec.state and batch.get(OBS_STATE) is not None:
            anchor_state = batch[OBS_STATE][:, anchors].float()
            state[..., : len(spec.state)] = space.encode_state(anchor_state)
            if spec.action and batch.get(ACTION) is not None:
                physical_BTA = batch[ACTION].float()
                if self.task_horizon is not None:
                    physical_BTA = hold_last(physical_BTA, action_real)
                physical = physical_BTA.unflatten(1, (chunks, steps))
                action[..., : len(spec.action)] = space.encode(physical, anchor_state).flatten(1, 2)
                action_mask[..., : len(spec.action)] = action_real[:, :, None]
        tokens, _ = codecs.text.encode([spec.render_prompt(task) for task in self.tasks(batch, batch_size)])
        first = pixels_BTCHW[:, 0]
        weight = None
        if config.early_anchor_steps and "timestamp" in batch:
            early = (batch["timestamp"].flatten() * spec.fps).round() < config.early_anchor_steps
            weight = torch.where(early, config.early_anchor_weight, 1.0).to(device)
        return TrainingWindow(
            latent=codecs.video.encode(pixels_BTCHW.transpose(1, 2)),
            frame_mask=frame_mask,
            action=action,
            action_mask=action_mask,
            state=state,
            category=torch.full((batch_size,), self.category, device=device),
            text=tokens.to(device),
            anchor_frame=pixels_BTCHW[:, anchors],
            weight=weight,
            image=None if codecs.image is None else codecs.image.encode(first),
            condition=codecs.video.condition(first, frame_mask.shape[1]) if config.condition_channels else None,
            channel_weight=codecs.video.channel_weight.to(device) if config.channel_weighting else None,
        )

    def real_steps(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Return which frames [B, T] and action steps [B, H] belong to the window's episode and task."""
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
