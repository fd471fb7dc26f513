"""What open requests hold of credit and limits: reserved at admission, extended in slices, corrected at the end."""

from core.errors import Refusal
from core.queue.base import Admission, Refused, RefusedBy
from core.queue.memory.counters import Amount
from core.queue.memory.credit import Credit
from core.queue.memory.limits import Limits
from core.queue.memory.record import Record, amount
from core.queue.rules import RuleKind, RuleState
from core.wire import Usage


class Reservations:
    def __init__(self) -> None:
        self.credit = Credit()
        self.limits = Limits()

    def open_epoch(self, number: int) -> bool:
        """What is counted over calendar windows begins anew with it, from what SQL knows."""
        begins = number > self.credit.number
        if begins:
            self.limits.forget_calendars()
        return self.credit.open(number)

    def refusal(self, admission: Admission, wanted: Amount, now_ms: int) -> Refused | None:
        """The first rule, and then credit."""
        refused = self.limits.refusal(admission.rules, wanted, now_ms)
        return refused or self._credit_refusal(admission, wanted.nano)

    def open(self, record: Record, now_ms: int) -> tuple[RuleState, ...]:
        if record.reserved.nano:
            self.credit.reserve(record.job.organisation, record.reserved.nano)
        return self.limits.reserve(record.rules, record.reserved, now_ms)

    def extend(self, record: Record, output_tokens: int, now_ms: int) -> str:
        """Cover so many output tokens in all, or as many as fit, to the exact token; what stood in the way. A record of
        an older epoch is reserved as a whole in this one.
        """
        if not self.credit.is_open:
            return "epoch"
        organisation, epoch = record.job.organisation, self.credit.number
        held_nano = record.reserved.nano if record.epoch == epoch else 0
        covered, refused_by = self._within_tokens(record, output_tokens)
        room_nano, named = self._room_nano(record)
        if 0 < self._cost(record, covered) - held_nano > room_nano:
            covered, refused_by = self._affordable(record, covered, held_nano + room_nano), named
        gained = covered > record.output_covered
        moved_nano = self._cost(record, covered) - held_nano if gained else 0
        if refused_by == "credit":
            self.credit.ran_dry(organisation, self._cost(record, output_tokens) - held_nano - moved_nano)
        if gained:
            if moved_nano:
                self.credit.reserve(organisation, moved_nano)
            more = Amount(covered - record.output_covered, moved_nano)
            same_epoch = record.first_epoch == epoch
            self.limits.extend(record.rules, more, record.admitted_ms, now_ms, same_epoch=same_epoch)
            record.output_covered, record.epoch = covered, epoch
            record.reserved = amount(record.price, record.job.prompt_tokens, covered)
        return refused_by

    def charge(self, admission: Admission, used: Amount, now_ms: int) -> Refused | None:
        """Pay at once for what an earlier request left unpaid, or say that it cannot be paid."""
        refused = self._credit_refusal(admission, used.nano)
        if refused is None:
            self.credit.spend(admission.job.organisation, used.nano)
            self.limits.charge(admission.rules, used, now_ms)
        return refused

    def close(self, record: Record, billed: Usage, cost_nano: int, now_ms: int) -> None:
        if record.epoch == self.credit.number and (record.reserved.nano or cost_nano):
            self.credit.settle(record.job.organisation, record.reserved.nano, cost_nano)
        used = Amount(billed.prompt_tokens + billed.completion_tokens, cost_nano)
        same_epoch = record.first_epoch == self.credit.number
        self.limits.settle(record.rules, record.reserved, used, record.admitted_ms, now_ms, same_epoch=same_epoch)

    def _credit_refusal(self, admission: Admission, needed_nano: int) -> Refused | None:
        organisation = admission.job.organisation
        free_nano = self.credit.free(organisation)
        if needed_nano <= 0 or free_nano >= needed_nano:
            return None
        refusal = Refusal("credit", "organisation", needed_nano, max(0, free_nano), None)
        return Refused(RefusedBy.CREDIT, refusal, self.credit.reserved(organisation))

    def _within_tokens(self, record: Record, output_tokens: int) -> tuple[int, str]:
        covered, refused_by = output_tokens, ""
        for rule, room in self.limits.room(record.rules, record.admitted_ms):
            most = record.output_covered + max(0, room)
            if rule.kind is RuleKind.TOKENS_PER_MONTH and most < covered:
                covered, refused_by = most, rule.kind.value
        return covered, refused_by

    def _room_nano(self, record: Record) -> tuple[int, str]:
        """Credit or the spending cap that has less left."""
        room_nano, named = self.credit.free(record.job.organisation), "credit"
        for rule, left in self.limits.room(record.rules, record.admitted_ms):
            if rule.kind is not RuleKind.TOKENS_PER_MONTH and left < room_nano:
                room_nano, named = left, rule.kind.value
        return room_nano, named

    def _affordable(self, record: Record, output_tokens: int, bound_nano: int) -> int:
        """The most output tokens that cost no more than this, and no fewer than are covered already."""
        fits, too_many = record.output_covered, output_tokens + 1
        while too_many - fits > 1:
            middle = (fits + too_many) // 2
            if self._cost(record, middle) <= bound_nano:
                fits = middle
            else:
                too_many = middle
        return fits

    def _cost(self, record: Record, output_tokens: int) -> int:
        return amount(record.price, record.job.prompt_tokens, output_tokens).nano
