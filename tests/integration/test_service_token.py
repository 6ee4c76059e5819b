"""The sink's token: its secret exists before the API does, `airavata admin service-token` makes it known."""

from datetime import timedelta

import pytest

from app import admin, secrets
from app.errors import Illegal, Misconfigured
from app.mysql import access, engine
from app.mysql.unit_of_work import now, unit_of_work
from app.settings import Settings, read

KEY = "k" * 40


def settings(database: str, token: str, key: str = KEY) -> Settings:
    return read({"AIRAVATA_MYSQL_URL": database, "AIRAVATA_TOKEN_KEY": key, "AIRAVATA_INTERNAL_TOKEN": token})


def test_the_token_of_the_secret_becomes_one_of_role_service_and_a_repeat_prolongs_it(shared_database: str) -> None:
    token, lookup = secrets.new_token()
    begin, said = unit_of_work(engine.connect(shared_database, size=1)), []
    admin.service_token(settings(shared_database, token), say=said.append)
    with begin("test.age") as tx:
        made = access.find_token(tx, lookup)
        assert made is not None
        access.prolong_token(tx, made.id, expires_at=now(tx) - timedelta(days=1))
    admin.service_token(settings(shared_database, token), say=said.append)
    with begin("test.look") as tx:
        found = access.find_token(tx, lookup)
        assert found is not None
        assert (found.id, found.role, found.gateway_id, found.scopes) == (made.id, "service", None, "internal:events")
        assert found.expires_at > now(tx) + timedelta(days=89)
    assert [each.split(",")[0] for each in said] == ["the service token is known now", "the service token was known"]


def test_a_revoked_token_is_not_brought_back(shared_database: str) -> None:
    token, lookup = secrets.new_token()
    admin.service_token(settings(shared_database, token), say=lambda _: None)
    with unit_of_work(engine.connect(shared_database, size=1))("test.revoke") as tx:
        found = access.find_token(tx, lookup)
        assert found is not None
        access.revoke_token(tx, found.id)
    with pytest.raises(Illegal):
        admin.service_token(settings(shared_database, token), say=lambda _: None)


@pytest.mark.parametrize(("token", "key"), [("", KEY), ("secret", KEY), (f"airv_{'a' * 12}_{'b' * 52}", "short")], ids=["none", "no token", "short key"])
def test_what_is_no_token_or_no_key_is_refused(shared_database: str, token: str, key: str) -> None:
    with pytest.raises(Misconfigured):
        admin.service_token(settings(shared_database, token, key), say=lambda _: None)
