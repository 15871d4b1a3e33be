"""The HTTP door: webhooks, requests for reviews, health, metrics, the status page."""
