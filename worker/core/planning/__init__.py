"""Which lines are reviewed, in which requests: budget, rules, splitting, packing, rendering."""
