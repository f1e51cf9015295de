"""Names of what a batch of a mixture holds: windows of different robots in one form.

Shape legend: B batch, T video frames, N chunks, H actions per chunk, S and A the widths that states and actions are
padded to, C latent channels, F latent frames.
"""

WINDOW = "observation.images.window"
"""The tiled picture, uint8 [B, T, 3, H, W]."""
WINDOW_IS_PAD = f"{WINDOW}_is_pad"
"""Frames behind the end of the episode or its task, [B, T]."""
LATENT = "observation.latent"
"""Clean latents from a cache in place of the picture, [B, C, F, h, w]."""
ANCHOR = "observation.images.anchor"
"""With latents from a cache: the picture that each chunk starts from, uint8 [B, N, 3, H, W]."""
CONDITION = "observation.condition"
"""With latents from a cache: first-frame conditioning channels [B, Cc, F, h, w], for models that have them."""
CATEGORY = "observation.embodiment"
"""Index of each sample's robot among the policy's embodiments, int64 [B]."""
SOURCE = "observation.source"
"""Index of the dataset that each sample comes from, int64 [B]."""
STATE = "observation.state"
"""Physical states at each chunk's first step, zero-padded, [B, N, S]."""
ACTION = "action"
"""Physical absolute actions, zero-padded, [B, N * H, A]."""
ACTION_IS_PAD = "action_is_pad"
"""Steps without a real action, [B, N * H]."""
