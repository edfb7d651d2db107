"""``bin/torture`` for a minute, as CI runs it; ``-m "not slow"`` leaves it out.

It has a file to itself, so that another worker does the tests of `test_torture_runs` meanwhile.
"""

import pytest

from tests.stage5_evidence.torturing import ALL_KINDS, kinds_in, left_out, torture

pytestmark = pytest.mark.slow


def test_a_minute_of_everything() -> None:
    """Five servers, 10 clients, every kind of fault.

    By itself it asks for 300 operations a second; here other tests run beside it, on whatever machine this is.
    """
    output = torture("--minutes", "1", "--seed", "6", "--rate-min", "100")
    assert kinds_in(output) == ALL_KINDS - left_out(output)
    assert "all is well" in output
