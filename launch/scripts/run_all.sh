#!/usr/bin/env bash
# All stages of a recipe in order, one process tree a stage; the same command goes on where it stopped.
#
# RECIPE     YAML file or name of a shipped recipe (humansense_7b)
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
# shellcheck source=launch/scripts/command.sh
source "$here/command.sh"
exec "${OMNISTAGE[@]}" run "${RECIPE:-humansense_7b}" "$@"
