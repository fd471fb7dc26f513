"""Models, usage, limits, and the key itself."""

from __future__ import annotations

from typing import Iterator, List, Optional, Sequence, Union

from tramontane._sync.transport import Transport
from tramontane.types import Identity, LimitState, Model, UsageGroup, UsageRecord, UsageReport
from tramontane.wire.account import (
    Moment,
    identity_call,
    limits_call,
    model_call,
    models_call,
    records_call,
    usage_call,
)


class Models:
    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(self) -> List[Model]:
        """What this key may ask for; each alias is an entry too."""
        return (self._transport.run(models_call())).data

    def retrieve(self, model: str) -> Model:
        """Raises NotFound."""
        return self._transport.run(model_call(model))


class Limits:
    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(self) -> List[LimitState]:
        """Every limit of the key, its workspace and its organisation, and how it stands."""
        return (self._transport.run(limits_call())).data


class Users:
    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def me(self) -> Identity:
        """The key, its workspace, its organisation."""
        return self._transport.run(identity_call())


class Usage:
    """What was used. Times are ISO 8601, seconds since 1970, or a datetime with its zone; the last 30 days if none are
    given. `scope` is key (the default) or workspace.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def report(
        self,
        *,
        scope: Optional[str] = None,
        start: Moment = None,
        end: Moment = None,
        time_zone: Optional[str] = None,
        group_by: Union[str, Sequence[str], None] = None,
        limit: Optional[int] = None,
        cursor: Optional[str] = None,
        latency: Optional[bool] = None,
    ) -> UsageReport:
        """One page of sums. `group_by`: one of hour, day, month, and any of tier, key, workspace."""
        return self._transport.run(
            usage_call(
                scope=scope,
                start=start,
                end=end,
                time_zone=time_zone,
                group_by=group_by,
                limit=limit,
                cursor=cursor,
                latency=latency,
            )
        )

    def lines(
        self,
        *,
        scope: Optional[str] = None,
        start: Moment = None,
        end: Moment = None,
        time_zone: Optional[str] = None,
        group_by: Union[str, Sequence[str], None] = None,
    ) -> Iterator[UsageGroup]:
        """The sums of all pages."""
        cursor = None
        while True:
            page = self.report(
                scope=scope, start=start, end=end, time_zone=time_zone, group_by=group_by, cursor=cursor
            )
            for line in page.data:
                yield line
            cursor = page.next
            if cursor is None:
                return

    def records(
        self,
        *,
        scope: Optional[str] = None,
        start: Moment = None,
        end: Moment = None,
        time_zone: Optional[str] = None,
    ) -> Iterator[UsageRecord]:
        """Every single settled request, in the order of admission, read as it comes."""
        call = records_call(scope=scope, start=start, end=end, time_zone=time_zone)
        return self._transport.lines(call)
