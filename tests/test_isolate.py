"""What the process that starts cells keeps from the user."""

import warnings

from quantlab.grid.process import Workers


def test_a_resource_tracker_that_is_started_again_is_not_told():
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        Workers()
        warnings.warn("resource_tracker: process died unexpectedly, relaunching", stacklevel=1)
        warnings.warn("something else", stacklevel=1)
    assert [str(item.message) for item in told] == ["something else"]
