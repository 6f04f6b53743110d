"""How a loaded sentence encoder runs: the same token ids in, the same unit vectors out, on different devices."""
