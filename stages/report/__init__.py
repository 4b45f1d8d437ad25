"""A run to look at: what its directory says, collected as plain data, chosen rollouts with their clips, and one page of all that."""
