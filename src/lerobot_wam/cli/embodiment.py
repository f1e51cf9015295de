"""Describe robots for the policy: cameras, numbers with their units and limits, timing and prompt, in one YAML file.

An EMBODIMENT is a built-in name, one of LeRobot's robot types that a built-in one answers to, or the path of your file.

examples:
  lerobot-wam embodiment list
  lerobot-wam embodiment show so101
  lerobot-wam embodiment new --dataset.repo_id=me/so101_tasks --out=my_arm.yaml
  lerobot-wam embodiment new --robot.type=so101_follower --out=my_arm.yaml \\
      --robot.cameras='{top: {type: opencv, index_or_path: 0, width: 640, height: 480, fps: 30}}'
  lerobot-wam embodiment check my_arm.yaml --dataset.repo_id=me/so101_tasks --robot.type=so101_follower
  lerobot-wam embodiment check so101 --policy.path=outputs/train/checkpoints/last/pretrained_model
  lerobot-wam embodiment from-gear --dataset.root=droid_v3 --modality=droid_old/meta/modality.json --tag=oxe_droid \\
      --out=droid.yaml --dataset.out=droid_wam
"""

import argparse
from pathlib import Path

HELP = "describe robots: built-in ones, drafts from a dataset or a driver, checks"
MISFIT = 2
ROBOT_FPS = 30
"""`lerobot-record`'s own rate where none is given."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the sub-verbs."""
    verbs = parser.add_subparsers(metavar="WHAT", required=True)
    listing = verbs.add_parser("list", help="the built-in ones", description="List the built-in embodiments.")
    listing.set_defaults(act=_list)

    show = verbs.add_parser(
        "show", help="one embodiment in full", description="Show an embodiment.", allow_abbrev=False
    )
    show.add_argument("embodiment", metavar="EMBODIMENT", help="built-in name, robot type or path of a YAML file")
    show.add_argument("--yaml", action="store_true", help="as a file to start from")
    show.set_defaults(act=_show)

    new = verbs.add_parser(
        "new",
        help="draft one from a dataset or from LeRobot's driver of a robot",
        description="Write a complete embodiment from what a dataset or LeRobot's driver of a robot declares. Look it "
        "over: neither knows units, limits and which actions are relative, unless the robot is a built-in one. A "
        "driver is built, not connected; it takes the --robot flags of lerobot-record.",
        allow_abbrev=False,
    )
    _add_sources(new)
    new.add_argument("--fps", type=float, help=f"of a robot: control steps per second ({ROBOT_FPS})")
    new.add_argument("--name", help="of the embodiment (the built-in robot's, else the robot type)")
    new.add_argument("--out", type=Path, metavar="FILE.yaml", help="the file to write (printed)")
    new.set_defaults(act=_new, passes_on=True)

    check = verbs.add_parser(
        "check",
        help="hold one against a dataset, a driver and a checkpoint",
        description="Say all that does not fit, and the way out. Ends with 2 if something does not fit. Of a "
        "checkpoint only config.json is read; a driver is built, not connected.",
        allow_abbrev=False,
    )
    check.add_argument("embodiment", metavar="EMBODIMENT", help="built-in name, robot type or path of a YAML file")
    _add_sources(check)
    check.add_argument("--policy.path", dest="policy", metavar="PATH|HUB_ID", help="the checkpoint to act or adapt")
    check.set_defaults(act=_check, passes_on=True)

    gear = verbs.add_parser(
        "from-gear",
        help="a GEAR dataset (LeRobot v2 + modality.json), after LeRobot's conversion to v3",
        description="Write the embodiment of a GEAR dataset that LeRobot's own converter has brought to v3. Where the "
        "model uses only some of the recorded numbers, also write a copy of the dataset that holds just these.",
        allow_abbrev=False,
    )
    gear.add_argument("--dataset.root", dest="root", type=Path, required=True, metavar="DIR", help="the v3 dataset")
    gear.add_argument("--modality", type=Path, required=True, metavar="FILE", help="meta/modality.json of the original")
    gear.add_argument("--tag", required=True, help="embodiment tag (oxe_droid, agibot, yam), or a name of your own")
    for name, what in (
        ("video", "cameras, in the order of the tiling"),
        ("state", "keys of the state vector, in order"),
        ("action", "keys of the action vector, in order"),
        ("relative", "action keys that are relative to the state"),
    ):
        gear.add_argument(f"--{name}", metavar="KEY,...", help=f"{what} (the tag's, else all that fit)")
    gear.add_argument("--out", type=Path, required=True, metavar="FILE.yaml", help="the embodiment to write")
    gear.add_argument("--dataset.out", dest="dataset_out", type=Path, metavar="DIR", help="the copy of the dataset")
    gear.set_defaults(act=_from_gear)


def _add_sources(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dataset.repo_id", dest="repo_id", metavar="ID", help="LeRobotDataset, as for lerobot-train")
    parser.add_argument("--dataset.root", dest="root", type=Path, metavar="DIR", help="its folder")
    parser.add_argument("--robot.type", dest="robot", metavar="TYPE", help="LeRobot's robot type, with its flags")


def run(args: argparse.Namespace) -> int:
    """Do what the sub-verb says."""
    if args.passed_on and args.robot is None:
        raise ValueError(
            f"unrecognized arguments: {' '.join(args.passed_on)} (a driver's flags come with --robot.type)"
        )
    return args.act(args)


def _list(args: argparse.Namespace) -> int:
    from lerobot_wam.embodiments.spec import builtin_names, load_embodiment
    from lerobot_wam.embodiments.text import overview

    print(overview([load_embodiment(name) for name in builtin_names()]))
    return 0


def _show(args: argparse.Namespace) -> int:
    from lerobot_wam.embodiments.spec import load_embodiment
    from lerobot_wam.embodiments.text import as_text

    spec = load_embodiment(args.embodiment)
    print(spec.to_yaml().rstrip() if args.yaml else as_text(spec))
    return 0


def _new(args: argparse.Namespace) -> int:
    from lerobot_wam.doctor.embodiment import dataset_metadata, draft
    from lerobot_wam.drivers import describe_driver
    from lerobot_wam.embodiments.datasets import cameras_of
    from lerobot_wam.embodiments.spec import load_embodiment
    from lerobot_wam.embodiments.text import as_text

    if (args.robot is None) == (args.repo_id is None and args.root is None):
        raise ValueError("name what to draft from: either --dataset.repo_id or --dataset.root, or --robot.type")
    if args.out is not None and args.out.exists():
        raise FileExistsError(f"{args.out} exists already: name another file with --out, or remove it")
    if args.robot is None:
        meta = dataset_metadata(args.repo_id, args.root)
        spec = draft(meta.features, meta.fps, meta.robot_type, args.name)
        source = f"the dataset {args.repo_id or args.root}"
    else:
        driver = describe_driver(args.robot, args.passed_on)
        if not cameras_of(driver.features):
            raise ValueError(
                f"robot type {args.robot!r} was given no camera, and the policy needs one: add --robot.cameras=... as "
                "for lerobot-record"
            )
        spec = draft(driver.features, args.fps or ROBOT_FPS, driver.robot_type, args.name)
        source = f"LeRobot's driver {args.robot}"
    text = f"# Drafted from {source}. Look over units, limits, grippers and what is relative.\n{spec.to_yaml()}"
    if args.out is None:
        print(text.rstrip())
        return 0
    args.out.write_text(text, encoding="utf-8")
    load_embodiment(args.out)
    print(as_text(spec))
    print(f"\nwrote {args.out}: look it over, then train with --policy.embodiment={args.out}")
    return 0


def _check(args: argparse.Namespace) -> int:
    from lerobot_wam.doctor.embodiment import against_dataset, against_driver, against_policy, dataset_metadata
    from lerobot_wam.drivers import describe_driver
    from lerobot_wam.embodiments.spec import load_embodiment
    from lerobot_wam.terminal import wrapped

    spec = load_embodiment(args.embodiment)
    found = {}
    if args.repo_id is not None or args.root is not None:
        name = f"dataset {args.repo_id or args.root}"
        found[name] = against_dataset(spec, dataset_metadata(args.repo_id, args.root))
    if args.robot is not None:
        found[f"robot {args.robot}"] = against_driver(spec, describe_driver(args.robot, args.passed_on))
    if args.policy is not None:
        found[f"checkpoint {args.policy}"] = against_policy(spec, args.policy)
    if not found:
        raise ValueError(
            "name what to hold it against: --dataset.repo_id, --dataset.root, --robot.type or --policy.path"
        )
    for what, (problems, notes) in found.items():
        print(f"{what}: {'does not fit' if problems else 'fits'}")
        for mark, texts in (("misfit", problems), ("note", notes)):
            for text in texts:
                print(wrapped(f"  {mark}: {text}"))
    return MISFIT if any(problems for problems, _ in found.values()) else 0


def _from_gear(args: argparse.Namespace) -> int:
    import json
    from dataclasses import replace

    from lerobot_wam.data.columns import keep_columns
    from lerobot_wam.embodiments.gear import embodiment_from_modality, keys_of_dataset

    info, modality = (json.loads(file.read_text()) for file in (args.root / "meta/info.json", args.modality))
    given = {name: getattr(args, name) for name in ("video", "state", "action", "relative")}
    given = {name: tuple(filter(None, text.split(","))) for name, text in given.items() if text is not None}
    keys = replace(keys_of_dataset(modality, args.tag), **given)
    spec, columns = embodiment_from_modality(modality, float(info["fps"]), args.tag, keys)
    recorded = {feature: info["features"][feature]["shape"][0] for feature in columns}
    cut = [feature for feature, kept in columns.items() if kept != list(range(recorded[feature]))]
    if cut and args.dataset_out is None:
        uses = ", ".join(f"{len(columns[feature])} of the {recorded[feature]} numbers of {feature}" for feature in cut)
        raise ValueError(f"{args.tag} uses {uses}: name a folder for a copy with just these, --dataset.out=DIR")
    args.out.write_text(spec.to_yaml())
    print(f"wrote {args.out}: {len(spec.cameras)} cameras, state {len(spec.state)}, action {len(spec.action)}")
    if args.dataset_out is not None:
        names = {"observation.state": list(spec.state_names), "action": list(spec.action_names)}
        keep_columns(args.root, args.dataset_out, columns, names)
        print(f"wrote {args.dataset_out}: the dataset with the numbers that {args.out} describes")
    return 0
