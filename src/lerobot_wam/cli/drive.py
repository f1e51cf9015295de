"""Drive a robot here with a model elsewhere, which lerobot-wam serve holds.

Takes every flag of lerobot-rollout but --policy.path, so every robot, way to record and inference engine of LeRobot
works as it does beside the model; --fps is the model's unless given. While the server is away the robot is held still.

example:
  lerobot-wam drive --server=ws://gpu:8000 --token-file=token.txt --task="push the red cube to the left" \\
      --robot.type=so101_follower --robot.port=/dev/ttyACM0 \\
      --robot.cameras="{front: {type: opencv, index_or_path: 0, width: 640, height: 480, fps: 30}}"
"""

import argparse

HELP = "drive a robot with a model elsewhere (every flag of lerobot-rollout)"
PASSES_ON = True
"""Flags that are not ours are lerobot-rollout's."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this verb's own options."""
    parser.add_argument("--server", required=True, metavar="URL", help="ws://HOST:PORT or wss://HOST:PORT")
    parser.add_argument("--embodiment", default="", metavar="NAME", help="which of the server's robots this is")
    parser.add_argument("--token-file", metavar="FILE", help="the token that the server was started with")
    parser.add_argument("--ca-file", metavar="FILE", help="certificate authority of the server's certificate (wss)")
    parser.add_argument(
        "--jpeg", type=int, metavar="QUALITY", help="send pictures as JPEG, 1 to 95; not exact (default: as they are)"
    )


def run(args: argparse.Namespace) -> int:
    """Drive."""
    import lerobot_wam.plugin  # noqa: F401  (LeRobot's own programs register plugins before they parse)
    from lerobot_wam.remote.driving import drive

    drive(args.passed_on, args.server, args.embodiment, args.token_file, args.ca_file, args.jpeg)
    return 0
