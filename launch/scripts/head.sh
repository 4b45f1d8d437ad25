#!/usr/bin/env bash
# A supervised head: opinion scores (RECIPE=gen3dhf_mos, the default) or body poses (RECIPE=chatpose); all stages of that recipe.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
# shellcheck source=launch/scripts/command.sh
source "$here/command.sh"
exec "${OMNISTAGE[@]}" run "${RECIPE:-gen3dhf_mos}" "$@"
