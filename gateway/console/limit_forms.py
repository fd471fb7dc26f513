"""Limits as forms say them: what they are called, how a value is written, whose one may set."""

from collections.abc import Mapping
from types import MappingProxyType

from pydantic import Field
from sqlalchemy.orm import Session

from billing.money import parse_amount
from core.errors import NOT_ALLOWED, VALIDATION, PlatformError
from core.queue.rules import RuleKind
from gateway.accounts.api_keys import find_key
from gateway.accounts.limits import LimitTerms, Subject, SubjectKind, set_limit
from gateway.accounts.roles import Permission
from gateway.admin.places import workspace_by_id
from gateway.console.desk import Changed
from gateway.console.entrance import Fields
from gateway.console.visitor import Place
from gateway.refusals import SPENDING
from gateway.services import Services

VALUE_CHARS_MAX = 40
DIGITS_MAX = 15
TITLES: Mapping[RuleKind, str] = MappingProxyType(
    {
        RuleKind.REQUESTS_PER_SECOND: "Requests per second",
        RuleKind.REQUESTS_PER_MINUTE: "Requests per minute",
        RuleKind.TOKENS_PER_MINUTE: "Tokens per minute",
        RuleKind.TOKENS_PER_MONTH: "Tokens per month",
        RuleKind.CONCURRENCY: "Requests at once",
        RuleKind.SPEND_PER_DAY: "Spending per day",
        RuleKind.SPEND_PER_MONTH: "Spending per month",
    }
)


class LimitForm(Fields):
    """`subject`: a SubjectKind and, of a workspace or key, after a space its id. `value` is a whole number, of spending
    an amount of money. `back`: the page to go to afterwards.
    """

    subject: str = Field(max_length=128)
    kind: RuleKind
    tier: str = Field(default="", max_length=64)
    value: str = Field(max_length=VALUE_CHARS_MAX)
    soft: bool = False
    back: str = Field(default="", max_length=1_000)

    @property
    def subject_kind(self) -> SubjectKind:
        """Raises PlatformError (VALIDATION)."""
        try:
            return SubjectKind(self.subject.partition(" ")[0])
        except ValueError as error:
            raise PlatformError(VALIDATION, "Choose whose limit it is.", param="subject") from error

    @property
    def subject_id(self) -> str:
        return self.subject.partition(" ")[2]

    def terms(self) -> LimitTerms:
        return LimitTerms(self.kind, limit_value(self.kind, self.value), self.tier, hard=not self.soft)


class LimitEnding(Fields):
    back: str = Field(default="", max_length=1_000)


def limit_value(kind: RuleKind, text: str, param: str = "value") -> int:
    """Nano-units for spending. Spaces between digits are as people write them. Raises PlatformError (VALIDATION)."""
    plain = "".join(text.split())
    if kind in SPENDING:
        try:
            return parse_amount(plain)
        except PlatformError as error:
            raise PlatformError(
                VALIDATION, f"{TITLES[kind]}: an amount of money, such as 12.50.", param=param
            ) from error
    if not plain.isascii() or not plain.isdigit() or len(plain) > DIGITS_MAX:
        raise PlatformError(VALIDATION, f"{TITLES[kind]}: a whole number, such as 600.", param=param)
    return int(plain)


def may_limit(place: Place, subject: SubjectKind, workspace: str | None) -> bool:
    """`workspace`: of a workspace its id, of a key its home."""
    if subject is SubjectKind.PLAN:
        return False
    if subject is SubjectKind.ORGANISATION:
        return place.visitor.access.operator
    return place.may(Permission.LIMITS_MANAGE, workspace)


def limited_subject(session: Session, place: Place, kind: SubjectKind, subject_id: str) -> Subject:
    """Whose limit is to change. Raises PlatformError: NOT_FOUND for what is not of this organisation, NOT_ALLOWED."""
    workspace = None
    if kind is SubjectKind.WORKSPACE:
        workspace = workspace_by_id(session, subject_id, place.id).id
    elif kind is SubjectKind.KEY:
        workspace = find_key(session, subject_id, within=place.id).workspace_id
    elif kind in {SubjectKind.ORGANISATION, SubjectKind.CUSTOMER}:
        subject_id = place.id
    if not may_limit(place, kind, workspace):
        raise PlatformError(NOT_ALLOWED, "Your role does not allow you to change this limit.")
    return Subject(kind, subject_id)


def put_limit(session: Session, place: Place, subject: Subject, terms: LimitTerms, services: Services) -> Changed[str]:
    """After `limited_subject`. Answers the limit's id."""
    done = set_limit(
        session,
        subject,
        terms,
        within=None if subject.kind is SubjectKind.ORGANISATION else place.id,
        known_tiers=[tier.name for tier in services.catalog.tiers],
        actor=place.visitor.actor,
        clock=services.clock,
        ids=services.ids,
    )
    return done.id, done.publish
