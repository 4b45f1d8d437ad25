"""The prompt once: a forward over `[prompt | completion 1 | ... | completion G]` in place of G copies of the prompt.

`layout` packs groups into one row, `attention` lets each completion see the prompt and itself, `forward` makes log-probs of it, `check`
compares with the plain way, `decode` samples completions over one copy of the prompt's keys and values, `graphed` makes a
CUDA graph of its steps.
"""
