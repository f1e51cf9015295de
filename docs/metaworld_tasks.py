"""Draw the first picture of every Meta-World task, the held-out ones framed, into docs/metaworld_tasks.webp.

python docs/metaworld_tasks.py
"""

from pathlib import Path

from PIL import Image, ImageDraw

from lerobot_wam.metaworld.tasks import GROUPS
from lerobot_wam.metaworld.world import World

SIZE, COLUMNS, LABEL, MARGIN = 128, 9, 12, 2


def picture() -> Image.Image:
    """The tasks in alphabetical order, row by row."""
    tasks = GROUPS["all"]
    width, height = SIZE + 2 * MARGIN, SIZE + LABEL + 2 * MARGIN
    sheet = Image.new("RGB", (COLUMNS * width, -(-len(tasks) // COLUMNS) * height), "white")
    draw = ImageDraw.Draw(sheet)
    for place, task in enumerate(tasks):
        x, y = place % COLUMNS * width, place // COLUMNS * height
        if task in GROUPS["unseen"]:
            draw.rectangle((x, y, x + width - 1, y + height - 1), fill="orange")
        world = World(task)
        world.reset([0])
        sheet.paste(Image.fromarray(world.image(SIZE)), (x + MARGIN, y + MARGIN))
        draw.text((x + MARGIN + 2, y + SIZE + MARGIN), task.name.removesuffix("-v3"), fill="black", font_size=10)
    return sheet


if __name__ == "__main__":
    picture().save(Path(__file__).with_suffix(".webp"), quality=75)
