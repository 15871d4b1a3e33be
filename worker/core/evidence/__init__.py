"""Code from elsewhere in the repository that a reviewer would look up: chosen, named, capped. Pure."""
