"""Traces, how long operations take, and the audit trail: for administrators."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Path
from fastapi import Query as InQuery
from pydantic import Field

from actors.module_ref import ModuleRef
from serve.json_response import Json
from serve.pages import Id, Query, listed, most_items
from serve.schemas import Answer, Page
from serve.serving import CallerNow, ServingNow, running

router = APIRouter(tags=["traces"])

TraceLogger = Annotated[ModuleRef, Depends(running("trace_logger"))]
Head = Annotated[str, Field(pattern="^[0-9]{1,18}:[0-9a-f]{64}$", examples=["12:" + 16 * "9f86"])]
TraceId = Annotated[str, Path(pattern="^[0-9a-f]{32}$", examples=["65a51d4c0af7651916cd43dd8448eb21"])]
Length = Annotated[str, Field(pattern=r"^[0-9]{1,5}(\.[0-9]{1,3})?[smhdw]$", examples=["24h"])]
# As text: which of the many ways to write a moment are taken, the module knows.
Moment = Annotated[
    str, Field(max_length=40, json_schema_extra={"format": "date-time"}, examples=["2024-01-15T10:00:00Z"])
]
_READING_TIMEOUT_S = 120.0


class RangeQuery(Query):
    since: Length = "24h"
    """A length until now: 15m, 24h, 7d."""

    start: Moment | None = None
    """From this moment on, in place of ``since``."""

    end: Moment | None = None
    """Until this moment, which comes after ``start``; until now where it is not given."""

    @property
    def time_range(self) -> str | dict[str, str]:
        if self.start is None and self.end is None:
            return self.since
        return {"start": self.start or "", **({"end": self.end} if self.end is not None else {})}


class TracesQuery(RangeQuery):
    operation: Id | None = None
    only_failed: bool = False
    user_id: Id | None = None
    """Only traces that this user began."""

    limit: Annotated[int | None, Field(ge=1)] = None


class PerformanceQuery(RangeQuery):
    operation: Id | None = None


class AuditQuery(Query):
    user_id: Id | None = None
    action: Id | None = None
    before: Annotated[int | None, Field(ge=1)] = None
    """Only entries with smaller numbers."""

    limit: Annotated[int | None, Field(ge=1)] = None


class VerifyQuery(Query):
    expect: Head | None = None
    """The head that an earlier check has shown."""


class TraceSummaryOut(Answer):
    id: str
    object: Literal["trace_summary"]
    operation: str
    source: str
    started_at: str
    duration_ms: float
    error: str | None
    user_hash: str | None


class TracePage(Page):
    data: list[TraceSummaryOut]
    unreadable: list[str]
    """Files that could not be read, whose traces are missing here."""


class TraceOut(Answer):
    """``roots``: spans, each with its children in ``children``. ``is_cut``: there are more records than are shown."""

    id: str
    object: Literal["trace"]
    duration_ms: float
    span_count: int
    roots: list[dict[str, Any]]
    events: list[dict[str, Any]]
    logs: list[dict[str, Any]]
    is_cut: bool
    unreadable: list[str]


class OperationOut(Answer):
    operation: str
    calls: int
    failed: int
    error_rate: float
    mean_ms: float
    min_ms: float
    p50_ms: float
    p90_ms: float
    p95_ms: float
    p99_ms: float
    max_ms: float


class PerformanceOut(Answer):
    object: Literal["performance_report"]
    start: str
    end: str
    operations: list[OperationOut]
    unreadable: list[str]


class AuditEntryOut(Answer):
    """Of an entry whose user was erased, ``user_id``, ``resource`` and ``details`` are null."""

    object: Literal["audit_entry"]
    seq: int
    at: str
    action: str
    subject: str
    hash: str
    user_id: str | None
    resource: str | None
    details: dict[str, Any] | None


class AuditPage(Answer):
    object: Literal["list"]
    first_id: int | None
    last_id: int | None
    has_more: bool
    data: list[AuditEntryOut]


class AuditReportOut(Answer):
    """``head``: to be kept elsewhere, and given to a later check."""

    object: Literal["audit_report"]
    is_intact: bool
    entries: int
    erased: int
    unclaimed: int
    head: str
    finding_count: int
    findings: list[str]


@router.get("/v1/traces", response_model=TracePage)
async def list_traces(
    query: Annotated[TracesQuery, InQuery()], logger: TraceLogger, caller: CallerNow, serving: ServingNow
) -> Json:
    """Traces that began within a time, newest first, by their first spans."""
    caller.check_admin()
    most = most_items(query.limit, serving.http.pages)
    found = await logger.ask(
        "list_traces",
        query.time_range,
        most + 1,
        operation=query.operation,
        only_failed=query.only_failed,
        user_id=caller.acting_for(query.user_id),
        timeout_s=_READING_TIMEOUT_S,
    )
    traces = [trace.to_dict() for trace in found.traces[:most]]
    return Json({**listed(traces, has_more=len(found.traces) > most), "unreadable": list(found.unreadable)})


@router.get("/v1/traces/performance", response_model=PerformanceOut)
async def analyze_performance(
    query: Annotated[PerformanceQuery, InQuery()], logger: TraceLogger, caller: CallerNow
) -> Json:
    """Calls, failures and percentiles by operation."""
    caller.check_admin()
    report = await logger.ask("analyze_performance", query.time_range, query.operation, timeout_s=_READING_TIMEOUT_S)
    return Json(report.to_dict())


@router.get("/v1/traces/{trace_id}", response_model=TraceOut)
async def get_trace(trace_id: TraceId, logger: TraceLogger, caller: CallerNow) -> Json:
    """The spans of a trace as a tree, with its events and logs."""
    caller.check_admin()
    trace = await logger.ask("get_trace", trace_id, user_id=caller.acting_for(None), timeout_s=_READING_TIMEOUT_S)
    return Json(trace.to_dict())


@router.get("/v1/audit", response_model=AuditPage)
async def list_audit_entries(
    query: Annotated[AuditQuery, InQuery()], logger: TraceLogger, caller: CallerNow, serving: ServingNow
) -> Json:
    """Who did what, newest first."""
    caller.check_admin()
    most = most_items(query.limit, serving.http.pages)
    entries = await logger.ask(
        "list_audit_entries",
        most + 1,
        user_id=caller.acting_for(query.user_id),
        action=query.action,
        before=query.before,
        timeout_s=_READING_TIMEOUT_S,
    )
    found = [entry.to_dict() for entry in entries[:most]]
    return Json(listed(found, has_more=len(entries) > most, id_member="seq"))


@router.get("/v1/audit/verify", response_model=AuditReportOut)
async def verify_audit(query: Annotated[VerifyQuery, InQuery()], logger: TraceLogger, caller: CallerNow) -> Json:
    """Whether every byte of the audit trail is as it was written."""
    caller.check_admin()
    report = await logger.ask("verify_audit", query.expect, timeout_s=_READING_TIMEOUT_S)
    return Json(report.to_dict())
