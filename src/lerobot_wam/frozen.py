"""The frozen components of a policy: found, announced and loaded at their first use (spec §1.6, §1.7).

Nothing here is trained or enters the policy's weights. A component is named by its source,
`REPO_OR_FOLDER[@REVISION][#SUBFOLDER]`, and read from there in its library's own layout.
"""

import hashlib
import logging
import shutil
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx
import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError
from safetensors import SafetensorError
from torch import Tensor

from lerobot_wam.codecs.image import ClipImageCodec, ImageCodec
from lerobot_wam.codecs.text import TextCodec, WordHashTextCodec
from lerobot_wam.codecs.umt5 import Umt5TextCodec
from lerobot_wam.codecs.video import SpaceTimeDCTCodec, VideoCodec
from lerobot_wam.codecs.wan_vae import WanVAECodec
from lerobot_wam.configuration_wam import WAMConfig
from lerobot_wam.data.texts import StoredTextCodec

logger = logging.getLogger(__name__)

COMPONENTS = ("video_codec", "text_codec", "image_codec")
_WEIGHTLESS = ("dct", "word_hash", "none")
_TOKENIZER = "tokenizer"  # beside the text encoder, in diffusers' layout
_FILES = ("*.json", "*.safetensors", "*.model")
_ROOMY = 40e9
"""Bytes of a GPU that keeps the image encoder, which every window needs: 1.3 GB there are less than its way there."""


class FrozenCodecs:
    """A policy's video, text and image codec. Making one loads nothing; the first use of each codec does.

    That use may be an evaluation's, in inference mode, whose tensors could not be used in training: it is left to load.

    Args:
        config: Names the codecs, their sources and the precision of text and image encoder. The video autoencoder
            is small and keeps float32: in bfloat16 its latents move by 1 %.
        text_folders: Text tokens on disk; the text encoder is then loaded for other texts only.
    """

    def __init__(self, config: WAMConfig, text_folders: Sequence[Path] = ()) -> None:
        self.config = config
        self.text_folders = text_folders
        # Text and image encoder: module, and its weights on the CPU.
        self._at_rest: dict[str, tuple[Any, dict[str, Tensor]]] = {}
        self._announced: set[str] = set()

    @cached_property
    @torch.inference_mode(False)
    def video(self) -> VideoCodec:
        """Pixels to latents and back."""
        config = self.config
        if config.video_codec == "dct":
            return SpaceTimeDCTCodec(patch=config.codec_patch, channels=config.latent_channels)
        from diffusers import AutoencoderKLWan

        codec = WanVAECodec(self._load("video_codec", AutoencoderKLWan, torch_dtype=torch.float32))
        self._check("video_codec", "latent_channels", codec.latent_channels)
        self._check("video_codec", "codec_patch", codec.spatial_stride)
        if config.passes != "eager":
            codec.compile()
        return codec

    @cached_property
    @torch.inference_mode(False)
    def text(self) -> TextCodec:
        """Text to tokens."""
        config = self.config
        if config.text_codec == "word_hash":
            return WordHashTextCodec(dim=config.text_dim, length=config.text_length)
        if self.text_folders:
            key = text_key(config)
            return StoredTextCodec(self.text_folders, key, config.text_dim, config.text_length, self._text_encoder)
        return self._text_encoder()

    @torch.inference_mode(False)
    def _text_encoder(self) -> TextCodec:
        config = self.config
        from transformers import AutoTokenizer, UMT5EncoderModel

        encoder = self._load("text_codec", UMT5EncoderModel, dtype=getattr(torch, config.dtype))
        tokenizer = AutoTokenizer.from_pretrained(_tokenizer_folder(find_component(config, "text_codec")))
        codec = Umt5TextCodec(encoder, tokenizer, config.text_length, config.text_device or "cpu")
        self._check("text_codec", "text_dim", codec.dim)
        return codec

    @cached_property
    @torch.inference_mode(False)
    def image(self) -> ImageCodec | None:
        """First frame to image tokens; None for a model without an image branch."""
        if self.config.image_codec == "none":
            return None
        from transformers import CLIPVisionModel

        codec = ClipImageCodec(self._load("image_codec", CLIPVisionModel, dtype=getattr(torch, self.config.dtype)))
        self._check("image_codec", "image_dim", codec.dim)
        return codec

    def rest(self) -> None:
        """Take the text encoder, and on a small GPU the image encoder, off it until their next use.

        The weights are still on the CPU, so that nothing is copied. For acting, where a text is new once a task and an
        image once a window; training uses both at every step.
        """
        for name, (module, weights) in self._at_rest.items():
            device = module.device
            if device.type == "cpu" or (name == "image_codec" and _is_roomy(device)):
                continue
            module.load_state_dict(weights, assign=True)
            module.tie_weights()
            module.to("cpu")  # what is no weight
            if name not in self._announced:
                self._announced.add(name)
                logger.info(f"the encoder of {name} is on {device} while it encodes, and on the CPU otherwise")

    def _load(self, name: str, library_class: Any, **precision: torch.dtype) -> Any:
        folder = find_component(self.config, name)
        gigabytes = sum(file.stat().st_size for file in folder.glob("*.safetensors")) / 1e9
        logger.info("loading %s %s: %.1f GB from %s", name, getattr(self.config, name), gigabytes, folder)
        try:
            module, report = library_class.from_pretrained(
                folder, output_loading_info=True, use_safetensors=True, **precision
            )
        except SafetensorError as error:
            raise ValueError(f"{name} in {folder} is damaged ({error}): copy or download it again") from error
        # Superfluous tensors are none of our business: a text encoder may come with its decoder.
        wrong = sorted({str(key) for kind in ("missing_keys", "mismatched_keys") for key in report[kind]})
        if wrong:
            raise ValueError(
                f"{name} in {folder} lacks {len(wrong)} tensors or has them in another shape ({', '.join(wrong[:3])}): "
                f"copy it again, or pass --policy.{name}_source=FOLDER"
            )
        if name != "video_codec":
            self._at_rest[name] = module, module.state_dict()
        return module

    def _check(self, name: str, field: str, found: int) -> None:
        expected = getattr(self.config, field)
        if found != expected:
            raise ValueError(
                f"{name} from {getattr(self.config, f'{name}_source')} has {field} {found}, the policy {expected}: "
                f"pass --policy.{name}_source=FOLDER of the one it was trained with"
            )


def _is_roomy(device: torch.device) -> bool:
    return device.type == "cuda" and torch.cuda.get_device_properties(device).total_memory >= _ROOMY


def find_component(config: WAMConfig, name: str, download: bool = True) -> Path:
    """Return the folder of a component on this disk, after fetching it where only the Hub has it.

    Args:
        config: Holds the source.
        name: One of `COMPONENTS`.
        download: Whether the Hub may be asked.

    Raises:
        FileNotFoundError: The component is not there.
    """
    source = getattr(config, f"{name}_source") or ""
    base, _, subfolder = source.partition("#")
    way_out = f"pass --policy.{name}_source=FOLDER"
    root = Path(base)
    if base and not root.is_dir():
        repo, _, revision = base.partition("@")
        try:
            root = _fetch(name, repo, revision or None, subfolder, download)
        except (OSError, httpx.HTTPError, HFValidationError) as error:
            raise FileNotFoundError(
                f"{name} {source}: neither a folder nor in the Hub's cache, and the Hub does not give it "
                f"({type(error).__name__}): {way_out}, or connect to the internet once"
            ) from error
    if not base or not (root / subfolder / "config.json").is_file():
        raise FileNotFoundError(f"no {name} in {source or 'any source'}: expected a folder with config.json; {way_out}")
    return root / subfolder


def video_key(config: WAMConfig) -> dict[str, Any]:
    """Return what latents depend on besides the video, as JSON values; caches are compared by it."""
    fields = ("video_codec", "codec_patch", "latent_channels", "condition_channels")
    key = {field: getattr(config, field) for field in fields}
    if config.video_codec in _WEIGHTLESS:
        return key
    weights = hashlib.sha256()
    folder = find_component(config, "video_codec")
    for file in sorted((*folder.glob("*.safetensors"), folder / "config.json")):
        with file.open("rb") as opened:
            weights.update(hashlib.file_digest(opened, "sha256").digest())
    return key | {"weights": weights.hexdigest()}


def text_key(config: WAMConfig) -> dict[str, Any]:
    """Return what text tokens depend on besides the text. The encoder goes by its name: it need not be on this disk."""
    return {field: getattr(config, field) for field in ("text_codec", "text_codec_source", "text_length", "dtype")}


def _fetch(name: str, repo: str, revision: str | None, subfolder: str, download: bool) -> Path:
    folders = [Path(subfolder), Path(subfolder).parent / _TOKENIZER]
    patterns = [(folder / file).as_posix() for folder in folders[: 2 if name == "text_codec" else 1] for file in _FILES]
    wanted: dict[str, Any] = {"revision": revision, "allow_patterns": patterns}
    try:
        cached = Path(snapshot_download(repo, local_files_only=True, **wanted))
        if not download or (cached / subfolder / "config.json").is_file():
            return cached
    except LocalEntryNotFoundError:
        if not download:
            raise
    files = snapshot_download(repo, dry_run=True, **wanted)
    gigabytes = sum(file.file_size or 0 for file in files if file.will_download) / 1e9
    logger.info("downloading %s: %.1f GB from https://huggingface.co/%s", name, gigabytes, repo)
    return Path(snapshot_download(repo, **wanted))


def embed_components(config: WAMConfig, checkpoint: Path) -> None:
    """Copy a policy's components into its checkpoint and make `config` name them there."""
    for name in COMPONENTS:
        if getattr(config, f"{name}_source") is None or getattr(config, name) in _WEIGHTLESS:
            continue
        folder, embedded = find_component(config, name), checkpoint / name
        embedded.mkdir(exist_ok=True)
        for source in (_tokenizer_folder(folder), folder) if name == "text_codec" else (folder,):
            for file in (file for pattern in _FILES for file in source.glob(pattern)):
                shutil.copyfile(file, embedded / file.name)
        setattr(config, f"{name}_source", f"#{name}")


def resolve_embedded(config: WAMConfig, checkpoint: Path) -> None:
    """Make sources that are inside a checkpoint name the folder that it was loaded from."""
    for name in COMPONENTS:
        source = getattr(config, f"{name}_source") or ""
        if source.startswith("#"):
            setattr(config, f"{name}_source", f"{checkpoint}{source}")


def _tokenizer_folder(encoder: Path) -> Path:
    beside = encoder.parent / _TOKENIZER
    return encoder if (encoder / "tokenizer_config.json").is_file() or not beside.is_dir() else beside
