"""topic_router: what a message is about, learned from examples, and who is to answer it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .classification import Classification, Context, Label, Segment
from .examples import Example
from .route import Route
from .routing_report import RoutingReport, SpecialistShare, TopicShare
from .settings import TopicRouterSettings
from .specialists import Specialist
from .topic_router import Learned, RouterErasure, TopicRouterModule

__all__ = [
    "Classification",
    "Context",
    "Example",
    "Label",
    "Learned",
    "Route",
    "RouterErasure",
    "RoutingReport",
    "Segment",
    "Specialist",
    "SpecialistShare",
    "TopicRouterModule",
    "TopicRouterSettings",
    "TopicShare",
    "create",
]


def create(settings: Mapping[str, Any]) -> TopicRouterModule:
    """The module for a loader."""
    return TopicRouterModule(settings)
