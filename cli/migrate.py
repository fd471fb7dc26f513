"""`tramontane migrate`: the same that `up` does to the database, for installations whose processes run apart."""

import sys

from cli.database import database_name, prepare_database
from core.clock import SystemClock
from core.ids import SystemIds
from core.installation import catalog_for
from core.settings import read_settings
from gateway.accounts.settings import AccountSettings


def run() -> None:
    settings = read_settings(AccountSettings)
    clock = SystemClock()
    differ = prepare_database(settings, catalog_for(settings), clock, SystemIds(clock))
    sys.stdout.write(f"{database_name(settings)} is at this release's schema.\n")
    if differ:
        sys.stderr.write(f"The file's plans differ from the database, which counts: {', '.join(differ)}.\n")
