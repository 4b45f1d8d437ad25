"""What a completion can be worth: one file a family."""
