#!/usr/bin/env bash
# Stage video of a recipe (RECIPE, humansense_7b); further options go to omnistage run.
exec "$(dirname "${BASH_SOURCE[0]}")/stage.sh" "${STAGE:-video}" "$@"
