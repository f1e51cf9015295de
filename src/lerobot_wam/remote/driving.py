"""LeRobot's rollout of a robot here with a model elsewhere: `lerobot-wam drive`."""

import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import yaml
from lerobot.configs import FeatureType, PolicyFeature
from lerobot.utils.constants import ACTION, OBS_STATE

from lerobot_wam.drivers import PREFIX, Driver, describe_driver
from lerobot_wam.embodiments.spec import EmbodimentSpec
from lerobot_wam.remote.configuration_remote import WAMRemoteConfig, read_token
from lerobot_wam.remote.processor_remote import make_wam_remote_pre_post_processors
from lerobot_wam.remote.recording import finished_episodes_kept
from lerobot_wam.serving.client import WAMClient

logger = logging.getLogger(__name__)

_TYPE, _FPS, _DATASET, _RENAMED = f"{PREFIX}type", "--fps", "--dataset.", "--rename_map"


def drive(
    arguments: Sequence[str],
    server: str,
    embodiment: str = "",
    token_file: str | None = None,
    ca_file: str | None = None,
    jpeg: int | None = None,
) -> None:
    """Run `lerobot-rollout` with these arguments on the policy that a server holds.

    Args:
        arguments: Flags of `lerobot-rollout`, but for `--policy.path`; `--fps` is the model's unless given.
        server: ws://HOST:PORT or wss://HOST:PORT.
        embodiment: Which of the server's robots this is; "" where it serves one.
        token_file: File with the server's token.
        ca_file: Certificate authority of the server's certificate, for wss.
        jpeg: Quality to send pictures with; None sends them as they are.

    Raises:
        ConnectionError: Nobody answers, or there were no actions for too long.
        PermissionError: The token is not the server's.
        ValueError: The robot is not the one that the server plans for; the message says what to map.
    """
    from lerobot.scripts import lerobot_rollout

    given = dict(word.partition("=")[::2] for word in arguments)
    if _TYPE not in given:
        raise ValueError(f"no robot: give {_TYPE}=NAME and its settings as lerobot-rollout takes them")
    settings = [word for word in arguments if word.startswith(PREFIX) and not word.startswith(f"{_TYPE}=")]
    driver = describe_driver(given[_TYPE], settings)
    with WAMClient(server, token=read_token(token_file), robot=embodiment, ca_file=ca_file) as client:
        welcome = client.welcome
    spec = EmbodimentSpec.from_dict(welcome["embodiment"])
    check_contract(spec, driver, yaml.safe_load(given.get(_RENAMED, "{}")), welcome["pictures"])
    rates = [] if _FPS in given else [f"{_FPS}={spec.fps:g}"]
    if any(name.startswith(_DATASET) for name in given) and f"{_DATASET}fps" not in given:
        rates.append(f"{_DATASET}fps={spec.fps:g}")
    config = WAMRemoteConfig(
        server=server,
        token_file=token_file,
        ca_file=ca_file,
        embodiment=welcome["embodiment"],
        jpeg=jpeg,
        device="cpu",
        push_to_hub=False,
        input_features={
            OBS_STATE: PolicyFeature(FeatureType.STATE, (len(spec.state),)),
            **{key: PolicyFeature(FeatureType.VISUAL, (3, *size)) for key, size in welcome["pictures"].items()},
        },
        output_features={ACTION: PolicyFeature(FeatureType.ACTION, (len(spec.action),))},
    )
    before = sys.argv
    with TemporaryDirectory(prefix="lerobot-wam-drive-") as folder:
        config._save_pretrained(Path(folder))
        for pipeline in make_wam_remote_pre_post_processors(config):
            pipeline.save_pretrained(folder)
        sys.argv = ["lerobot-rollout", f"--policy.path={folder}", *rates, *arguments]
        try:
            with finished_episodes_kept():
                lerobot_rollout.main()
        finally:
            sys.argv = before


def check_contract(
    spec: EmbodimentSpec, driver: Driver, renamed: Mapping[str, str], pictures: Mapping[str, Sequence[int]]
) -> None:
    """Refuse a robot that is not the one that the model plans for.

    Args:
        spec: The model's robot.
        driver: What the driver here declares.
        renamed: The driver's observations that get other names: `--rename_map`.
        pictures: Height and width of the pictures that the model was trained on, by camera.

    Raises:
        ValueError: What differs, and how to map it.
    """
    ours = {renamed.get(key, key): feature for key, feature in driver.features.items()}
    for kind, expected in ((ACTION, spec.action_names), (OBS_STATE, spec.state_names)):
        found = tuple(ours.get(kind, {}).get("names") or ())
        if found != expected:
            order = "in another order" if sorted(found) == sorted(expected) else "other joints"
            raise ValueError(
                f"{kind} of robot {driver.robot_type!r} has {order}: {', '.join(found) or 'none'}, the model "
                f"({spec.name}) {', '.join(expected)}: drive the robot that the model was trained for, or "
                "give --embodiment=NAME where the server knows several"
            )
    cameras = {key: list(feature["shape"][:2]) for key, feature in ours.items() if len(feature["shape"]) == 3}
    for key in (camera.key for camera in spec.cameras):
        if key not in cameras:
            spare = next((k for k in cameras if k not in [c.key for c in spec.cameras]), "observation.images.NAME")
            raise ValueError(
                f"the model ({spec.name}) sees {key}, the robot has {', '.join(cameras) or 'no camera'}: name the "
                f'camera so in --robot.cameras, or give --rename_map=\'{{"{spare}": "{key}"}}\''
            )
        if key in pictures and cameras[key] != list(pictures[key]):
            sizes = " and ".join(f"{height}x{width}" for height, width in (cameras[key], pictures[key]))
            logger.warning(f"{key}: the camera's and the training's pictures have {sizes} pixels; every one is resized")
