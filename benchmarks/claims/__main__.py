"""The paper's claims at a size anyone can run: `python -m benchmarks.claims CLAIM --scale=cpu`.

CLAIM is `prior` (the video model that ours starts from), `a` (unseen tasks and scenes), `b` (video of other robots),
`c` (a new robot from play), `d` (one denoising step), `counterfactual` (dreams of given actions), `scaling`,
`mechanism` (ours without one part after the other), `video_weight` (how much imagining should count), `harder` (longer
and contact-rich tasks), `repeat` (cells measured twice), or `page`, which draws up what has been measured so far.
"""

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module

from benchmarks.claims.cells import chosen, missing, records, run, summarise
from benchmarks.claims.scales import SCALES

CLAIMS = {
    "prior": "prior",
    "a": "a_generalisation",
    "b": "b_video",
    "c": "c_new_robot",
    "d": "d_flash",
    "counterfactual": "counterfactual",
    "scaling": "scaling",
    "mechanism": "mechanism",
    "video_weight": "video_weight",
    "harder": "harder",
    "repeat": "repeat",
}
"""Key on the command line -> module, which has

- `TITLE`, a heading,
- `cells(scale)`, its cells in the order in which they decide, and
- `report(scale, records)`, a `findings.Report` of those cells' results that are there.
"""


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.claims", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("claim", choices=(*CLAIMS, "page"))
    parser.add_argument("--scale", choices=SCALES, required=True)
    parser.add_argument("--only", default="*", metavar="PATTERN", help="cells whose name matches, such as 'ours_*'")
    parser.add_argument("--seeds", help="such as 0,1 (default: all of the scale)")
    parser.add_argument("--list", action="store_true", help="print the cells that are missing, and do nothing")
    args = parser.parse_args(argv)
    scale = SCALES[args.scale]
    if args.claim == "page":
        from benchmarks.claims.page import write

        print(write(scale, CLAIMS))
        return
    claim = import_module(f"benchmarks.claims.{CLAIMS[args.claim]}")
    cells = claim.cells(scale)
    wanted = chosen(cells, args.only, [int(seed) for seed in args.seeds.split(",")] if args.seeds else None)
    if not wanted:
        sys.exit(f"no cell of claim {args.claim} matches --only={args.only!r} --seeds={args.seeds}: see --list")
    if args.list:
        print(*(cell.name for cell in missing(scale, wanted)), sep="\n")
        return
    if scale.device == "cpu":
        import torch

        torch.set_num_threads(1)
    run(scale, wanted)
    measured = records(scale, cells)
    summarise(scale, args.claim, claim.report(scale, measured), measured)


if __name__ == "__main__":
    main()
