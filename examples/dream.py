"""Dream from Python: load a checkpoint, imagine an episode chunk by chunk, save the film and an HTML page.

    python examples/dream.py CHECKPOINT DATASET_FOLDER

`lerobot-wam dream` does the same without the page.
"""

import sys

from lerobot_wam.modeling_wam import WAMPolicy
from lerobot_wam.report.clips import open_episodes, read_clip
from lerobot_wam.report.dream import dream
from lerobot_wam.report.page import ReportData, write_page
from lerobot_wam.report.pictures import dream_panel, save_dream

checkpoint, data = sys.argv[1:]
policy = WAMPolicy.from_pretrained(checkpoint)
clip = read_clip(policy, open_episodes(policy, root=data, episodes=[0]), episode=0)

closed = dream(policy, clip, loop="closed", progress=True)  # each chunk starts from recorded frames
opened = dream(policy, clip, loop="open", progress=True)  # each chunk starts from the frames imagined before it
for name, result in {"closed": closed, "open": opened}.items():
    print(f"{name} loop:", result.scores["imagined"].summary(), "last frame repeated:", result.scores["copy"].summary())

save_dream(closed, "outputs/dream")
panels = [dream_panel(closed, f"{clip.task} (closed loop)"), dream_panel(opened, f"{clip.task} (open loop)")]
print("wrote", write_page(ReportData(title=f"Dreams: {clip.task}", dreams=panels), "outputs/dream/report.html"))
