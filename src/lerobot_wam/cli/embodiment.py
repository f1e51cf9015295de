"""Describe a robot for the policy.

example:
  lerobot-wam embodiment from-gear --dataset.root=droid_v3 --modality=droid_old/meta/modality.json --tag=oxe_droid \\
      --out=droid.yaml --dataset.out=droid_wam
"""

import argparse
from pathlib import Path

HELP = "describe a robot: embodiment files from other metadata"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the sub-verbs, one a source or purpose."""
    verbs = parser.add_subparsers(metavar="WHAT", required=True)
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


def run(args: argparse.Namespace) -> int:
    """Do what the sub-verb says."""
    return args.act(args)


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
