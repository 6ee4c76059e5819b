"""What a run leaves behind: the specification of the run directory, for those who write it and for the checker that judges it.

    run/<time>-<seed>/
      plan.json                    what was meant to happen: the harness, before the run; it is what `replay` repeats
      canaries.json                what must be found nowhere but where it belongs (P19, P20): the harness, since a run's ids and secrets are made with it
      manifest.json                what was run, and how complete each source must be: harness and tests/chaos/collect.py
      journal/<who>.<life>.jsonl   the product's own journal, one file per life of a process (optional source: manifest `journal`)
      client.jsonl nemesis.jsonl samples.jsonl                 the harness' clients, its nemeses, its look from outside each second
      mysql/binlog/transactions.jsonl  mysql/tables/<table>.jsonl
      kafka/<topic>.committed.jsonl  kafka/<topic>.uncommitted.jsonl  kafka/groups.json
      hosts/<name>/ledger  hosts/<name>/control.jsonl  hosts/<name>/files.jsonl  hosts/<name>/watch.jsonl  hosts/<name>/sshd.log
      logs/ traces/                copied as they are
      verdict.json report.md junit.xml                         written by `python -m tests.checker RUN`

Everything is JSON, one object a line in `.jsonl`. Times: `mono` is CLOCK_MONOTONIC in seconds (`time.monotonic()`), shared by all processes of the machine; `wall` is RFC 3339 and for people.
A line of the product's journal with `more` goes on in the next one of that life (docs/decisions/0007): lists are joined.
Lines of journal, client, nemesis and samples have `n` (from 1, no gap within one `life`), `who`, `life`, `mono`, `wall`, `kind`; a file holds one life, or several (told apart by `life`).
A torn *last* line of a file is counted and dropped; any other unreadable line makes the source incomplete. Bytes that are not UTF-8 text stand as {"hex": "…"}; `mid` is always plain hex.

plan.json
    {"seed": 17, "required": {"P1": {"launches": 40}, "P4": {"zombies": 1, "late_claims": 1}, "P5": {}, "P16": {}},
     "faults": [{"fault": "f1", "kind": "N1", "target": "scheduler/1"}, …],
     "left_in_place": ["HOST_KEY_CHANGED"], "lag_ms_max": 250, "takeover_seconds": {"scheduler": 3.0},
     "caps": {"rss_bytes": 400000000, "outbox_rows": 100000}, …}
  required        promise → how often at least it must have been exercised, by the names of counts in the promises' docstrings; {} stands for once, by the first of them.
                  A promise that is not named is judged and shown, and does not decide the exit code, unless it is BROKEN.
  faults          each must have start, proof and end in nemesis.jsonl under the same `fault`, or the promises it was planned for (`for`: ["P4"]; all required ones if left out) are UNDECIDED.
  proven_at_least {"faults": 600, "kinds": 20}, of faults drawn by chance: instead of each, so many must be proven, or all promises are UNDECIDED. Left out: each.
  not_run         [{"kind": "N11", "reason": "no root here"}]: named in the report.
  left_in_place   conditions that the plan never lifts: a task BLOCKED by one of them counts as ended (P2).
  takeover_seconds  component → bound of P24 in place of the checker's own (promises.md); lag_ms_max: beyond it a take-over is thrown away unseen.
  Any other key is the harness' own (workload, times, shapes).

canaries.json
    {"tenants": {"gw_…": ["canary-a"]}, "secrets": ["…"]}
  tenants         texts in what each tenant said: they are in no answer, row or record of another's.
  secrets         looked for in every file of the run in each of their spellings (plain, base64, hex, URL, JSON), also after it was judged. Not searched are only canaries.json itself; plan.json,
                  verdict.json, report.md and junit.xml, which are not evidence; and system/internal-token, system/master-key, system/token-key: files in which the harness gave them to the components.

manifest.json
    {"started": "…", "ended": "…", "commit": "…", "versions": {"mysql": "9.7.0", "kafka": "4.3.0"}, "machine": "…", "repeat": "make chaos SEED=17", "schema": "t1_0", "topic_prefix": "chaos17.",
     "journal": true, "lives": 14,
     "binlog": {"from": ["binlog.000003", 157], "to": ["binlog.000005", 9921], "transactions": 8123},
     "tables": {"tasks": 310, …}, "topics": {"chaos17.event-sink": {"0": [0, 412], …}}, "hosts": ["fork-a"]}
  `binlog.from` is noted before the first component starts (collect.mark), `to` when everything has stopped. `topics`: partition → [log start, end], noted before reading. `lives`: process starts the
  harness made (each must have its journal file). Any other key is shown in the report if it is text or a number. `counters`: name → number, shown as they are.

client.jsonl: `op` names one request and its retries under one key; every try is an invoke of its own with another `op` but the same `key`.
    {"kind": "op.invoke", "op": "c3-17", "operation": "launch", "tenant": "gw_…", "session": "c3", "key": "k-17", "body_sha256": "…", "experiment": null, "expect": {"status": [202, 201], "code": null}}
    {"kind": "op.return", "op": "c3-17", "outcome": "ok", "status": 202, "code": null, "experiment": "exp_…", "process": "prc_…", "version": 2, "retry_after": null}
  operation   `launch` (POST /experiments with launch, or …/launches), `cancel`, `create`, `read` (whatever answers one experiment with its `version`), `refused` (a bad request), anything else.
  outcome     `ok` 2xx, `refused` 4xx, 429, 503 or another definite problem; `unknown`: no answer, a time-out, a cut (never `failed`).
  expect      only where the plan says what must come: allowed statuses and the problem's code (P21). `marker`: a text in the bad request that must be in no row and no message. `deadline_ms`: with P21.
  version     of the experiment as answered (P23). `answer_text`: the body of the answer, where canaries are looked for (P19, P20), cut off after 8,192
              characters; left out where it shows a secret that is its caller's (a new token).

nemesis.jsonl
    {"kind": "fault.start", "fault": "f1", "fault_kind": "N1", "target": "scheduler/1", "detail": {…}}
    {"kind": "fault.proof", "fault": "f1", "struck": 91823.123, "evidence": {"wait_status": 9}, "spare": true, "lag_ms": 12.0}
    {"kind": "fault.end", "fault": "f1", "healed": 91830.001}
    {"kind": "offsets.set", "offsets_set": [["chaos17.generator", "chaos17.airavata-launch", 3, 40]]}
    {"kind": "healed"}  {"kind": "quiet", "quiet": true, "asked_seconds": 4.1, "open": []}
  start   before anything is done. proof: measured evidence, not empty; `struck`: monotonic time of the blow itself. end: `healed`, when it was taken back (a kill: when the process was started again, or at once).
  offsets.set  before a nemesis tells Kafka other committed offsets: group, topic, partition, offset (P14).
  P24     reads kills and freezes of `target` (component/copy) with "takeover": true in the proof: `struck` to the successor's first commit; `spare`: another copy was alive and ready;
          `lag_ms`: the largest lag of the harness' own 10 ms tick from the blow until the take-over was over. Such a proof may be written when the lag is known; `struck` is what counts.
  P4      a proof with "zombie": true: the owner was stopped with a batch in hand and woke after its successor's claim; with "late_claim": true: stopped before its C0. Then `woken`: monotonic time in fault.end.
  N19     a record published by a nemesis has no row in the outbox: it bears the header `nemesis`, or a proof names it under `published`: [[topic, partition, offset], …].
  N9      a proof names {"commit_answers_lost": 3}. N17: a record published again bears the header `nemesis` = its fault. N30: while it is on, a relay that refuses Kafka's lost memory breaks nothing (P7).
  N34     {"kind": "releases", "older": {"version": "0.1.0+ba08b1c5d", "reads": 1}, "newer": {…}} before the first move of a mixed fleet; `reads`: the newest schema version that release's own
          code reads. A proof names lives the harness saw, as {"life": "…", "version": "…"}: `went` and `came` of a replacement, `was` and `is` of a kill.
  N30     `topics_renewed`: [topic, …]: their tiling begins anew. `quiet` after `healed` is P2's clock; without it P2 is UNDECIDED, with "quiet": false BROKEN.

samples.jsonl: {"kind": "sample", "committed": [[group, topic, partition, offset], …], "positions": [[group, topic, partition, next_offset], …], "outbox_rows": 12, "outbox_oldest_seconds": 0.3,
  "processes": {"scheduler/1": {"rss_bytes": 9, "descriptors": 40, "threads": 9}}, "mysql_sessions": 31, "ssh_connections": {"fork-a": 3}, "lag_ms": 3.0}
  `committed` is asked *before* `positions`, so that a commit in between cannot convict. Keys may be left out. Caps (plan) apply to each number of that name, wherever it stands in the sample.

mysql/binlog/transactions.jsonl, in commit order, of this schema alone; times are the server's
    {"file": "binlog.000003"}                                       a binary log begins
    {"t": 12, "pos": 4711, "at": "2026-11-23T03:28:26.123456Z", "rows": [["I", "tasks", {…}], ["U", "tasks", {…before}, {…what changed}], ["D", "outbox", {…}]]}
    {"end": {"transactions": 8123, "rows": 90211}}                  the last line: without it the source is cut
  A before image leaves out columns of more than 256 bytes that did not change. Columns of binary types are hex, numbers numbers, times "2026-11-23 03:28:26.123456", NULL null.
mysql/tables/<table>.jsonl: first {"table": "tasks", "columns": {"id": "varchar", …}, "rows": 310}, then one object a row, the same spelling.
kafka/<topic>.<isolation>.jsonl: {"p": 17, "o": 12, "ts": 1764040106123, "k": "prc_…", "h": [["mid", "…hex"], ["type", "TaskFailed"], …], "v": "…payload text"}, partition by partition in offset order;
  then {"end": {"17": [0, 13]}}: log start and the offset up to which all was read. kafka/groups.json: {group: {topic: {partition: committed}}}.

hosts/<name>/ledger: appended by the application itself (never by us), outside every work directory, one `printf >>` a line
    {"kind":"start","token":"att_…","task":"tsk_…","attempt":"1","process":"prc_…","job":"","restarts":"0","pid":"4711","boot":"…","at":"1764040106.123456789","up":"91823.12","argv":"sha256","inputs":{"a.fa":"sha256"}}
    {"kind":"end","token":"att_…","pid":"4711","boot":"…","at":"…","up":"…","status":"3","outputs":{"result.txt":"sha256"}}
  token, task, attempt and process from the environment ($AIRAVATA_TOKEN …), `job` and `restarts` where a batch system tells them, `at` from date +%s.%N, `up` from /proc/uptime, `argv`: sha256 of the
  arguments, each with a NUL behind it. A missing `end` means killed. `inputs`: sha256 of each file it was given, by name.
hosts/<name>/control.jsonl: {"token": "att_…", "epoch": "2", "intent": "…", "receipt": "…", "exit": "…", "duplicate": ["…"], "cancelled": false, "killed": null, "guards": {"1": "…"}, "locks": {"1": "…"}}
hosts/<name>/files.jsonl: {"path": "…", "size": 12, "sha256": "…", "process": "prc_…", "storage": null}: files in work directories and storages at the end.
hosts/<name>/watch.jsonl: {"mono": …, "path": "…", "size": …, "sha256": "…", "part": false}: what a watcher on the host saw under final and part names (optional; P18).

verdict.json
    {"verdict": "HELD" | "BROKEN" | "UNDECIDED", "promises": {"P1": {"title": "…", "verdict": "HELD", "required": true, "exercised": {"launches": 1204, "unknown": 31}, "at_least": {…}, "reasons": [],
      "broken": 0, "witness": {"says": "…", "records": [{"file": "client.jsonl", "line": 812, "text": "…"}]}}}, "sources": {"binlog": {"complete": true, "records": 8123, "faults": []}, …},
     "faults": {"N1": {"planned": 96, "proven": 96}}, "takeover": {"scheduler": {"n": …, "p50": …, "p99": …, "max": …, "thrown_away": …}}, "counts": {…}, "seconds": …}
  Exit 0: every required promise HELD. 1: any promise BROKEN. 2 otherwise.
"""
