from __future__ import annotations

import sys
from pathlib import Path

import torch

torch.set_num_threads(1)
# The benchmarks are scripts beside the package: they find each other as they do when one of them is run.
sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
