"""CUB's fifteen annotated bird parts, their names and their groups."""

PARTS = (
  "back",
  "beak",
  "belly",
  "breast",
  "crown",
  "forehead",
  "left eye",
  "left leg",
  "left wing",
  "nape",
  "right eye",
  "right leg",
  "right wing",
  "tail",
  "throat",
)

# Where no annotated part is.
BACKGROUND = "background"

# From where to where a prototype goes that gave the attack its name.
HEAD_TO_STOMACH = ("head", "stomach")

# "Head on Stomach" speaks of these two; the rest lets every part belong to exactly one group.
GROUPS = {
  "head": ("beak", "crown", "forehead", "left eye", "right eye", "nape", "throat"),
  "stomach": ("belly", "breast"),
  "back": ("back",),
  "wings": ("left wing", "right wing"),
  "legs": ("left leg", "right leg"),
  "tail": ("tail",),
}
