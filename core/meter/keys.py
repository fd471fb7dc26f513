"""The layout of keys in Redis, version t2. Lua builds the same names: see scripts/shared.lua.

Everything that must agree lies under one hash tag, the cell. Only reply streams lie elsewhere.

| key, after `t2:{CELL}` | type | holds |
|---|---|---|
| `:r:ID` | hash | the record: s(tate) a(ttempt) k (strikes) w(orker) adm tk (ms) seq res (nano) cm (cancel bound) |
| | | ep (epoch of its credit) ce (of its counters, if another) out (covered, if extended) |
| | | m (the admission, msgpack) j (the job, msgpack); gone once it is settled |
| `:e:ID` | string | attempt, outcome, billed tokens, cost, end event, msgpack; kept for 10 minutes after settlement |
| `:f:ID` | string | the usage event that is due when this answer is fetched, msgpack; as long |
| `:i:CLAIM` | string | request, streamed, body digest, msgpack; kept for 24 hours |
| `:open` | zset | request -> deadline ms |
| `:lost` | zset | request -> until when its submitter may decide, ms |
| `:epoch` | hash | number, open; run: the server it was opened on; seen: the one that was met last |
| `:o:ORG` | hash | gen(eration); ep(och) of credit (free) and resv (reserved), nano |
| `:x:TRANSFER` | string | nano moved by a gift or a return; kept for 24 hours |
| `:hungry` `:hbell` | hash, list | organisation -> nano that a running request wanted; wake billing |
| `:conc` | hash | open records by KIND:COUNTER |
| `:n:KIND:COUNTER` | string | log of requests: slot and total in 16 bytes each; see scripts/windows.lua |
| `:u:KIND:COUNTER` | string | level of a bucket and its time |
| `:u:EPOCH:KIND:COUNTER:WINDOW` | string | used in a calendar window; kept until 3 days after it |
| `:t:TIER` | hash | running, qcost (queued cost), vt (virtual time), speed (cost per ms, slot), aw (active weight) |
| `:q:TIER:BAND` | zset | organisation -> virtual time; `:ORG` workspace -> the same; `:ORG:WS` request -> sequence |
| `:v:TIER` | hash | virtual times of flows |
| `:act:TIER` `:run:TIER` `:wt:TIER` | hash | by organisation: open jobs, running jobs, weight |
| `:age:TIER` `:ba:TIER` | zset | queued request -> admitted ms; the same for the batch band |
| `:solo:TIER` `:solow:TIER` | list, string | jobs that run alone; the worker that is emptied for them |
| `:bell:TIER` `:wb:WORKER` | list | wake an idle worker; wake this worker |
| `:drained` | hash | t:TIER, w:WORKER: takes nothing |
| `:leases` | zset | worker -> expires ms |
| `:w:WORKER` `:wj:WORKER` `:wc:WORKER` | string, set, set | tier; requests held; requests to abort |
| `:slots:TIER` | hash | slots by worker |
| `:usage` `:dead` | stream | usage events; dead letters |
| `:experts` | stream | how experts were chosen, for statistics; bounded: core/experts.py |
| `:refusals:ORG` `:refused:NUMBER` | stream, hash | an organisation's refusals; counts of all: core/meter/refusals.py |
| `:reaped` | string | when the reaper last ran, ms |
"""

LAYOUT = "t2"


def cell_key(cell: str) -> str:
    return f"{LAYOUT}:{{{cell}}}"


def replies_key(submitter: str) -> str:
    return f"{LAYOUT}:{{g:{submitter}}}:replies"
