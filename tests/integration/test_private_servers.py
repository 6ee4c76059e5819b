"""A private server starts again whatever a SIGKILL left behind, on the port it had."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from app.dev.databases import mysql
from app.dev.servers import ROOT, free_port


def test_no_outgoing_connection_of_this_machine_ever_gets_a_servers_port() -> None:
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert all(1024 < free_port() < lowest for _ in range(20))


def test_no_port_is_given_twice_though_nobody_listens_there_yet() -> None:
    """Among some twenty thousand, four hundred that are only drawn and not noted have twins 97 times in a hundred."""
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: free_port(), range(400)))
    assert len(set(found)) == len(found)


def test_mysql_starts_although_a_lock_file_names_a_process_that_lives(tmp_path: Path) -> None:
    """Its predecessor's pid may have been given to a stranger, or be a zombie that nobody has reaped."""
    daemon, address = mysql(tmp_path / "mysql", ROOT / ".dev/lib/mysql", free_port())
    (socket,) = (each for each in daemon.stale if each.suffix == ".sock")
    socket.with_name(f"{socket.name}.lock").write_text(f"{os.getppid()}\n")  # Not ours: it takes its own parent's pid for no rival.
    try:
        daemon.start()
        daemon.wait()
        address.execute("SELECT 1")
    finally:
        daemon.stop()
