"""Platforms, one file each, with settings, users and presets. The first is the default."""

PLATFORMS = {
    "drift": "recsys_rl.env.drift:PLATFORM",
    "satiation": "recsys_rl.env.satiation:PLATFORM",
    "short-video": "recsys_rl.env.short_video:PLATFORM",
    "long-video": "recsys_rl.env.long_video:PLATFORM",
    "social-feed": "recsys_rl.env.social_feed:PLATFORM",
    "shop": "recsys_rl.env.shop:PLATFORM",
    "tutor": "recsys_rl.env.tutor:PLATFORM",
    "learned": "recsys_rl.users.platform:PLATFORM",
    "own-log": "recsys_rl.env.own_log:PLATFORM",
    "gym": "recsys_rl.foreign.gym:PLATFORM",
}
OF_TABLES = "own-log"
"""The platform of people's own tables of decisions, which --log alone chooses."""
OF_USERS = "learned"
"""The platform of users who are learned from a log."""
WITHOUT_ID = ("gym",)  # Gymnasium already has ids for these environments


def gymnasium_id(platform: str) -> str:
    """``two-words`` -> ``recsys_rl/TwoWords-v0``."""
    return f"recsys_rl/{''.join(word.title() for word in platform.split('-'))}-v0"
