"""Completions drawn by vLLM in place of the policy: what it is asked for each prompt (`requests`), TRL's generation with media and with a
thinker's weights (`generation`), and what must be installed (`requirements`)."""
