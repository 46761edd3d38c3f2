"""Platforms, one file each: its settings, its users, its presets. The first is the default."""

PLATFORMS = {
    "drift": "recsys_rl.env.drift:PLATFORM",
    "satiation": "recsys_rl.env.satiation:PLATFORM",
    "gym": "recsys_rl.env.foreign:PLATFORM",
}
WITHOUT_ID = ("gym",)  # Gymnasium has ids of their own for these environments
