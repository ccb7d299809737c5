"""The catalogue of events, made of the code: `python -m bitnexus.events docs/` writes events.md and asyncapi.json there.

What an event is comes from its class (docstring, fields, their `meaning`), who consumes it from the views' topics and from
the feed's slices. Nothing is said here that the code does not say; a test holds the written files to it.
"""

import inspect
import json
import sys
import typing
from collections.abc import Iterable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import msgspec
from eventsourcing.domain import Aggregate, CanMutateAggregate
from eventsourcing.utils import get_topic

from api import app, ledger
from api.feed import controller, messages
from domain import catalogue as domain_catalogue
from domain.aggregates import Aggregate as Root
from ledger import codec
from projections import catalogue as view_catalogue
from projections.view import View

Schema = dict[str, Any]
"""A JSON Schema, or a part of one."""

NOBODY = "nobody yet"
