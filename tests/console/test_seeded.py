"""What benchmarks.console fills a database with: its books agree, and every page of the console opens over it."""

from benchmarks.console.run import Cost, paths_of, samples_of
from benchmarks.console.seed import CONFIG, seed
from benchmarks.console.stage import open_stage
from billing.check import Findings, check_books
from core.catalog import read_catalog
from core.db import connect_database

RECORDS, DAYS = 3_000, 3


async def test_books_agree_and_every_page_opens(database_url):
    database = connect_database(database_url)
    catalog = read_catalog(CONFIG)
    seed(database, catalog, RECORDS, DAYS)
    findings = Findings()
    check_books(database, 0, findings)
    assert findings.ok, findings.kept
    assert findings.looked_at["records"] == RECORDS
    stage = await open_stage(database, catalog)
    with database.reading() as session:
        samples = samples_of(session)
    opened = []
    async with stage.browser() as browser:
        for name, path in paths_of(stage, samples):
            answer = await browser.get(path)
            opened.append(Cost(name, answer.status_code, 0, 0, 0, 0, 0))
    assert [cost for cost in opened if not cost.fits] == []
    assert len(opened) > 40
    database.close()
