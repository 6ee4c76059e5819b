"""Audit rows: who did what, in the transaction that did it."""

from datetime import datetime

from app.mysql.rows import inserting
from app.mysql.unit_of_work import Transaction


def append(tx: Transaction, *, gateway_id: str | None, user: str, action: str, subject: str, reason: str | None, request_id: str, at: datetime) -> None:
    row = (gateway_id, user, action, subject, reason, request_id, at)
    tx.exec_driver_sql(inserting("audit", "gateway_id, user, action, subject, reason, request_id, at"), row)
