"""The language model: where it comes from, how it is fine-tuned in 4 bits, and how it scores events."""
