#!/usr/bin/env bash
# The training on a GPU machine. scripts/gpu_check/parts/train.py sets DEVICE, MINUTES, PHOTOGRAPHS (a folder), RENDERED
# (RGB-D sequences, separated by colons), OUTPUT, WORKERS and PYTHON, and keeps the checkpoint.
# To continue a training later: put its checkpoint into OUTPUT as checkpoint.pt and add --resume.
set -euo pipefail

rgbd=()
IFS=: read -r -a sequences <<<"$RENDERED"
for sequence in "${sequences[@]}"; do rgbd+=(--rgbd "$sequence"); done

if [[ $DEVICE == cpu ]]; then
  # A rehearsal: float16 requires a GPU.
  size=(--precision bfloat16 --map-size 96 --batch-size 1 --accumulate 1 --validation-pairs 2 --validation-keypoints 200)
else
  size=(--precision float16 --map-size 480 --batch-size 6 --accumulate 1 --warmup-steps 200 --validation-pairs 60)
fi

exec "$PYTHON" -m feature_frontend train --model aliked-t16 --device "$DEVICE" --images "$PHOTOGRAPHS" "${rgbd[@]}" \
  "${size[@]}" --workers "$WORKERS" --minutes "$MINUTES" --save-every 30 --validate-every 500 --output "$OUTPUT" \
  --data-licence "shared/images/free: pop-os wallpapers (public domain), CLIC 2025 (Unsplash Licence), Kodak (unrestricted), gb82 (CC0), Budgie backgrounds (CC0); rendered scenes of this project (Apache-2.0)"
