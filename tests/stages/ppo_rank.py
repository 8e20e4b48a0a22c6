"""One rank of a PPO stage on the toy data of test_ppo.py: `python -m tests.stages.ppo_rank PICKLED_ARGUMENTS`."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path

import torch

from rlhf import distributed
from tests.stages import test_ppo

if __name__ == "__main__":
    torch.set_num_threads(1)
    config, parents, folder, resume = pickle.loads(Path(sys.argv[1]).read_bytes())
    distributed.join(config.launch.device)
    test_ppo.run(config, parents, folder, resume=resume)
