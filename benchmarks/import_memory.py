"""Memory of an import, and what a kill costs it.

Generates a checkpoint in the official DreamZero layout (random bfloat16 weights, shards of more than 1 GB), imports it
in a process of its own and reads that process's peak memory; then imports it again, kills the process with SIGKILL
when half of the output is there, starts it once more, and compares every file's sha256 with the first import's.

Needs four times the checkpoint's size on disk and deletes it afterwards.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from huggingface_hub import split_torch_state_dict_into_shards
from safetensors.torch import save_file

from benchmarks.common import command_line, write_result
from lerobot_wam.model.config import ModelConfig
from lerobot_wam.model.world_action_model import WorldActionModel

GB = 1e9
SHARD = "1200MB"
SETTINGS = ("text_codec=word_hash", "video_codec=dct")  # nothing to look for on the Hub
NETWORK = ModelConfig(
    dim=2048,
    num_heads=16,
    num_layers=24,
    ffn_dim=8192,
    text_dim=4096,
    latent_channels=16,
    condition_channels=20,
    image_dim=1280,
    action_dim=32,
    state_dim=64,
)


def generate(folder: Path, seed: int) -> list[Path]:
    """Write the checkpoint, a shard at a time, and return its shards."""
    with torch.device("meta"):
        state = WorldActionModel(NETWORK).to(torch.bfloat16).state_dict()
    named = {f"action_head.model.{name}": tensor for name, tensor in state.items()}
    plan = split_torch_state_dict_into_shards(named, max_shard_size=SHARD)
    generator = torch.Generator().manual_seed(seed)
    for file, names in plan.filename_to_tensors.items():
        shard = {n: torch.empty_like(named[n], device="cpu").uniform_(-1, 1, generator=generator) for n in names}
        save_file(shard, folder / file)
    index = {"metadata": plan.metadata, "weight_map": plan.tensor_to_filename}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    network = {
        "model_type": "i2v",
        "num_heads": NETWORK.num_heads,
        "num_frame_per_block": NETWORK.frames_per_chunk,
        "num_action_per_block": NETWORK.actions_per_chunk,
        "num_state_per_block": NETWORK.states_per_chunk,
        "max_chunk_size": NETWORK.max_chunks,
    }
    head = {"config": {"diffusion_model_cfg": network}}
    (folder / "config.json").write_text(json.dumps({"architectures": ["VLA"], "action_head_cfg": head}))
    return [folder / file for file in plan.filename_to_tensors]


def start(source: Path, out: Path) -> subprocess.Popen[bytes]:
    """Begin an import in a process of its own."""
    words = [sys.executable, "-m", "lerobot_wam.cli.main", "import", str(source), f"--out={out}"]
    return subprocess.Popen([*words, *(f"--set={setting}" for setting in SETTINGS)])


def finish(process: subprocess.Popen[bytes]) -> float:
    """Wait for an import and return the peak of its resident memory, mapped files included, in bytes.

    Read from Linux's /proc: what wait4 reports is never below the parent's memory at the fork.
    """
    peak = 0.0
    while process.poll() is None:
        status = Path(f"/proc/{process.pid}/status").read_text()
        peak = max([peak, *(1024.0 * int(line.split()[1]) for line in status.splitlines() if "VmHWM" in line)])
        time.sleep(0.05)
    if process.returncode:
        raise SystemExit(f"the import failed with status {process.returncode}")
    return peak


def finished_shards(out: Path) -> list[Path]:
    return sorted(out.glob("model-*.safetensors"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0, help="seed of the weights (default: 0)")
    parser.add_argument("--folder", type=Path, help="where there is room (a temporary folder)")
    args = parser.parse_args()
    work = Path(tempfile.mkdtemp(dir=args.folder))
    try:
        source, whole, resumed = work / "checkpoint", work / "whole", work / "resumed"
        source.mkdir()
        shards = generate(source, args.seed)
        largest = max(shard.stat().st_size for shard in shards)

        began = time.perf_counter()
        peak = finish(start(source, whole))
        seconds = time.perf_counter() - began
        wanted = len(finished_shards(whole))

        process = start(source, resumed)
        while len(finished_shards(resumed)) < wanted // 2:
            if process.poll() is not None:
                raise SystemExit("the import was over before it could be killed")
            time.sleep(0.05)
        process.kill()
        process.wait()
        kept = {shard: shard.stat().st_mtime_ns for shard in finished_shards(resumed)}
        began = time.perf_counter()
        peak_resumed = finish(start(source, resumed))
        seconds_resumed = time.perf_counter() - began
        rewritten = [shard.name for shard, stamp in kept.items() if shard.stat().st_mtime_ns != stamp]
        files = [json.loads((out / "manifest.json").read_text())["files"] for out in (whole, resumed)]
        metrics = {
            "checkpoint_gb": sum(shard.stat().st_size for shard in shards) / GB,
            "source_shards": len(shards),
            "largest_source_shard_gb": largest / GB,
            "output_shards": wanted,
            "peak_memory_gb": peak / GB,
            "allowed_memory_gb": largest / GB + 2,
            "import_s": seconds,
            "shards_before_kill": len(kept),
            "shards_written_again": len(rewritten),
            "resumed_peak_memory_gb": peak_resumed / GB,
            "resumed_import_s": seconds_resumed,
            "same_sha256_as_uninterrupted": files[0] == files[1],
        }
        print(json.dumps(metrics, indent=1))
        write_result("import_memory", metrics, args.seed, command_line("import_memory", sys.argv[1:]))
    finally:
        shutil.rmtree(work)


if __name__ == "__main__":
    main()
