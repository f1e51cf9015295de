"""The command line: `lerobot-wam <verb>`, one file a verb."""
