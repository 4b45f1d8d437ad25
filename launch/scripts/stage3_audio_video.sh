#!/usr/bin/env bash
# Stage audio_video of a recipe (RECIPE, humansense_7b); further options go to omnistage run.
exec "$(dirname "${BASH_SOURCE[0]}")/stage.sh" "${STAGE:-audio_video}" "$@"
