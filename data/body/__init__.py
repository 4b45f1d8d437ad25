"""The human body of a pose: 24 joints with SMPL's names and parents, their places, how far two poses are apart, and pictures of them."""
