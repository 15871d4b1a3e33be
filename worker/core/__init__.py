"""Pure: values in, values out. No network, queue, clock, log or environment."""
