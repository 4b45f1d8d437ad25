#!/usr/bin/env bash
# One stage of a recipe and what it needs before it; the same command goes on where it stopped.
#
#   launch/scripts/stage.sh STAGE [--set KEY=VALUE ...]
#
# RECIPE     YAML file or name of a shipped recipe (humansense_7b)
# OMNISTAGE  the command (omnistage; .venv/bin/omnistage where it is there)
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
# shellcheck source=launch/scripts/command.sh
source "$here/command.sh"
stage="${1:?which stage? for example: $0 video}"
shift
exec "${OMNISTAGE[@]}" run "${RECIPE:-humansense_7b}" --until "$stage" "$@"
