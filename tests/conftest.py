"""Settings that hold for every test."""

from hypothesis import settings

# The same examples in every run, so that a failure is a finding of the change under test and not of the dice. No
# deadline: the suite shares its cores with five-server clusters.
settings.register_profile("suite", derandomize=True, deadline=None, database=None)
settings.load_profile("suite")
