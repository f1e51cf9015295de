"""`WAMConfig`: every setting of a World Action Model policy, with its unit and where its default comes from."""

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from lerobot.configs import NormalizationMode, PreTrainedConfig, parser
from lerobot.optim import AdamWConfig, LRSchedulerConfig, OptimizerConfig

from lerobot_wam.codecs.video import CONDITION_MASK_CHANNELS
from lerobot_wam.command_line import SettingError, check_dataset_argument, check_rollout_rate
from lerobot_wam.embodiments.spec import FRAMES_PER_LATENT, LATENTS_PER_CHUNK, load_embodiment
from lerobot_wam.guard.settings import GuardSettings
from lerobot_wam.model.config import ModelConfig, VisualSummaryConfig
from lerobot_wam.optimizer import FlatThenLinearSchedulerConfig, MuonAdamWConfig
from lerobot_wam.presets import CHOICES, COMPAT, PRESETS, SPEEDS

COMPUTED_OF_16 = ("8", "7", "6", "5")  # the official choices of computed steps (spec §3.2)


def _from_preset() -> Any:
    """Mark a field that is None until the preset or `compat` fills it, right after construction."""
    return field(default=None)


@PreTrainedConfig.register_subclass("wam")
@dataclass
class WAMConfig(PreTrainedConfig):
    """Configuration of `WAMPolicy`.

    Fields that default to None take their value from `compat` or the preset when the policy is created, and are
    stored; a stored or given value always wins. Papers' terms are kept: a *chunk* is what is denoised together (2
    video latents with their actions and one state), a *window* holds up to `max_chunks` chunks behind one conditioning
    frame.

    Args:
        preset: "nano", "wan2.2-5b" or "wan2.1-14b".
        compat: "wam", or "official" to act and average the loss as the official code does, defects included. It sets
            state_self_only, restart_frame, noise_stream, seed, padded_actions, window_full, computed_steps,
            loss_averaging, noise_beta_alpha and action_levels.
        embodiment: Name of a built-in embodiment, path of a YAML file, or "auto": the built-in one of the dataset's
            robot_type if there is one, else derived from the dataset's features.
        embodiments: Filled when the policy is built: name -> {"spec": ..., "statistics": ...}, in category order.
        max_embodiments: Categories with state/action weights of their own; a new policy gets as many as its data needs.
        mixture: Filled by `lerobot-wam train`: the datasets that these weights were last trained on, as a recipe.
        chunk_steps: Actions per chunk, in control steps.
        video_stride: Control steps between two video frames; chunk_steps = 8 * video_stride.
        max_chunks: Chunks per window.
        n_action_steps: Actions executed before the next chunk is computed; None executes the whole chunk. With
            fewer, the cached history no longer lines up with whole blocks, so each new chunk restarts the window.
        image_size: Height and width of one camera view in pixels; views of another size are resized.
        head_resize: Height and width that the tiled picture is resized to before the codecs (bilinear, no antialias);
            None leaves it as it is.
        video_codec: "dct" (training-free), "wan2.1" or "wan2.2".
        codec_patch: Pixels per latent cell and side.
        latent_channels: Channels of the video latents.
        video_codec_source: Where the video codec's weights are: REPO_OR_FOLDER[@REVISION][#SUBFOLDER] in diffusers'
            layout; without REPO_OR_FOLDER, inside this checkpoint. None for "dct". Likewise the next two.
        condition_channels: First-frame conditioning channels, 4 + latent_channels (the 14B model) or 0.
        text_codec: "word_hash" (training-free) or "umt5".
        text_codec_source: The text encoder's folder; its tokenizer is in it or, as diffusers has it, in `tokenizer`
            beside it.
        text_device: Where the text encoder computes; None is the CPU. While acting it leaves a GPU once a task is read.
        text_dim: Width of a text token.
        text_length: Text tokens.
        dim: Model width.
        num_heads: Attention heads.
        num_layers: Transformer blocks.
        ffn_dim: Width of the feed-forward layers.
        freq_dim: Width of the timestep sinusoid.
        patch_size: Latent cells per token and side.
        image_codec: "none" or "clip": what makes the first-frame image tokens.
        image_codec_source: The image encoder's folder.
        image_dim: Width of first-frame image tokens; 0 without an image codec.
        embed_components: Save the frozen components inside the checkpoint instead of naming their sources.
        prompt_templates: Embodiment name -> the wording that a checkpoint was trained with, `{task}` standing for the
            task; an embodiment that is not listed uses its own wording.
        action_dim: Padded width of the action vector.
        state_dim: Padded width of the state vector.
        action_hidden: Hidden width of state encoder and action decoder.
        state_self_only: Mask the state token to itself when acting, as it always is in training; False is the
            official inference, in which it reads everything.
        absolute_positions: Add learned absolute positions to every token (nano).
        visual_summary: Add the convolutional summary of each chunk's first frame (nano).
        imagines: Denoise video beside the actions, which is what a world action model is. False leaves the imagined
            video out of network and loss: an action-only policy of the same weights, to compare with.
        noise_mode: "coupled", "decoupled" (Flash), "high_noise" or "independent".
        noise_beta_alpha: alpha of Beta(alpha, 1) in "decoupled" and "high_noise".
        action_levels: In "decoupled", one noise level per "chunk" (paper) or per action "step" (official code).
        pure_noise_probability: Chance that a chunk is trained from pure noise.
        given_probability: In "independent", chance that a chunk is given its actions or its video clean.
        timestep_weighting: Use the official bell-shaped loss weights.
        first_frame_loss: Denoise frame 0 too, as the official code does.
        loss_averaging: "sample" (batch-correct) or "official".
        channel_weighting: Weigh latent channels by what they mean in pixels.
        video_loss_weight: Factor of the video loss.
        action_loss_weight: Factor of the action loss.
        auxiliary_bc_weight: Factor of the behaviour-cloning loss; 0 removes its head.
        early_anchor_weight: Loss factor of windows that start in the first `early_anchor_steps` steps of an episode.
        early_anchor_steps: See above; 0 turns it off.
        drop_n_last_frames: Windows do not start in the last so many frames of an episode.
        solver: "euler" or "unipc".
        speed: A dial over the four fields named next: "exact", "official", "fast" or "flash" (see `SPEEDS`). It also
            overrides what a checkpoint stores, and returns to None once it has filled them.
        num_inference_steps: Solver steps per chunk.
        computed_steps: Steps that the network is run for: "all"; "8", "7", "6" or "5" of 16 by the official tables;
            or "dynamic", by the similarity of successive velocities.
        skipped_steps: The others "repeat" the last velocity, or "extrapolate" the line through the last two in sigma.
        video_final_sigma: Noise level at which the video stops; the actions go to 0.
        restart_frame: What a restarted window is conditioned on: the "newest" frame, or the "official" choice, which
            is the oldest of eight. Official blocks also begin with a copy of their own first frame instead of the
            frame that the last one ended with.
        noise_stream: "session" draws new noise for every chunk; "fixed" the same, from `seed`, for each.
        padded_actions: What action dimensions beyond the robot's hold while sampling: "zero", or "noise" that is
            denoised like the rest, as in training and in the official inference.
        window_full: "restart" the window, or "slide" it: the oldest chunk behind the first frame is dropped.
        guidance_scale: Classifier-free guidance on the video velocity; 1 is off.
        negative_prompt: Text of the negative branch.
        seed: Seed of the sampling noise; every session gets its own stream, unless noise_stream is "fixed".
        noise_seed: Seed of the training noise; None draws one when the policy is created.
        steps_done: Optimizer steps behind these weights; counted by the policy, and part of what the training noise
            is drawn from.
        ema_decay: Decay of the weight average that acts; 0 keeps none.
        optimizer: "adamw" or "muon_adamw" (Muon for the blocks' matrices).
        trainable: "all", or "heads": only the weights of single robots, that is state and action encoders and decoders.
        heads_lr: Learning rate of those weights; None is that of the others.
        optimizer_lr: AdamW learning rate.
        matrix_lr: Muon learning rate.
        optimizer_betas: AdamW betas.
        optimizer_weight_decay: Decay of matrices; never of biases and norms.
        grad_clip_norm: Gradient-norm clip.
        warmup_steps: Steps of linear warm-up.
        flat_fraction: Share of the steps after which the rate falls linearly.
        gradient_checkpointing: Recompute blocks in the backward pass.
        dtype: "float32" or "bfloat16" autocast in training.
        weights_dtype: "float32" or "bfloat16": how the weights are held and saved; a checkpoint of the other kind is
            converted while it is loaded. Whole models are trained in float32.
        max_shard_size: Largest weight file of a checkpoint; bigger models are saved as several.
        action_only: Do not finish the imagined video: no pass is made for it alone, and it cannot be looked at.
        smoothing: Smooth each chunk's actions as in the paper (spec §3.5).
        passes: How the network is run in closed loop: "eager", "compile" or with CUDA "graphs".
        quantization: Kind of the blocks' matrix products in closed loop: "none", "fp8", "int8" or "int4".
        attention: Kernel of the attention in closed loop: "auto" is the fastest one measured on a CUDA device and
            torch's choice elsewhere; or "cudnn", "flash", "efficient" or "math".
        guard: What the last step before the robot does with an action that is not finite, of another form or too late:
            "hold" the last command, "ramp" down to a stop, or "none", which checks nothing. Positions are clipped to
            the embodiment's limits, and changes to its `max_rate`, in both of the former.
        guard_max_age_s: Seconds that an action may be late on a robot: the time since the observation that its chunk
            was computed from, less the action's place in the chunk. None for any.
        guard_patience: Faults in a row, lateness apart, that are held; one more ends the run.
        surprise: Filled by `lerobot-wam calibrate`: embodiment -> what its dreams usually miss by (`Calibration`).
        on_surprise: What follows where reality is farther from the dream than the calibrated threshold: "ignore"; to
            "shorten" the chunks to half until it is calm; to "replan" at once; or to "hand_over", which holds the last
            command until a person takes over.
        save_predicted_video: Let `lerobot-eval` write the imagined video beside the real one.
    """

    preset: str = "nano"  # no Literal: for a wrong one argparse would print LeRobot's 600 lines of usage
    compat: Literal["wam", "official"] = "wam"
    embodiment: str = "auto"
    embodiments: dict[str, Any] = field(default_factory=dict)
    max_embodiments: int = 4
    mixture: dict[str, Any] = field(default_factory=dict)

    chunk_steps: int = _from_preset()
    video_stride: int = _from_preset()
    max_chunks: int = _from_preset()
    n_action_steps: int | None = None

    image_size: tuple[int, int] = _from_preset()
    head_resize: tuple[int, int] | None = _from_preset()
    video_codec: Literal["dct", "wan2.1", "wan2.2"] = _from_preset()
    video_codec_source: str | None = _from_preset()
    codec_patch: int = _from_preset()
    latent_channels: int = _from_preset()
    condition_channels: int = _from_preset()
    text_codec: Literal["word_hash", "umt5"] = _from_preset()
    text_codec_source: str | None = _from_preset()
    text_device: str | None = None
    text_dim: int = _from_preset()
    text_length: int = _from_preset()
    image_codec: Literal["none", "clip"] = _from_preset()
    image_codec_source: str | None = _from_preset()
    image_dim: int = _from_preset()
    embed_components: bool = False
    prompt_templates: dict[str, str] = field(default_factory=dict)

    dim: int = _from_preset()
    num_heads: int = _from_preset()
    num_layers: int = _from_preset()
    ffn_dim: int = _from_preset()
    freq_dim: int = _from_preset()
    patch_size: int = _from_preset()
    action_dim: int = _from_preset()
    state_dim: int = _from_preset()
    action_hidden: int = _from_preset()
    state_self_only: bool = _from_preset()
    absolute_positions: bool = _from_preset()
    visual_summary: bool = _from_preset()
    imagines: bool = True

    noise_mode: Literal["coupled", "decoupled", "high_noise", "independent"] = _from_preset()
    noise_beta_alpha: float = _from_preset()
    action_levels: Literal["chunk", "step"] = _from_preset()
    pure_noise_probability: float = _from_preset()
    given_probability: float = 0.0
    timestep_weighting: bool = _from_preset()
    first_frame_loss: bool = _from_preset()
    loss_averaging: Literal["sample", "official"] = _from_preset()
    channel_weighting: bool = _from_preset()
    video_loss_weight: float = 1.0
    action_loss_weight: float = 1.0
    auxiliary_bc_weight: float = _from_preset()
    early_anchor_weight: float = _from_preset()
    early_anchor_steps: int = _from_preset()
    drop_n_last_frames: int = _from_preset()

    solver: Literal["euler", "unipc"] = _from_preset()
    speed: str | None = None  # no Literal, as for the preset
    num_inference_steps: int = _from_preset()
    computed_steps: str = _from_preset()  # no Literal: draccus reads 8 as a number and refuses it
    video_final_sigma: float = _from_preset()
    guidance_scale: float = _from_preset()
    skipped_steps: Literal["repeat", "extrapolate"] = "repeat"
    negative_prompt: str = _from_preset()
    restart_frame: Literal["newest", "official"] = _from_preset()
    noise_stream: Literal["session", "fixed"] = _from_preset()
    padded_actions: Literal["zero", "noise"] = _from_preset()
    window_full: Literal["restart", "slide"] = _from_preset()
    seed: int = _from_preset()

    noise_seed: int | None = None
    steps_done: int = 0
    ema_decay: float = _from_preset()
    trainable: Literal["all", "heads"] = "all"
    heads_lr: float | None = None
    optimizer: Literal["adamw", "muon_adamw"] = _from_preset()
    optimizer_lr: float = _from_preset()
    matrix_lr: float = _from_preset()
    optimizer_betas: tuple[float, float] = _from_preset()
    optimizer_weight_decay: float = _from_preset()
    grad_clip_norm: float = _from_preset()
    warmup_steps: int = _from_preset()
    flat_fraction: float = _from_preset()
    gradient_checkpointing: bool = _from_preset()
    dtype: Literal["float32", "bfloat16"] = _from_preset()
    weights_dtype: Literal["float32", "bfloat16"] = "float32"
    max_shard_size: str = "5GB"

    action_only: bool = False
    smoothing: bool = False
    passes: str = "eager"
    quantization: str = "none"
    attention: str = "auto"
    guard: str = "hold"
    guard_max_age_s: float | None = 3.0
    guard_patience: int = 10
    surprise: dict[str, Any] = field(default_factory=dict)
    on_surprise: Literal["ignore", "shorten", "replan", "hand_over"] = "ignore"
    save_predicted_video: bool = False

    # `lerobot-rollout` puts its RTCConfig here after loading. No field: it is not saved, and importing its type
    # would import every policy of LeRobot.
    rtc_config: ClassVar[Any] = None

    # Normalisation belongs to the embodiment and is anchored at each chunk's state, so LeRobot's own stays out.
    normalization_mapping: dict[str, NormalizationMode] = field(
        default_factory=lambda: {
            "VISUAL": NormalizationMode.IDENTITY,
            "STATE": NormalizationMode.IDENTITY,
            "ACTION": NormalizationMode.IDENTITY,
        }
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.preset not in PRESETS:
            raise SettingError(f"unknown preset {self.preset!r}: choose one of {', '.join(PRESETS)}.")
        if self.embodiment != "auto" and not self.embodiments:
            try:
                spec = load_embodiment(self.embodiment)
            except (ValueError, OSError) as error:
                raise SettingError(str(error)) from error
            if self.chunk_steps is None and self.video_stride is None:
                self.chunk_steps, self.video_stride = spec.chunk_steps, spec.video_stride
        if self.speed is not None:
            self._turn_dial()
        for name, value in (PRESETS[self.preset] | COMPAT[self.compat]).items():
            if getattr(self, name) is None:
                setattr(self, name, value)
        self.action_only = self.action_only or not self.imagines
        self._check()
        check_dataset_argument()
        for name, stored in self.embodiments.items():
            if name == self.embodiment or len(self.embodiments) == 1:
                check_rollout_rate(name, stored["spec"]["fps"])

    def _turn_dial(self) -> None:
        """Fill the fields that `speed` stands for; what a checkpoint stored gives way, what is given beside it not."""
        if self.speed not in SPEEDS:
            raise SettingError(f"speed is {self.speed!r}; expected {', '.join(SPEEDS)}.")
        settings = {"guidance_scale": PRESETS[self.preset]["guidance_scale"]} | SPEEDS[self.speed]
        for name, value in settings.items():
            # A loaded configuration knows its robots, and does not tell which of its fields were flags.
            given = parser.parse_arg(f"policy.{name}") if self.embodiments else getattr(self, name)
            if given is not None and type(value)(given) != value:
                raise SettingError(
                    f"speed {self.speed} sets {name} to {value}, but {name} is {given}: leave out --policy.{name}, or "
                    "--policy.speed and set its fields one by one."
                )
            setattr(self, name, value)
        self.speed = None

    def _check(self) -> None:
        frames = LATENTS_PER_CHUNK * FRAMES_PER_LATENT
        if self.chunk_steps != frames * self.video_stride:
            raise SettingError(
                f"chunk_steps is {self.chunk_steps}, expected {frames * self.video_stride} ({frames} video frames per "
                f"chunk x video_stride {self.video_stride}): set both flags together."
            )
        if self.max_chunks < 1:
            raise SettingError(f"max_chunks is {self.max_chunks}; a window holds at least 1 chunk.")
        if self.n_action_steps is not None and not 1 <= self.n_action_steps <= self.chunk_steps:
            raise SettingError(
                f"n_action_steps is {self.n_action_steps}; expected 1..{self.chunk_steps} (chunk_steps)."
            )
        cell = self.codec_patch * self.patch_size
        name = "head_resize" if self.head_resize else "image_size"
        seen = self.head_resize or self.image_size
        if any(side % cell for side in seen):
            raise SettingError(f"{name} {tuple(seen)} must be a multiple of {cell} pixels (codec_patch x patch_size).")
        if self.condition_channels not in (0, CONDITION_MASK_CHANNELS + self.latent_channels):
            raise SettingError(
                f"condition_channels is {self.condition_channels}, expected 0 or "
                f"{CONDITION_MASK_CHANNELS + self.latent_channels} (mask and latent_channels)."
            )
        if (self.image_codec == "none") != (self.image_dim == 0):
            raise SettingError(
                f"image_codec {self.image_codec!r} does not fit image_dim {self.image_dim}: without an image codec "
                "image_dim is 0, with one the width of its tokens."
            )
        if self.computed_steps not in (*COMPUTED_OF_16, "all", "dynamic"):
            raise SettingError(
                f"computed_steps is {self.computed_steps!r}; expected all, dynamic or {', '.join(COMPUTED_OF_16)}."
            )
        if self.computed_steps in COMPUTED_OF_16 and self.num_inference_steps != 16:
            raise SettingError(
                f"computed_steps {self.computed_steps} chooses among 16 steps, but num_inference_steps is "
                f"{self.num_inference_steps}: set it to 16, or computed_steps to all or dynamic."
            )
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise SettingError(f"{name} is {getattr(self, name)!r}; expected {', '.join(choices)}.")
        if self.action_only and self.save_predicted_video:
            raise SettingError(
                "action_only leaves the video unfinished, so save_predicted_video=true has nothing to save."
            )
        if not self.imagines and (self.computed_steps == "dynamic" or self.on_surprise != "ignore"):
            raise SettingError(
                f"computed_steps is {self.computed_steps!r} and on_surprise {self.on_surprise!r}, but imagines=false "
                "leaves no video to compare: set computed_steps to all, and on_surprise to ignore."
            )
        if not 0 <= self.given_probability <= (self.noise_mode == "independent"):
            raise SettingError(f"given_probability is {self.given_probability}; above 0 needs noise_mode=independent.")
        if not 0 <= self.video_final_sigma < 1:
            raise SettingError(f"video_final_sigma is {self.video_final_sigma}; expected 0 (clean) to below 1.")
        if self.embodiments and self.embodiment not in ("auto", *self.embodiments):
            raise SettingError(
                f"unknown embodiment {self.embodiment!r}: this checkpoint knows {', '.join(self.embodiments)}"
            )
        try:
            _ = self.model_config, self.guard_settings
        except ValueError as error:
            raise SettingError(str(error)) from error

    @property
    def observation_delta_indices(self) -> list[int]:
        """Offsets of the window's video frames, in control steps; LeRobot reads states at the same offsets."""
        return list(range(0, self.max_chunks * self.chunk_steps + 1, self.video_stride))

    @property
    def action_delta_indices(self) -> list[int]:
        """Offsets of the window's actions, in control steps."""
        return list(range(self.max_chunks * self.chunk_steps))

    @property
    def reward_delta_indices(self) -> None:
        """Rewards are not used."""
        return None

    def latent_size(self, grid: tuple[int, int]) -> tuple[int, int]:
        """Height and width of a latent frame of a picture that is tiled of `grid` rows and columns of views."""
        height, width = self.head_resize or (grid[0] * self.image_size[0], grid[1] * self.image_size[1])
        return height // self.codec_patch, width // self.codec_patch

    @property
    def guard_settings(self) -> GuardSettings:
        """What the guard does."""
        return GuardSettings(self.guard, self.guard_max_age_s, self.guard_patience)

    @property
    def model_config(self) -> ModelConfig:
        """Sizes of the network."""
        summary = VisualSummaryConfig() if self.visual_summary else None
        return ModelConfig(
            dim=self.dim,
            num_heads=self.num_heads,
            num_layers=self.num_layers,
            ffn_dim=self.ffn_dim,
            freq_dim=self.freq_dim,
            text_dim=self.text_dim,
            latent_channels=self.latent_channels,
            condition_channels=self.condition_channels,
            patch=(1, self.patch_size, self.patch_size),
            image_dim=self.image_dim or None,
            action_dim=self.action_dim,
            state_dim=self.state_dim,
            action_hidden=self.action_hidden,
            num_categories=self.max_embodiments,
            frames_per_chunk=LATENTS_PER_CHUNK,
            actions_per_chunk=self.chunk_steps,
            max_chunks=self.max_chunks,
            state_self_only=self.state_self_only,
            absolute_positions=self.absolute_positions,
            visual_summary=summary,
            auxiliary_bc=self.auxiliary_bc_weight > 0,
            imagines=self.imagines,
        )

    def get_optimizer_preset(self) -> OptimizerConfig:
        """AdamW, or Muon for the blocks' matrices with AdamW for the rest."""
        common: dict[str, Any] = {
            "betas": tuple(self.optimizer_betas),
            "weight_decay": self.optimizer_weight_decay,
            "grad_clip_norm": self.grad_clip_norm,
        }
        if self.optimizer == "adamw":
            return AdamWConfig(lr=self.optimizer_lr, **common)
        return MuonAdamWConfig(lr=self.matrix_lr, adamw_lr=self.optimizer_lr, **common)

    def get_scheduler_preset(self) -> LRSchedulerConfig:
        """Warm-up, flat, linear decay to 2 %."""
        return FlatThenLinearSchedulerConfig(num_warmup_steps=self.warmup_steps, flat_fraction=self.flat_fraction)

    def validate_features(self) -> None:
        """Refuse data without a camera."""
        if not self.image_features:
            raise ValueError(
                f"no camera among the inputs ({', '.join(self.input_features or {}) or 'none'}): "
                "a world action model needs observation.images.*"
            )
