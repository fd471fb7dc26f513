"""The layout of keys in Redis, version t1. Lua builds the same names: see scripts/shared.lua.

Everything that must agree lies under one hash tag, the cell. Only reply streams lie elsewhere.

| key, after `t1:{CELL}` | type | holds |
|---|---|---|
| `:r:ID` | hash | the record: s(tate) a(ttempt) k (strikes) w(orker) adm tk (ms) seq res (nano) cm (cancel bound) |
| | | m (the admission, msgpack) j (the job, msgpack); gone once it is settled |
| `:e:ID` | string | attempt, outcome, billed tokens, cost, end event, msgpack; kept for 10 minutes after settlement |
| `:open` | zset | request -> deadline ms |
| `:lost` | zset | request -> until when its submitter may decide, ms |
| `:credit` `:gen` `:conc` | hash | nano by organisation; generation by organisation; open records by scope |
| `:rpm:SCOPE` `:tpm:SCOPE` | hash, string | sub-windows; level and its time |
| `:t:TIER` | hash | running, qcost (queued cost), vt (virtual time), speed (cost per ms, slot), aw (active weight) |
| `:q:TIER:BAND` | zset | organisation -> virtual time; `:ORG` workspace -> the same; `:ORG:WS` request -> sequence |
| `:v:TIER` | hash | virtual times of flows |
| `:act:TIER` `:run:TIER` `:wt:TIER` | hash | by organisation: open jobs, running jobs, weight |
| `:age:TIER` `:ba:TIER` | zset | queued request -> admitted ms; the same for the batch band |
| `:solo:TIER` `:solow:TIER` | list, string | jobs that run alone; the worker that is emptied for them |
| `:bell:TIER` `:wb:WORKER` | list | wake an idle worker; wake this worker |
| `:leases` | zset | worker -> expires ms |
| `:w:WORKER` `:wj:WORKER` `:wc:WORKER` | string, set, set | tier; requests held; requests to abort |
| `:slots:TIER` | hash | slots by worker |
| `:usage` `:dead` | stream | usage events; dead letters |
| `:reaped` | string | when the reaper last ran, ms |
"""

LAYOUT = "t1"


def cell_key(cell: str) -> str:
    return f"{LAYOUT}:{{{cell}}}"


def replies_key(submitter: str) -> str:
    return f"{LAYOUT}:{{g:{submitter}}}:replies"
