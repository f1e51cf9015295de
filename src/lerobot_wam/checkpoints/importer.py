"""`import_checkpoint`: somebody else's checkpoint becomes a policy folder of ours."""

import copy
import dataclasses
import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, get_type_hints
from zlib import crc32

import draccus
import torch
import yaml
from draccus.utils import DecodingError
from lerobot.configs import FeatureType, PolicyFeature
from lerobot.utils.constants import ACTION, OBS_STATE
from torch import Tensor
from tqdm import tqdm

from lerobot_wam.checkpoints.components import convert_component
from lerobot_wam.checkpoints.dreamzero import UMT5_TOKENIZER, read_dreamzero
from lerobot_wam.checkpoints.foreign import ForeignCheckpoint
from lerobot_wam.checkpoints.lazy import LazyTensor, LazyTensors
from lerobot_wam.checkpoints.output import ImportFolder
from lerobot_wam.checkpoints.source import Source
from lerobot_wam.checkpoints.wan import read_diffusers, read_original
from lerobot_wam.configuration_wam import WAMConfig
from lerobot_wam.embodiments.prompts import load_prompts
from lerobot_wam.embodiments.resolve import load_stored_embodiment
from lerobot_wam.frozen import embed_components as copy_components
from lerobot_wam.model.world_action_model import WorldActionModel
from lerobot_wam.processor_wam import make_wam_pre_post_processors
from lerobot_wam.weights import PER_ROBOT

logger = logging.getLogger(__name__)


def import_checkpoint(
    source: str,
    out: Path,
    *,
    base: str | None = None,
    prompt_template: Path | None = None,
    settings: Mapping[str, Any] | None = None,
    embed_components: bool = False,
    tokenizer: str = UMT5_TOKENIZER.name,
    seed: int = 0,
) -> WAMConfig:
    """Convert a checkpoint into a policy folder, shard by shard; interrupted, it goes on where it stopped.

    Args:
        source: Folder or `REPO[@REVISION]` of an official DreamZero checkpoint, a LoRA fine-tune of one, or a Wan base
            in the original or diffusers' layout.
        out: The folder to write.
        base: The same for what a LoRA fine-tune was trained on.
        prompt_template: File with the wording that the checkpoint was trained with, see `load_prompts`.
        settings: Values of `WAMConfig` fields that win over the checkpoint's and the preset's.
        embed_components: Copy the checkpoint's frozen components instead of referring to published ones.
        tokenizer: Where an embedded text encoder's tokenizer is, for checkpoints that hold none.
        seed: Of the weights that the checkpoint does not have.

    Returns:
        The policy's configuration.

    Raises:
        ValueError: The source is no such checkpoint, does not fit the settings or its base, or `out` is taken.
        FileNotFoundError: Files are missing, or the Hub cannot be reached.
    """
    where, onto = Source.parse(source), None if base is None else Source.parse(base)
    folder, layout = where.describe()
    try:
        if layout == "dreamzero":
            found = read_dreamzero(where, folder, embed=embed_components, base=onto, tokenizer=Source.parse(tokenizer))
        elif onto is not None:
            raise ValueError(f"{source} is no LoRA fine-tune: leave --base out")
        else:
            found = read_original(where, folder, embed_components) if layout == "wan" else read_diffusers(where, folder)
        config = _configuration(found, prompt_template, settings or {}, embed_components)
    except KeyError as error:
        raise ValueError(
            f"{source}: its configuration does not say {error}: copy or download its .json and .yaml files again"
        ) from error
    except DecodingError as error:
        raise ValueError(f"{source} cannot become a policy with these settings: {error}") from error
    logger.info("%s: %s", source, found.kind)
    tensors = _complete(found, config, source, seed)
    components = {name: convert_component(name, official) for name, official in found.components.items()}

    origin = {
        "source": source,
        "files": where.identity(),
        "base": base,
        "base_files": None if onto is None else onto.identity(),
        "seed": seed,
        "settings_sha256": hashlib.sha256(json.dumps(draccus.encode(config)).encode()).hexdigest(),
    }
    output = ImportFolder.open(out, origin)
    count = len(tensors) + sum(len(component.tensors) for component in components.values())
    with tqdm(total=count, desc="import", unit=" tensors") as progress:
        output.write_weights(tensors, out / "model", getattr(torch, config.weights_dtype), progress)
        for name, component in components.items():
            output.write_weights(component.tensors, out / name / component.stem, None, progress)
            component.write_description(out / name, found.tokenizer if name == "text_codec" else None)
    if embed_components:
        for name in components:
            setattr(config, f"{name}_source", None)
        copy_components(config, out)
        for name in components:
            setattr(config, f"{name}_source", f"#{name}")
    for pipeline in make_wam_pre_post_processors(config):
        pipeline.save_pretrained(out)
    config.device = None  # chosen on the machine that loads it
    config._save_pretrained(out)
    output.finish()
    return config


def _configuration(
    found: ForeignCheckpoint, prompt_template: Path | None, given: Mapping[str, Any], embed_components: bool
) -> WAMConfig:
    """Build the policy's configuration: what is given wins over what the checkpoint says, that over the preset."""
    settings: dict[str, Any] = {"weights_dtype": "bfloat16", "device": "cpu", **found.settings}
    settings |= {"embed_components": embed_components, "embodiments": found.embodiments}
    if prompt_template is not None:
        prompts = load_prompts(prompt_template)
        settings["prompt_templates"] = {name: prompts.template(name) for name in found.embodiments}
        settings |= {} if prompts.negative_prompt is None else {"negative_prompt": prompts.negative_prompt}
    elif found.embodiments:
        logger.warning(
            "NO PROMPT TEMPLATE: this checkpoint was trained with a wording of its own around the task, which is not "
            "in it. Our own wording is used instead, which the model has never read: expect it to follow instructions "
            "less well. Give the wording with --prompt-template FILE."
        )
    config = WAMConfig(**settings | dict(given))
    if found.embodiments:
        spec, _ = load_stored_embodiment(*next(iter(found.embodiments.items())))
        camera = PolicyFeature(FeatureType.VISUAL, (3, *config.image_size))
        config.input_features = {view.key: camera for view in spec.cameras}
        config.input_features[OBS_STATE] = PolicyFeature(FeatureType.STATE, (len(spec.state),))
        config.output_features = {ACTION: PolicyFeature(FeatureType.ACTION, (len(spec.action),))}
    return config


def _complete(found: ForeignCheckpoint, config: WAMConfig, source: str, seed: int) -> LazyTensors:
    """Return exactly the policy's tensors, those that the checkpoint may lack freshly initialised.

    Raises:
        ValueError: Tensors are missing, unexpected or of another shape; all of them are logged.
    """
    with torch.device("meta"):
        model = WorldActionModel(config.model_config)
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    problems, fresh, tensors = [], [], {}
    for name, shape in expected.items():
        found_shape = found.tensors[name].shape if name in found.tensors else None
        shared = name.startswith(PER_ROBOT) and found_shape == (1, *shape[1:])  # loading gives each robot a copy
        if found_shape == shape or shared:
            tensors[f"model.{name}"] = found.tensors[name]
        elif found_shape is not None:
            problems.append(f"mismatched {name}: {list(found_shape)}, expected {list(shape)}")
        elif any(module in name for module in found.may_lack):
            fresh.append(name)
            dtype = model.get_parameter(name).dtype
            tensors[f"model.{name}"] = LazyTensor(shape, dtype, partial(_fresh, model, name, seed))
        else:
            problems.append(f"missing {name} {list(shape)}")
    problems += [f"unexpected {name}" for name in found.tensors.keys() - expected.keys()]
    if problems:
        logger.error("\n".join(sorted(problems)))
        raise ValueError(
            f"{source} does not fit: {len(problems)} tensors are missing, unexpected or mismatched, the first is "
            f"{min(problems)!r}; expected every tensor of {config.preset}"
        )
    for module in found.may_lack:
        count = sum(module in name for name in fresh)
        if count:
            logger.warning("freshly initialised with seed %d: %d tensors of %s", seed, count, module)
    return tensors


def _fresh(model: WorldActionModel, name: str, seed: int) -> Tensor:
    """Initialise one tensor as a new model would, by itself and so that it depends on nothing but name and seed."""
    owner, _, parameter = name.rpartition(".")
    module: Any = copy.deepcopy(model.get_submodule(owner)).to_empty(device="cpu")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed + crc32(owner.encode()))
        module.reset_parameters()
    return getattr(module, parameter).detach()


def parse_settings(words: Sequence[str], option: str = "--set ") -> dict[str, Any]:
    """Read `FIELD=VALUE` words, given with `option`, as values of `WAMConfig` fields.

    Raises:
        ValueError: No such field, or a value of another type.
    """
    kinds = get_type_hints(WAMConfig)
    fields = {field.name for field in dataclasses.fields(WAMConfig)}
    settings: dict[str, Any] = {}
    for word in words:
        name, _, value = word.partition("=")
        if name not in fields:
            raise ValueError(
                f"{option}{word}: WAMConfig has no field {name!r}; expected FIELD=VALUE, as in compat=official"
            )
        try:
            settings[name] = draccus.decode(kinds[name], value if kinds[name] is str else yaml.safe_load(value))
        except (DecodingError, ValueError) as error:
            raise ValueError(f"{option}{word}: {error}") from error
    return settings
