#!/usr/bin/env bash
# Times and trains the CIFAR-10 recipes on a GPU:
#
#   benchmarks/gpu.sh DATA MINUTES [--output DIR] [--state DIR] [--steps N] [--slice SECONDS] [--compile] [--skip-timing]
#   benchmarks/gpu.sh --dry-run [--output DIR]      everything on the CPU, tiny and synthetic, in under a minute
#
# DATA holds cifar10/ as Parquet files (the layout of $VICINAL_DATA). Needs a python3 with torch and the packages of
# pyproject.toml (another interpreter: PYTHON=...); nothing is installed, this source tree is used as it stands.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
export PYTHONPATH="$here/../src${PYTHONPATH:+:$PYTHONPATH}"
exec "${PYTHON:-python3}" -u "$here/gpu.py" "$@"
