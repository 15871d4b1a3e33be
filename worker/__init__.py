"""kimi-review: reviews pull requests with Kimi. Nothing dropped, nothing lost, nothing posted twice."""

__version__ = "0.1.0"
