"""What a policy imagined, beside what happened: clips, numbers and one self-contained HTML page."""
