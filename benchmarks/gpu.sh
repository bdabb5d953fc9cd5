#!/usr/bin/env bash
# What issue 15 asks of a GPU, in under five minutes: right numbers first, then ratios to a plain training step.
#   benchmarks/gpu.sh                      with the environment that has fishlens[madx] (PYTHON=path/to/python)
#   DEVICE=cpu QUICK=1 benchmarks/gpu.sh   does it run at all?
# Peers are timed where they are installed: pip install opacus curvlinops-for-pytorch nngeometry
set -euo pipefail
cd "$(dirname "$0")/.."
python="${PYTHON:-python}"
device="${DEVICE:-cuda}"
export CUBLAS_WORKSPACE_CONFIG=:4096:8 TOKENIZERS_PARALLELISM=false PYTHONPATH=".${PYTHONPATH:+:$PYTHONPATH}"
shape=(--rounds 7 --no-memory) tracking=(--rounds 5) overhead=(--rounds 21)
if [ -n "${QUICK:-}" ]; then
  shape=(--layers 2 --width 64 --examples 4 --tokens 16 --rounds 1 --no-memory)
  tracking=(--tiny --rounds 1)
  overhead=(--rounds 1)
fi
status=0
command -v nvidia-smi > /dev/null && nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader
echo "## Right numbers, the same bits, waits"
timeout 90 "$python" benchmarks/gpu.py --device "$device" || status=1
echo "## Ratios to plain, XLM-R-base shape"
timeout 100 "$python" benchmarks/fisher.py --device "$device" "${shape[@]}" || status=1
echo "## Where launches are the cost"
timeout 60 "$python" benchmarks/overhead.py --device "$device" "${overhead[@]}" || status=1
echo "## Tracking 32 examples every 50 updates"
timeout 60 "$python" benchmarks/tracking.py "${tracking[@]}" || status=1
exit "$status"
