"""Recommendation of a measured cell to deploy within limits: `quantlab recommend`."""

from quantlab.report.recommend.choose import NotRecordedError, Recommendation, SeveralCorporaError, recommend
from quantlab.report.recommend.judge import Candidate, Finding, Limits

__all__ = ["Candidate", "Finding", "Limits", "NotRecordedError", "Recommendation", "SeveralCorporaError", "recommend"]
