"""Names for runs that were not given one."""

from typing import Final

ADJECTIVES: Final = [
    "amber",
    "bold",
    "brisk",
    "calm",
    "clever",
    "crisp",
    "daring",
    "eager",
    "fleet",
    "gentle",
    "golden",
    "keen",
    "lively",
    "lucid",
    "mellow",
    "nimble",
    "noble",
    "patient",
    "polished",
    "proud",
    "quick",
    "quiet",
    "rapid",
    "serene",
    "sharp",
    "silver",
    "steady",
    "sunny",
    "swift",
    "tidy",
    "vivid",
    "warm",
]
NOUNS: Final = [
    "anchor",
    "aspen",
    "badger",
    "beacon",
    "birch",
    "brook",
    "canyon",
    "cedar",
    "comet",
    "crane",
    "delta",
    "ember",
    "falcon",
    "fjord",
    "glacier",
    "harbor",
    "heron",
    "island",
    "lantern",
    "maple",
    "meadow",
    "orchid",
    "otter",
    "pebble",
    "pine",
    "raven",
    "reef",
    "river",
    "spruce",
    "summit",
    "thicket",
    "willow",
]


def run_name(run_id: str) -> str:
    """A name such as `swift-otter-421`, the same for every rank of a run because it follows from the run id."""
    number = int(run_id[:12], 16)
    adjective = ADJECTIVES[number % len(ADJECTIVES)]
    noun = NOUNS[number // 32 % len(NOUNS)]
    return f"{adjective}-{noun}-{number // 1024 % 1000:03d}"
