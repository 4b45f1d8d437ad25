"""Heads: small networks on one hidden state of the policy that put out numbers (opinion scores, poses).

`spec` says what a head is (no torch), `codec` turns answers into targets and outputs into values, `anchor` finds the states that a head
reads, `network` computes, `carried` puts heads into a policy and its checkpoints, `predict` reads values of a trained one,
`words` levels off a policy that answers in words.
"""
