"""Other people's checkpoints in: official DreamZero, their LoRA fine-tunes, and the Wan bases."""
