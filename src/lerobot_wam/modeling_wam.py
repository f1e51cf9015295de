"""`WAMPolicy`: LeRobot's policy contract on top of the network, the objective and the closed-loop runtime."""

import copy
import logging
import math
from contextlib import nullcontext
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from huggingface_hub import ModelCard, save_torch_state_dict, snapshot_download
from lerobot.policies.pretrained import PreTrainedPolicy
from lerobot.policies.rtc.modeling_rtc import RTCProcessor
from lerobot.utils.constants import POLICY_POSTPROCESSOR_DEFAULT_NAME
from lerobot.utils.device_utils import resolve_safetensors_device
from torch import Tensor

import lerobot_wam.processor_wam  # noqa: F401  (LeRobot finds the steps of a saved pipeline by their registered names)
from lerobot_wam.adoption import adopt_dataset
from lerobot_wam.approximations import approximations
from lerobot_wam.batches import BatchReader
from lerobot_wam.codecs.text import TextCodec
from lerobot_wam.codecs.video import VideoCodec
from lerobot_wam.configuration_wam import WAMConfig
from lerobot_wam.data.batch import SOURCE, STATE, SourceLosses
from lerobot_wam.data.windows import latent_frame_mask, real_chunks
from lerobot_wam.diffusion.objective import ObjectiveConfig, ragged_joint_loss
from lerobot_wam.diffusion.schedule import NoiseConfig
from lerobot_wam.embodiments.action_space import ActionSpace
from lerobot_wam.embodiments.resolve import load_stored_embodiment
from lerobot_wam.embodiments.spec import FRAMES_PER_LATENT
from lerobot_wam.frozen import FrozenCodecs, embed_components, resolve_embedded
from lerobot_wam.guard.note import NOTE, Answer, Note
from lerobot_wam.launching import refuse_quantization, settle_average, settle_sharding
from lerobot_wam.model.transformer import Block
from lerobot_wam.model.world_action_model import WorldActionModel
from lerobot_wam.model_card import data_row, generate_card, robot_rows, training_rows
from lerobot_wam.optimizer import parameter_groups
from lerobot_wam.runtime.acceleration import AccelerationSettings, Passes, accelerate
from lerobot_wam.runtime.configured import alarm, loop_rules, sampler_config
from lerobot_wam.runtime.quantization import is_quantized
from lerobot_wam.runtime.session import Runtime
from lerobot_wam.runtime.state import Observation, Savings, Session
from lerobot_wam.runtime.stitching import Commitment
from lerobot_wam.weights import is_per_robot, read_weights, replaced

logger = logging.getLogger(__name__)

_POSTPROCESSOR = f"{POLICY_POSTPROCESSOR_DEFAULT_NAME}.json"
_CHECKPOINT_FILES = ["config.json", "model*.safetensors*", "*_codec/*", _POSTPROCESSOR]
_DOWNLOAD_OPTIONS = ("cache_dir", "force_download", "token", "local_files_only")


class WAMPolicy(PreTrainedPolicy):
    """A World Action Model: one network that dreams the next chunk of video and the actions that make it happen.

    Args:
        config: The policy's configuration. Its `embodiments` are filled here when they are empty.
        dataset_meta: Metadata of the training dataset; needed to build a policy from scratch.
        weights_follow: Build the network without memory; `from_pretrained` fills it.
        kwargs: Whatever else LeRobot's factory passes; not used.

    Raises:
        ValueError: Neither stored embodiments nor a dataset, or a dataset that does not fit.
    """

    config_class = WAMConfig
    name = "wam"
    # Newer LeRobot shards by these; launch/fsdp.yaml names the same.
    _fsdp_wrap_modules: ClassVar[list[str]] = [Block.__name__]

    def __init__(
        self, config: WAMConfig, dataset_meta: Any = None, weights_follow: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(config)
        self.config: WAMConfig = config
        self.codecs = FrozenCodecs(config, getattr(dataset_meta, "text_folders", ()))
        settle_average(config)
        settle_sharding(config)
        if found := approximations(config):
            logger.warning(f"approximations: {'; '.join(found)}")
        task_horizon = None if dataset_meta is None else adopt_dataset(config, dataset_meta)
        if not config.embodiments:
            raise ValueError(
                "the policy knows no embodiment: train it on a dataset (--dataset.repo_id=...) or load a checkpoint "
                "(--policy.path=...)"
            )
        self.action_spaces = [
            ActionSpace(*load_stored_embodiment(name, stored, config.prompt_templates.get(name)))
            for name, stored in config.embodiments.items()
        ]
        names = list(config.embodiments)
        category = names.index(config.embodiment) if config.embodiment in names else 0
        self.reader = BatchReader(config, self.action_spaces, category, self.codecs, task_horizon)
        with torch.device("meta") if weights_follow else nullcontext():
            self.model = WorldActionModel(config.model_config).to(getattr(torch, config.weights_dtype))
        self.model.gradient_checkpointing = config.gradient_checkpointing
        if config.trainable == "heads":
            for name, parameter in self.model.named_parameters():
                parameter.requires_grad_(is_per_robot(name))
        self.ema_model: WorldActionModel | None = None
        if config.ema_decay > 0:
            self.ema_model = copy.deepcopy(self.model).requires_grad_(False)
        if config.noise_seed is None:
            config.noise_seed = int(torch.randint(0, 2**31, ()))
        self.objective = ObjectiveConfig(
            noise=NoiseConfig(
                mode=config.noise_mode,
                beta_alpha=config.noise_beta_alpha,
                action_level_per_chunk=config.action_levels == "chunk",
                pure_noise_probability=config.pure_noise_probability,
                given_probability=config.given_probability,
            ),
            timestep_weighting=config.timestep_weighting,
            first_frame_loss=config.first_frame_loss,
            averaging=config.loss_averaging,
            video_weight=config.video_loss_weight,
            action_weight=config.action_loss_weight,
            auxiliary_bc_weight=config.auxiliary_bc_weight,
        )
        self._source_losses = SourceLosses([source["name"] for source in config.mixture.get("datasets", [])])
        self.savings = Savings()
        self.alarm = alarm(config, self.action_spaces)
        self.last_predicted_latents: Tensor | None = None
        self.init_rtc_processor()
        self._episode = 0
        self.reset()

    @property
    def category(self) -> int:
        """Index of the embodiment that acts."""
        return self.reader.category

    @property
    def video_codec(self) -> VideoCodec:
        """Pixels to latents and back; loaded at first use, like the next."""
        return self.codecs.video

    @property
    def text_codec(self) -> TextCodec:
        """Text to tokens."""
        return self.codecs.text

    @property
    def acting_model(self) -> WorldActionModel:
        """The weights that act: the average where one is kept."""
        return self.model if self.ema_model is None else self.ema_model

    @property
    def runtime(self) -> Runtime:
        """The closed-loop runtime on the acting weights."""
        config = self.config
        # A sharded block's layers can only be called through the block.
        whole = type(self.acting_model.blocks[0]) is Block
        return Runtime(
            self.acting_model,
            self.video_codec,
            self.text_codec,
            self.action_spaces,
            sampler_config(config),
            config.video_stride,
            config.n_action_steps,
            config.negative_prompt,
            self.codecs.image,
            rules=loop_rules(config),
            savings=replace(self.savings, remember_context=self.savings.remember_context and whole),
            action_only=config.action_only,
            passes=self.passes,
            watching=self.alarm,
        )

    @cached_property
    def passes(self) -> Passes:
        """How the acting model's passes are run; settled at the first one, for the device that it is on by then."""
        settings = AccelerationSettings(self.config.passes, self.config.quantization, self.config.attention)
        passes, lines = accelerate(self.acting_model, settings, self.reader.frame_tokens)
        for line in lines:
            logger.warning(line)
        return passes

    def _apply(self, *args: Any, **kwargs: Any) -> Any:
        # Weights that move leave behind what was recorded and measured where they were.
        self.__dict__.pop("passes", None)
        return super()._apply(*args, **kwargs)

    def get_optim_params(self) -> Any:
        """Trainable parameters: by name for Muon, which sorts them itself; else groups.

        Weights of single robots may have a rate of their own. They do not decay: a batch need not hold every robot.
        """
        refuse_quantization(self.config)
        named = {name: p for name, p in self.named_parameters() if p.requires_grad}
        heads = {name for name in named if is_per_robot(name)}
        return parameter_groups(named, heads, self.config.heads_lr, muon=self.config.optimizer == "muon_adamw")

    def update(self) -> None:
        """Count the optimizer step and move the weight average; LeRobot calls it after every step."""
        self.config.steps_done += 1
        if self.ema_model is not None:
            # The average follows quickly at first, else it would remember the random start.
            steps = self.config.steps_done
            decay = min(self.config.ema_decay, (1 + steps) / (10 + steps))
            with torch.no_grad():
                averages: list[Tensor] = list(self.ema_model.parameters())
                weights: list[Tensor] = list(self.model.parameters())
                torch._foreach_lerp_(averages, weights, 1 - decay)

    def forward(
        self, batch: dict[str, Any], reduction: Literal["mean", "none"] = "mean"
    ) -> tuple[Tensor, dict[str, float]]:
        """Compute the joint loss of a batch of windows.

        Args:
            batch: LeRobot's batch: `observation.images.*` [B, T, 3, H, W] in [0, 1] and, unless video-only,
                `observation.state` [B, T, S] and `action` [B, H, A]; `*_is_pad` flags; `task`.
            reduction: "none" returns the loss of every sample [B].

        Returns:
            The loss and its parts for logging.
        """
        model = self.model if self.training else self.acting_model
        frame_real, action_real = self.reader.real_steps(batch)
        generators = self._streams(batch, len(frame_real))
        if self.training:
            batch = self.reader.augmented(batch, generators)
        if type(self.model.blocks[0]) is Block:
            frame_mask = latent_frame_mask(~frame_real, FRAMES_PER_LATENT)
            chunks_B = real_chunks(action_real, frame_mask, self.config.max_chunks)
        else:  # sharded blocks talk to the other processes, so all must run equally often
            chunks_B = torch.full((len(frame_real),), self.config.max_chunks)
        losses = ragged_joint_loss(model, partial(self.reader.window, batch), chunks_B, self.objective, generators)
        parts = {"video_loss": losses.video, "action_loss": losses.action}
        if self.model.config.auxiliary_bc:
            parts["bc_loss"] = losses.auxiliary_bc
        log = {name: value.detach().mean().item() for name, value in parts.items()}
        if SOURCE in batch:
            log |= self._source_losses.of(losses.total.detach(), batch[SOURCE])
        return (losses.total if reduction == "none" else losses.total.mean()), log

    def _streams(self, batch: dict[str, Any], count: int) -> list[torch.Generator]:
        """Return a generator per sample: a function of seed, step and sample.

        So a resumed run draws what an uninterrupted one would, and two processes what one would.
        """
        index = batch["index"].flatten().tolist() if "index" in batch else range(count)
        config = self.config
        return [torch.Generator().manual_seed(hash((config.noise_seed, config.steps_done, i)) % 2**63) for i in index]

    def reset(self) -> None:
        """Forget all sessions: a new episode begins."""
        self._sessions: list[Session] = []
        self._planned: list[float] = []  # when each session's chunk was planned, by the clock of the notes
        self._episode += 1
        self.last_predicted_latents = None

    @torch.no_grad()
    def select_action(self, batch: dict[str, Any], **kwargs: Any) -> Tensor:
        """Advance every environment by one step in closed loop; returns absolute physical actions [B, A]."""
        observations, runtime, config = self._observations(batch), self.runtime, self.config
        note = batch.get(NOTE) or Note()
        if len(self._sessions) != len(observations):
            self._sessions = self._new_sessions(runtime, len(observations))
            self._planned = [note.time] * len(observations)
        for refused in (self._sessions[row] for row in note.replan):
            refused.queue = []
            refused.end_window()  # what was refused may have come from what is in its cache
        first, helped = self._sessions[0], self.wants_help
        chunks = first.chunks
        actions = runtime.act(self._sessions, observations)
        if self.wants_help and not helped:
            logger.warning(
                "what happens is not what was dreamed: the robot holds its last command until a person takes over "
                "(lerobot-rollout --strategy.type=dagger: space, then tab) or the episode ends"
            )
        places = [session.steps - 1 for session in self._sessions]
        self._planned = [note.time if place == 0 else at for place, at in zip(places, self._planned, strict=True)]
        fps = self.reader.space.spec.fps
        self._answer(note, [at + place / fps for place, at in zip(places, self._planned, strict=True)])
        self.codecs.rest()
        dream = first.dream
        if config.save_predicted_video and first.chunks > chunks and dream is not None and dream.latents is not None:
            executed = math.ceil(runtime.execute_steps / (config.video_stride * self.video_codec.temporal_stride))
            latents = dream.latents[None, :, :executed]
            if chunks == 0:
                frame = dream.anchor_frame[None, :, None]
                latents = torch.cat([self.video_codec.encode(frame), latents], dim=2)
            self.last_predicted_latents = latents
        return torch.stack(actions)

    @property
    def wants_help(self) -> bool:
        """Whether a robot holds still until a person takes over: see `on_surprise`."""
        return any(session.held is not None for session in self._sessions)

    def supports_rtc(self) -> bool:
        """Whether chunks can be sampled to go on from the one that is executed: LeRobot's real-time chunking."""
        return True

    def init_rtc_processor(self) -> None:
        """Follow `config.rtc_config`, which `lerobot-rollout --inference.type=rtc` sets before it calls this."""
        rtc = self.config.rtc_config
        self.rtc_processor = None if rtc is None or not rtc.enabled else RTCProcessor(rtc)
        if self.rtc_processor is not None:
            logger.info("real-time chunking: the clean estimate's gradient is taken to be one, an approximation")
            if self.config.on_surprise != "ignore":
                logger.warning("real-time chunking shows the policy one frame a chunk: on_surprise compares nothing")

    @torch.no_grad()
    def predict_action_chunk(
        self, batch: dict[str, Any], inference_delay: int = 0, prev_chunk_left_over: Tensor | None = None, **kwargs: Any
    ) -> Tensor:
        """Return a whole chunk of absolute physical actions [B, chunk_steps, A] from the newest observation alone.

        Callers of this method never show the frames between two calls, so each call starts a window of its own.

        Under `config.rtc_config` the chunk agrees with `prev_chunk_left_over` [n, A] or [B, n, A], the old chunk's
        rest, of which `inference_delay` actions are executed before the new chunk is in use.
        """
        observations, runtime, note = self._observations(batch), self.runtime, batch.get(NOTE) or Note()
        commitments = None
        if prev_chunk_left_over is not None and self.rtc_processor is not None:
            asked = inference_delay, runtime.chunk_steps, self.rtc_processor
            rests = prev_chunk_left_over.expand(len(observations), -1, -1)
            commitments = [Commitment.of_lerobot(rest, *asked) for rest in rests]
        sessions = self._new_sessions(runtime, len(observations))
        dreams = runtime.plan(sessions, observations, commitments=commitments)
        self._answer(note, [note.time] * len(observations))
        self.codecs.rest()
        return torch.stack([dream.actions for dream in dreams])

    @torch.no_grad()
    def decode_predicted_latents(self, latents: Tensor) -> Tensor:
        """Decode imagined latents [1, C, F, h, w], frame 0 first, to uint8 frames [T, H, W, 3]."""
        video = self.video_codec.decode(latents)[0].clamp(-1, 1)
        return ((video + 1) * 127.5).round().to(torch.uint8).permute(1, 2, 3, 0)

    def _new_sessions(self, runtime: Runtime, count: int) -> list[Session]:
        return [runtime.new_session(self.config.seed + index, self.category) for index in range(count)]

    def _answer(self, note: Note, due: list[float]) -> None:
        """Tell the guard about the actions that are returned: see `Answer`."""
        overlaps = self.rtc_processor is not None
        note.answer = Answer(self.reader.space.spec, self.config.guard_settings, self._episode, due, overlaps)

    def _observations(self, batch: dict[str, Any]) -> list[Observation]:
        self.reader.recognise_robot(batch)
        spec = self.reader.space.spec
        if not spec.action:
            raise ValueError(f"embodiment {spec.name!r} has no actions, only video: this policy can dream, not act")
        frames = self.reader.tiled(batch)[:, -1] * 2 - 1
        tasks = self.reader.tasks(batch, len(frames))
        states = batch.get(STATE)
        if states is None:
            states = torch.zeros(len(frames), 0)
        if states.shape[-1] != len(spec.state):
            raise ValueError(
                f"observation.state has {states.shape[-1]} dimensions, embodiment {spec.name!r} has {len(spec.state)} "
                f"({', '.join(spec.state_names)}): run the policy on the robot it was trained for"
            )
        states = states[:, -1] if states.ndim == 3 else states
        return [
            Observation(frame, state, spec.render_prompt(task))
            for frame, state, task in zip(frames, states, tasks, strict=True)
        ]

    def generate_model_card(
        self,
        dataset_repo_id: str | None = None,
        model_type: str = "wam",
        license: str | None = None,
        tags: list[str] | None = None,
        cfg: Any = None,
        dataset_meta: Any = None,
        **kwargs: Any,
    ) -> ModelCard:
        """Write the card that LeRobot pushes with the weights, from what the configuration and the data tell."""
        base = self.config.pretrained_path
        return generate_card(
            self.config.repo_id or f"<user>/{model_type}",
            license=license or "apache-2.0",
            tags=tags or [],
            datasets=[dataset_repo_id] if dataset_repo_id else [],
            base_model=str(base) if base is not None and not Path(base).exists() else None,
            embodiments=robot_rows(self.config.embodiments),
            data=[data_row(meta) for meta in getattr(dataset_meta, "datasets", [dataset_meta]) if meta is not None],
            training=training_rows(cfg) if cfg is not None else None,
            robot_type=None if dataset_meta is None else dataset_meta.robot_type,
            env_type=cfg.env.type if cfg is not None and cfg.env is not None else None,
            task=None if dataset_meta is None else str(dataset_meta.tasks.index[0]),
        )

    def wrap_with_peft(self, *args: Any, **kwargs: Any) -> Any:
        """Wrap with adapters. They train the weights that act, so the average becomes the base and is dropped."""
        if self.ema_model is not None:
            self.model.load_state_dict(self.ema_model.state_dict())
            self.ema_model, self.config.ema_decay = None, 0.0
        return super().wrap_with_peft(*args, **kwargs)

    def _get_default_peft_targets(self) -> dict[str, Any]:
        """Attention and feed-forward matrices get adapters; the robot's encoders and decoder are trained whole."""
        return {
            "target_modules": r"model\.blocks\.\d+\.((self|cross)_attn\.[qkvo]|ffn\.[02])",
            "modules_to_save": ["state_encoder", "action_encoder", "action_decoder"],
        }

    def _save_pretrained(
        self, save_directory: Path, state_dict: dict[str, Tensor] | None = None, **kwargs: Any
    ) -> None:
        """Save configuration and weights; large ones in shards. A crash leaves what was there before."""
        if is_quantized(self):
            refuse_quantization(self.config)
        state = self.state_dict() if state_dict is None else state_dict
        with replaced(save_directory) as folder:
            save_torch_state_dict(state, folder, max_shard_size=self.config.max_shard_size)
            config = copy.copy(self.config)
            if config.embed_components:
                embed_components(config, folder)
            config._save_pretrained(folder)

    @classmethod
    def from_pretrained(
        cls, pretrained_name_or_path: str | Path, *, revision: str | None = None, **kwargs: Any
    ) -> "WAMPolicy":
        """LeRobot's, for sharded checkpoints too; of a repository on the Hub only the checkpoint's files are fetched.

        The network is built without memory and filled tensor by tensor, so loading needs hardly more than its size.
        """
        folder = pretrained_name_or_path
        if not Path(folder).is_dir():
            options = {name: kwargs.pop(name) for name in _DOWNLOAD_OPTIONS if name in kwargs}
            folder = snapshot_download(str(folder), revision=revision, allow_patterns=_CHECKPOINT_FILES, **options)
        saved = Path(folder) / _POSTPROCESSOR
        if saved.is_file() and "wam_guard" not in saved.read_text(encoding="utf-8"):
            logger.warning(f"{saved} has NO GUARD, actions reach a robot unchecked: see docs/deployment.md")
        policy = super().from_pretrained(folder, weights_follow=True, **kwargs)
        resolve_embedded(policy.config, Path(folder))
        return policy

    @classmethod
    def _load_as_safetensor(cls, model: Any, model_file: str, map_location: str, strict: bool) -> Any:
        """Load strictly, whatever `strict` says; see `read_weights`."""
        state = read_weights(Path(model_file).parent, model.state_dict(), resolve_safetensors_device(map_location))
        model.load_state_dict(state, assign=True)
        return model
