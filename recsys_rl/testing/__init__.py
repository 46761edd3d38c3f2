"""Checks for your own platform, environment or agent. An error names the faulty method.

from recsys_rl.testing import check_agent, check_env, check_user_model
"""

from recsys_rl.testing.agents import check_agent
from recsys_rl.testing.envs import check_env
from recsys_rl.testing.user_models import check_user_model

__all__ = ["check_agent", "check_env", "check_user_model"]
