#!/usr/bin/env bash
# A checkpoint's scores on a benchmark.
#
# CHECKPOINT  model folder or Hugging Face id
# BENCHMARK   humansense (the default), gen3dhf, pose, hisbench, instit, choice, open
# DATA        annotation files, separated by spaces
# OUT         folder for predictions and scores (results/BENCHMARK)
# PROCESSES   one per GPU (1)
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
# shellcheck source=launch/scripts/command.sh
source "$here/command.sh"
benchmark="${BENCHMARK:-humansense}"
read -r -a data <<<"${DATA:?annotation files, separated by spaces}"
exec "${OMNISTAGE[@]}" evaluate "${CHECKPOINT:?model folder or Hugging Face id}" --benchmark "$benchmark" --data "${data[@]}" \
  --out "${OUT:-results/$benchmark}" --processes "${PROCESSES:-1}" "$@"
