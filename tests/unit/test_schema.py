"""Whether this release can run on a schema is asked with each heartbeat: also by a process that can open no more files."""

import resource

import migrations
from migrations import Schema


def test_a_heartbeat_opens_no_file() -> None:
    head = migrations.head()  # As each process does when it starts.
    kept = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, kept[1]))
    try:
        assert migrations.judge(head) is Schema.CURRENT
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, kept)
