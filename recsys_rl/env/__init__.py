"""Platforms, one file each, with settings, users and presets. The first is the default."""

PLATFORMS = {
    "drift": "recsys_rl.env.drift:PLATFORM",
    "satiation": "recsys_rl.env.satiation:PLATFORM",
    "short-video": "recsys_rl.env.short_video:PLATFORM",
    "long-video": "recsys_rl.env.long_video:PLATFORM",
    "social-feed": "recsys_rl.env.social_feed:PLATFORM",
    "shop": "recsys_rl.env.shop:PLATFORM",
    "tutor": "recsys_rl.env.tutor:PLATFORM",
    "learned": "recsys_rl.logs.users.platform:PLATFORM",
    "own-log": "recsys_rl.logs.platform:PLATFORM",
    "gym": "recsys_rl.foreign.gym:PLATFORM",
}
OF_TABLES = "own-log"
"""The platform of people's own tables of decisions, which --log alone chooses."""
OF_USERS = "learned"
"""The platform of users who are learned from a log."""
WITH_OWN_WORLD = ("gym",)
"""Platforms that take no users and items of data."""
WITHOUT_ID = (*WITH_OWN_WORLD, OF_TABLES)
"""Platforms that are not registered with Gymnasium: it has ids for the environments of the first, and the
second one has no simulator to step."""


def gymnasium_id(platform: str) -> str:
    """``two-words`` -> ``recsys_rl/TwoWords-v0``; ``file:PLATFORM`` -> ``recsys_rl/file.PLATFORM-v0``."""
    if ":" in platform:
        return f"recsys_rl/{platform.replace(':', '.')}-v0"
    return f"recsys_rl/{''.join(word.title() for word in platform.split('-'))}-v0"
