"""Damaged messages are refused in one line, whatever is in them, and robots that behave are served meanwhile.

Ten thousand of them: `make soak`.
"""

import random
import threading
import time
from collections import Counter

import numpy as np
import pytest
import torch
from served_policies import served, untrained_policy

from benchmarks.fuzzing import attack, mutated, requests
from lerobot_wam.embodiments.spec import load_embodiment
from lerobot_wam.serving import openpi, protocol
from lerobot_wam.serving.client import WAMClient
from lerobot_wam.serving.limits import LIMITS

SIZE = (32, 32)
ARM = load_embodiment("wam_sim_viperx")
SPOKEN = requests(ARM, SIZE)


@pytest.mark.parametrize("path", sorted(SPOKEN))
def test_a_damaged_message_is_read_or_refused_in_one_line(path):
    unpack = protocol.unpack if path == protocol.PATH else lambda data: openpi.unpack(data, LIMITS)
    rng, refusals = random.Random(0), list[protocol.ProtocolError]()
    for _ in range(3000):
        try:
            assert isinstance(unpack(mutated(rng.choice(SPOKEN[path]), rng)), dict)
        except protocol.ProtocolError as error:
            refusals.append(error)
    assert 1000 < len(refusals) < 3000
    assert {refusal.code for refusal in refusals} <= set(protocol.CODES)
    assert all(len(text) < 500 and "\n" not in text for text in map(str, refusals))


def test_undamaged_messages_are_read():
    assert all(protocol.unpack(data)["type"] for data in SPOKEN[protocol.PATH])
    assert all(openpi.unpack(data, LIMITS)["endpoint"] for data in SPOKEN["/"])


def test_a_server_under_damaged_messages_serves_a_good_robot_as_if_alone():
    policy = untrained_policy(ARM, SIZE)
    near = untrained_policy(ARM, SIZE)
    rng, answers, camera = np.random.default_rng(0), Counter[str](), ARM.cameras[0].key
    with served(policy) as server, WAMClient(server.url, timeout_s=60) as good:
        attacker = threading.Thread(target=lambda: answers.update(attack(server.url, SPOKEN, 200, random.Random(1))))
        attacker.start()
        while attacker.is_alive():
            picture, state = rng.integers(0, 256, (*SIZE, 3), np.uint8), rng.random(len(ARM.state), np.float32)
            batch = {
                camera: (torch.from_numpy(picture).float() / 255).permute(2, 0, 1).contiguous()[None],
                "observation.state": torch.from_numpy(state)[None],
                "task": ["push red"],
            }
            action = good.act({camera: picture}, state, "push red")
            np.testing.assert_array_equal(action, near.select_action(batch)[0].numpy())
            time.sleep(0.02)
        assert good.held == good.outages == 0
    assert answers["bad_message"] > 10
    assert "internal" not in answers
