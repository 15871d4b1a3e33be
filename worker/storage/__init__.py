"""Redis behind ports; each Lua script lies in a file of its own."""
