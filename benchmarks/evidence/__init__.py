"""How much of what changed lines name a request shows, and what that costs in tokens."""
