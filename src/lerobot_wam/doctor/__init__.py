"""What is in a checkpoint, and whether it fits a dataset or a robot; from its headers alone."""
