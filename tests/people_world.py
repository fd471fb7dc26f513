"""People as tests need them: users, members, a door with the cheapest of password hashes, tokens nobody can foresee."""

from argon2.profiles import CHEAPEST

from core.ids import SystemIds
from gateway.accounts.access import OPERATOR, access_of
from gateway.accounts.door import Door
from gateway.accounts.members import set_role
from gateway.accounts.passwords import Passwords
from gateway.accounts.roles import Role
from gateway.accounts.sessions import Origin, session_of
from gateway.accounts.users import create_user
from tests.accounts_world import AccountsWorld

PASSWORD = "correct horse battery"
HERE = Origin("192.0.2.1", "a browser", "r7")


class Watched(Passwords):
    """Counts what is checked, and against what."""

    def __init__(self, parameters=CHEAPEST):
        super().__init__(parameters)
        self.checked = []

    def matches(self, password_hash, password):
        self.checked.append(password_hash)
        return super().matches(password_hash, password)


class PeopleWorld(AccountsWorld):
    def __init__(self, database):
        super().__init__(database)
        self.ids = SystemIds(self.clock)
        self.passwords = Watched()
        self.door = Door(database, self.passwords, clock=self.clock, ids=self.ids)
        self.home = self.default.organisation

    def user(self, name, organisation=None, role=None, *, password=None, **options):
        """NAME@example.com, with this role if one is named."""
        kept = None if password is None else self.passwords.hash(password)
        made = self.do(create_user, f"{name}@example.com", name, ids=self.ids, password_hash=kept, **options).id
        if role is not None:
            self.do(set_role, made, organisation or self.home, Role(role), access=OPERATOR)
        return made

    def access(self, user_id):
        return self.see(access_of, user_id)

    def log_in(self, name, password=PASSWORD, origin=HERE):
        return self.door.log_in(f"{name}@example.com", password, origin)

    def signed_in(self, token):
        return self.see(session_of, token.get_secret_value(), self.clock)
