"""One rank of a PPO stage on the toy data of test_ppo.py: `python -m tests.support.ppo_rank PICKLED_ARGUMENTS`."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path

import torch

from rlhf.runtime import distributed
from rlhf.training import zero
from tests.stages import test_ppo

if __name__ == "__main__":
    torch.set_num_threads(1)
    config, parents, folder, resume, persistent_numbers = pickle.loads(Path(sys.argv[1]).read_bytes())
    zero.PERSISTENT_NUMBERS = persistent_numbers
    distributed.join(config.launch.device, alone=config.zero.stage > 0)
    test_ppo.run(config, parents, folder, resume=resume)
