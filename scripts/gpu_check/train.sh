#!/usr/bin/env bash
# The training on a GPU machine. scripts/gpu_check/parts/train.py sets DEVICE, MINUTES, PHOTOGRAPHS (a folder), RENDERED
# (RGB-D sequences, separated by colons), FEATURE_FRONTEND_WEIGHTS (the folder with the teacher), OUTPUT, WORKERS and
# PYTHON, and keeps the checkpoint.
# To continue a training later: put its checkpoint into OUTPUT as checkpoint.pt and add --resume.
set -euo pipefail

rgbd=()
IFS=: read -r -a sequences <<<"$RENDERED"
for sequence in "${sequences[@]}"; do rgbd+=(--rgbd "$sequence"); done

if [[ $DEVICE == cpu ]]; then
  # A rehearsal: float16 requires a GPU.
  size=(--precision bfloat16 --map-size 96 --batch-size 1 --teacher aliked-t16 --validation-pairs 2 --validation-keypoints 200)
else
  size=(--precision float16 --map-size 320 --batch-size 16 --teacher aliked-n16 --warmup-steps 200 --validation-pairs 60)
fi

exec "$PYTHON" -m feature_frontend train --model dotlet --device "$DEVICE" --images "$PHOTOGRAPHS" "${rgbd[@]}" \
  "${size[@]}" --workers "$WORKERS" --minutes "$MINUTES" --save-every 30 --validate-every 500 --output "$OUTPUT" \
  --data-licence "shared/images/free: pop-os wallpapers (public domain), CLIC 2025 (Unsplash Licence), Kodak (unrestricted), gb82 (CC0), Budgie backgrounds (CC0); rendered scenes of this project (Apache-2.0)"
