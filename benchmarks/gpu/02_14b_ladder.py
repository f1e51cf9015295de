"""One chunk of the 14B network, item by item: plain eager, nothing twice, attention, compiled, CUDA graphs, FP8.

Each at 8 of 16 steps with guidance ("official"), 4 steps without ("fast") and 1 step ("flash").
"""

from benchmarks.gpu.frame import script_name
from benchmarks.gpu.ladder import run


def main(words: list[str] | None = None) -> None:
    run(script_name(__file__), "wan2.1-14b", __doc__, words)


if __name__ == "__main__":
    main()
