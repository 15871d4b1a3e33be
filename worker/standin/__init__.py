"""A Kimi-shaped server that needs no key and is no model: it plays one for the demo and says so in every answer."""
