# shellcheck shell=bash
# How omnistage is called: as the environment says, else from .venv beside the scripts, else from the path.
if [[ -n "${OMNISTAGE:-}" ]]; then
  read -r -a OMNISTAGE <<<"$OMNISTAGE"
elif [[ -x "$(dirname "${BASH_SOURCE[0]}")/../../.venv/bin/omnistage" ]]; then
  OMNISTAGE=("$(dirname "${BASH_SOURCE[0]}")/../../.venv/bin/omnistage")
else
  OMNISTAGE=(omnistage)
fi
