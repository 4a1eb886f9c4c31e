import getpass

import pytest

from etude.core.user import current_user


@pytest.mark.parametrize(
    ("variables", "practice", "papers", "other"),
    [
        ({}, "account", "account", "account"),
        ({"ETUDE_USER": "ada"}, "ada", "ada", "ada"),
        ({"ETUDE_USER": ""}, "account", "account", "account"),
        ({"ETUDE_LEARNER": "bob"}, "bob", "bob", "bob"),
        ({"ETUDE_READER": "eve"}, "account", "eve", "eve"),
        ({"ETUDE_LEARNER": "bob", "ETUDE_READER": "eve"}, "bob", "eve", "bob"),
        (
            {"ETUDE_USER": "ada", "ETUDE_LEARNER": "bob", "ETUDE_READER": "eve"},
            "ada",
            "ada",
            "ada",
        ),
    ],
)
def test_one_name_and_the_former_ones_as_they_were(monkeypatch, variables, practice, papers, other):
    for name in ("ETUDE_USER", "ETUDE_LEARNER", "ETUDE_READER"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(getpass, "getuser", lambda: "account")
    found = current_user("practice"), current_user("papers"), current_user()
    assert found == (practice, papers, other)


def test_an_account_without_a_name_has_a_number(monkeypatch):
    for name in ("ETUDE_USER", "ETUDE_LEARNER", "ETUDE_READER"):
        monkeypatch.delenv(name, raising=False)

    def nobody():
        raise KeyError("getpwuid(): uid not found: 4711")

    monkeypatch.setattr(getpass, "getuser", nobody)
    monkeypatch.setattr("os.getuid", lambda: 4711)
    assert current_user() == "user-4711"
