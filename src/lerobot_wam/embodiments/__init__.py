"""What a robot is to the model: cameras, dimensions, timing, prompt, and its actions as numbers around zero."""
