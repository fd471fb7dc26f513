"""Credit of the organisations in one epoch: what is free, what open requests hold, who ran dry."""

from collections import defaultdict

from core.meter.credit import Epoch, Hunger, Level
from core.queue.memory.bell import Bell


class Credit:
    """`number` stands until a higher one is opened; `is_open` ends with the run of Redis that it was opened on."""

    def __init__(self) -> None:
        self.number = 0
        self.is_open = False
        self.hungry_bell = Bell()
        self._free: defaultdict[str, int] = defaultdict(int)
        self._reserved: defaultdict[str, int] = defaultdict(int)
        self._transfers: dict[str, int] = {}
        self._hungry: dict[str, int] = {}

    def epoch(self) -> Epoch:
        return Epoch(self.number, self.is_open)

    def restart(self) -> None:
        """What a restart, a fail-over or a wipe of Redis means here: another run, whose epoch is not open yet."""
        self.is_open = False

    def open(self, number: int) -> bool:
        if number <= self.number:
            return self.is_open and number == self.number
        self.number, self.is_open = number, True
        for book in (self._free, self._reserved, self._hungry):
            book.clear()
        return True

    def free(self, organisation: str) -> int:
        return self._free.get(organisation, 0)

    def reserved(self, organisation: str) -> int:
        return self._reserved.get(organisation, 0)

    def reserve(self, organisation: str, amount_nano: int) -> None:
        self._free[organisation] -= amount_nano
        self._reserved[organisation] += amount_nano

    def spend(self, organisation: str, cost_nano: int) -> None:
        self._free[organisation] -= cost_nano

    def settle(self, organisation: str, reserved_nano: int, cost_nano: int) -> None:
        self._free[organisation] += reserved_nano - cost_nano
        self._reserved[organisation] -= reserved_nano

    def give(self, transfer_id: str, organisation: str, epoch: int, amount_nano: int) -> bool:
        return self._transfer(transfer_id, organisation, epoch, amount_nano) is not None

    def take_back(self, transfer_id: str, organisation: str, epoch: int, amount_nano_max: int) -> int:
        return -(self._transfer(transfer_id, organisation, epoch, -amount_nano_max) or 0)

    def _transfer(self, transfer_id: str, organisation: str, epoch: int, amount_nano: int) -> int | None:
        """What it moved, for a repeated id as before; None: that epoch is not the open one."""
        if transfer_id not in self._transfers:
            if not (self.is_open and epoch == self.number):
                return None
            moved = max(amount_nano, -max(0, self.free(organisation)))
            self._transfers[transfer_id] = moved
            self._free[organisation] += moved
        return self._transfers[transfer_id]

    def level(self, organisation: str) -> Level:
        return Level(self.number, self.free(organisation), self.reserved(organisation))

    def ran_dry(self, organisation: str, needed_nano: int) -> None:
        """The largest need of an organisation is told, once."""
        self._hungry[organisation] = max(needed_nano, self._hungry.get(organisation, 0))
        self.hungry_bell.ring()

    def hungry(self) -> list[Hunger]:
        told, self._hungry = self._hungry, {}
        return [Hunger(organisation, needed_nano) for organisation, needed_nano in told.items()]
