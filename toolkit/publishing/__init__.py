"""A run made ready for others: its card, what of it goes onto the hub, and the way there."""
