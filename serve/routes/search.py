"""Search over a user's messages."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter
from fastapi import Query as InQuery
from pydantic import Field

from modules.core.errors import NotFound
from modules.text_chat.paging import MAX_PAGE
from serve.json_response import Json
from serve.pages import Id, Query, listed, most_items
from serve.schemas import MessagePage, Words
from serve.serving import CallerNow, ServingNow, TextChat

router = APIRouter(tags=["messages"])


class SearchQuery(Query):
    query: Words
    """Text that a message holds, whatever its case."""

    user_id: Id
    session_id: Id | None = None
    """Search this session alone."""

    after: Id | None = None
    """Id of the last message of the page before; reaches as far as the thousandth find."""

    limit: Annotated[int | None, Field(ge=1)] = None


@router.get("/v1/search", response_model=MessagePage)
async def search_messages(
    query: Annotated[SearchQuery, InQuery()], chat: TextChat, caller: CallerNow, serving: ServingNow
) -> Json:
    """A user's messages that hold a text, newest session first."""
    most = most_items(query.limit, serving.http.pages)
    wanted = min(most + 1, MAX_PAGE) if query.after is None else MAX_PAGE
    found = await chat.ask(
        "search_messages", caller.needing_user(query.user_id), query.query, wanted, session_id=query.session_id
    )
    start = 0
    if query.after is not None:
        places = [place for place, message in enumerate(found) if message.id == query.after]
        if not places:
            raise NotFound(f"message {query.after!r} is not among what is found")
        start = places[0] + 1
    page = [message.to_dict() for message in found[start : start + most]]
    return Json(listed(page, has_more=len(found) > start + most))
