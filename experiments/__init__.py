"""The experiments: one script per question."""

from longlag.system.optional_packages import EXPERIMENTS, check

check(*EXPERIMENTS, extra="experiments")
