"""What a recipe would need and take, said before a device is used: parameters, tokens, memory, time, disk (`omnistage plan`).

No weights are loaded: parameters are counted on the meta device, tokens on a sample of the real rows, memory and time by the formulas that
stand in `memory` and `step_time`.
"""
