"""A trained policy for real people: their visits and lists of recommendations, without an environment."""

from recsys_rl.recommender.recommender import HOURS, Recommendation, Recommender, load
from recsys_rl.recommender.visit import Event, Request, Visit

__all__ = ["HOURS", "Event", "Recommendation", "Recommender", "Request", "Visit", "load"]
