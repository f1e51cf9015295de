"""Serve a policy to robots that are far from the GPU: one model, many robots.

A robot connects with `lerobot-wam drive`, or with the bare client of lerobot_wam.serving.client. Without --host only
programs on this machine can connect; any other address needs a token, which robots send too:

  python -c "import secrets; print(secrets.token_urlsafe())" > token && chmod 600 token

GET /healthz, /readyz and /metrics (Prometheus) answer at the same port. Ctrl-C or SIGTERM finishes the chunk in hand.

examples:
  lerobot-wam serve --policy.path=outputs/train/checkpoints/last/pretrained_model
  lerobot-wam serve --policy.path=me/policy --policy.device=cuda --policy.speed=fast --dashboard
  lerobot-wam serve --policy.path=... --host=0.0.0.0 --token-file=token --tls-cert=cert.pem --tls-key=key.pem
"""

import argparse
import asyncio
import logging
import signal
from pathlib import Path
from typing import TYPE_CHECKING

from lerobot_wam.serving.settings import ServeSettings, read_token

if TYPE_CHECKING:
    from lerobot_wam.serving.server import Server

HELP = "serve a policy to robots far from the GPU"
PASSES_ON = True
"""Flags that are not ours are the policy's: --policy.FIELD=VALUE."""

_PATH, _PREFIX = "--policy.path", "--policy."
_OPTIONS = {
    "host": "address to listen at",
    "port": "TCP port; 0 takes a free one",
    "max_message_mb": "largest message, in MiB",
    "rate_limit": "messages a second that one client may send",
    "max_sessions": "robots, those that may come back included",
    "max_connections": "connections of any kind",
    "max_batch": "robots whose chunks are computed at once",
    "memory_gb": "memory of the robots' windows, in GB; beyond it, those unseen longest begin anew",
    "session_timeout": "seconds that a vanished robot's session is kept",
    "idle_timeout": "seconds of silence until a connection is closed",
    "handshake_timeout": "seconds that a client has to say who it is",
    "send_timeout": "seconds that a client has to read an answer",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's options."""
    parser.add_argument(
        _PATH, dest="policy_path", required=True, metavar="DIR", help="checkpoint: folder, or id on the Hub"
    )
    defaults = ServeSettings()
    for name, text in _OPTIONS.items():
        default = getattr(defaults, name)
        option = f"--{name.replace('_', '-')}"
        parser.add_argument(option, type=type(default), default=default, metavar="X", help=f"{text} ({default})")
    parser.add_argument("--token-file", type=Path, metavar="FILE", help="who connects must present the token in it")
    parser.add_argument("--insecure", action="store_true", help="listen beyond this machine without a token")
    parser.add_argument(
        "--tls-cert", type=Path, metavar="FILE.pem", help="certificate chain: serve wss:// and https://"
    )
    parser.add_argument("--tls-key", type=Path, metavar="FILE.pem", help="its private key")
    parser.add_argument("--dashboard", action="store_true", help="serve the live page")


def run(args: argparse.Namespace) -> int:
    """Serve until a signal ends it.

    Raises:
        FileNotFoundError: No such checkpoint, token or certificate.
        ValueError: Settings that do not fit, or are not safe.
        OSError: The port is taken.
    """
    token = None if args.token_file is None else read_token(args.token_file)
    settings = ServeSettings(
        **{name: getattr(args, name) for name in _OPTIONS},
        token=token,
        insecure=args.insecure,
        tls_cert=args.tls_cert,
        tls_key=args.tls_key,
        dashboard=args.dashboard,
    )  # before the imports, which take seconds
    overrides = [f"--{word.removeprefix(_PREFIX)}" for word in args.passed_on]
    if strange := [word for word in args.passed_on if not word.startswith(_PREFIX)]:
        raise ValueError(f"unrecognized arguments: {' '.join(strange)}; the policy's begin with {_PREFIX}")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    from lerobot.configs import PreTrainedConfig

    from lerobot_wam.approximations import approximations
    from lerobot_wam.configuration_wam import WAMConfig
    from lerobot_wam.modeling_wam import WAMPolicy
    from lerobot_wam.serving.monitor import Monitor
    from lerobot_wam.serving.server import Server

    config = PreTrainedConfig.from_pretrained(args.policy_path, cli_overrides=overrides)
    if not isinstance(config, WAMConfig):
        raise ValueError(f"{args.policy_path} holds a policy of type {config.type!r}: only 'wam' policies are served")
    policy = WAMPolicy.from_pretrained(args.policy_path, config=config)
    monitor = Monitor(str(args.policy_path), approximations(config)) if settings.dashboard else None
    asyncio.run(_serve(Server(policy, settings, monitor)))
    return 0


async def _serve(server: "Server") -> None:
    ended, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ended.set)
    async with server.listening() as address:
        print(f"warming up; robots can connect: lerobot-wam drive --server={address} ...", flush=True)
        ending = asyncio.create_task(ended.wait())
        ready = asyncio.create_task(server.wait_until_ready())
        await asyncio.wait([ready, ending], return_when=asyncio.FIRST_COMPLETED)
        if ready.done():
            ready.result()
            print(f"ready: {', '.join(space.spec.name for space in server.policy.action_spaces)}", flush=True)
            if server.monitor is not None:
                print(f"live page: {address.replace('ws', 'http', 1)}/", flush=True)
            await ending
        print("shutting down: the chunk in hand is finished", flush=True)
