"""The broker: the embedded one, the way to any, what is asked of it, and what of a message is believed."""
