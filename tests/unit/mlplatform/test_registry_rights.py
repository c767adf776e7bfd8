"""Who may do what in the registry, from an environment; and what has to be done to a registry that is in any state."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlplatform.environment import Environment, parse_environment
from mlplatform.errors import ConfigError
from mlplatform.plan.credentials import secret_objects
from mlplatform.plan.registry_rights import CHAMPIONS, GRANTS, READER, RUNS, Account, RegistryRights, registry_rights
from mlplatform.registry.difference import EVERYTHING, AccountThere, Act, Given, Picture, RoleThere, Verb, acts, strangers

LAPTOP = (Path(__file__).resolve().parents[3] / "platform" / "environments" / "laptop.yaml").read_text()


def environment(registry: str = "{}", text: str = LAPTOP) -> Environment:
    return parse_environment(f"{text}\nregistry: {registry}\n", "laptop.yaml")


def accounts(told: Environment) -> dict[str, Account]:
    return {account.user: account for account in registry_rights(told).accounts}


def rights(registry: str = "{}", text: str = LAPTOP) -> RegistryRights:
    return registry_rights(environment(registry, text))


EMPTY = Picture(workspaces=frozenset({"default"}), roles=(), accounts=(AccountThere(user="admin", is_admin=True, roles=frozenset()),))


# -- what an environment means --------------------------------------------------------------------------------------------


def test_a_team_has_an_account_for_its_pods_and_one_for_each_role_that_somebody_has() -> None:
    assert set(accounts(environment())) == {
        "fraud.runs",
        "fraud.viewer",
        "fraud.approver",
        "fraud.releaser",
        "search.runs",
        "search.viewer",
    }


def test_everybody_with_a_role_may_read_and_only_approvers_and_releasers_name_champions() -> None:
    found = accounts(environment())
    assert found["fraud.viewer"].people == ("user:ana@example.com", "user:ben@example.com", "group:finance@example.com")
    assert found["fraud.approver"].people == ("user:ben@example.com",)
    assert {user: account.roles for user, account in found.items() if account.workspace == "fraud"} == {
        "fraud.runs": (("fraud", RUNS),),
        "fraud.viewer": (("fraud", READER),),
        "fraud.approver": (("fraud", CHAMPIONS),),
        "fraud.releaser": (("fraud", CHAMPIONS),),
    }


def test_the_password_of_pods_lies_in_every_namespace_of_the_team_and_nobodys_is_there_beside_it() -> None:
    there = [(each.namespace, each.name) for each in secret_objects(environment()) if each.name.startswith("registry-")]
    assert {name for namespace, name in there if namespace != "mlflow"} == {"registry-account"}
    assert {namespace for namespace, name in there if name == "registry-account"} == {"fraud", "search", "search-dev"}
    kept = {each.namespace: each.sources["password"].name for each in secret_objects(environment()) if each.name == "registry-account"}
    assert kept == {"fraud": "mlflow-fraud-runs", "search": "mlflow-search-runs", "search-dev": "mlflow-search-runs"}


def test_others_are_hidden_unless_the_file_says_that_they_may_be_read() -> None:
    assert {team for account in rights().accounts for team, _ in account.roles if team != account.workspace} == set()
    shown = accounts(environment("{others: read}"))
    assert shown["search.runs"].roles == (("search", RUNS), ("fraud", READER))
    assert all(role == READER for account in shown.values() for team, role in account.roles if team != account.workspace)


def test_an_auditor_reads_every_team() -> None:
    auditor = accounts(environment("{auditors: [group:audit@example.com]}"))["auditor"]
    assert auditor.roles == (("fraud", READER), ("search", READER))
    assert auditor.people == ("group:audit@example.com",)


def test_a_reader_changes_nothing_and_nobody_but_the_administrator_deletes_a_version() -> None:
    assert {grant.permission for grant in GRANTS[READER]} == {"READ"}
    for role in (RUNS, CHAMPIONS):
        assert {grant.permission for grant in GRANTS[role] if grant.resource == "registered_model_version"} == {"EDIT"}


def test_no_account_is_of_two_teams_whatever_they_are_called() -> None:
    text = LAPTOP.replace("  search:\n    namespaces: [search, search-dev]", "  fraud-viewer:\n    namespaces: [search, search-dev]")
    users = [account.user for account in rights(text=text).accounts]
    secrets = [(each.namespace, each.name) for each in secret_objects(environment(text=text))]
    assert len(set(users)) == len(users)
    assert len(set(secrets)) == len(secrets)


@pytest.mark.parametrize("name", ["default", "workspaces", "a"])
def test_a_team_that_can_have_no_workspace_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"teams\.{name}: the registry can have no workspace"):
        environment(text=LAPTOP.replace("  search:\n    namespaces", f"  {name}:\n    namespaces"))


# -- what has to be done --------------------------------------------------------------------------------------------------


def done(picture: Picture, todo: list[Act]) -> Picture:
    """The picture after these acts, as MLflow carries them out."""
    for act in todo:
        picture = after(picture, act)
    return picture


def after(there: Picture, act: Act) -> Picture:
    if act.verb == Verb.MAKE_WORKSPACE:
        return replace(there, workspaces=there.workspaces | {act.workspace})
    roles = {(role.workspace, role.name): role for role in there.roles}
    users = {each.user: each for each in there.accounts}
    if act.user:
        assert act.verb != Verb.ASSIGN or (act.workspace, act.role) in roles
        _after_account(users, act)
    else:
        assert act.workspace in there.workspaces
        _after_role(roles, act)
    left = {name: replace(each, roles=each.roles & roles.keys()) for name, each in users.items()}
    return replace(there, roles=tuple(roles.values()), accounts=tuple(left.values()))


def _after_account(users: dict[str, AccountThere], act: Act) -> None:
    key = (act.workspace, act.role)
    match act.verb, users.get(act.user):
        case Verb.MAKE_ACCOUNT, None:
            users[act.user] = AccountThere(user=act.user, is_admin=False, roles=frozenset())
        case Verb.REMOVE_ACCOUNT, AccountThere():
            del users[act.user]
        case Verb.SET_PASSWORD, AccountThere() as user:
            users[act.user] = replace(user, knows=True)
        case Verb.REMOVE_ADMIN, AccountThere() as user:
            users[act.user] = replace(user, is_admin=False)
        case Verb.ASSIGN, AccountThere() as user:
            users[act.user] = replace(user, roles=user.roles | {key})
        case Verb.UNASSIGN, AccountThere() as user:
            users[act.user] = replace(user, roles=user.roles - {key})
        case Verb.REVOKE_OWN, AccountThere() as user:
            users[act.user] = replace(user, own=frozenset(one for one in user.own if one != (act.workspace, act.given)))
        case _:
            raise AssertionError(act)


def _after_role(roles: dict[tuple[str, str], RoleThere], act: Act) -> None:
    key = (act.workspace, act.role)
    match act.verb, roles.get(key), act.given:
        case Verb.MAKE_ROLE, None, None:
            roles[key] = RoleThere(workspace=act.workspace, name=act.role, given=frozenset())
        case Verb.REMOVE_ROLE, RoleThere(), None:
            del roles[key]
        case verb, RoleThere() as role, Given() as given:
            left = {one for one in role.given if (one.resource, one.pattern) != (given.resource, given.pattern)}
            assert (len(left) < len(role.given)) == (verb != Verb.GRANT), "a grant is there once"
            roles[key] = replace(role, given=frozenset(left if verb == Verb.REVOKE else {*left, given}))
        case _:
            raise AssertionError(act)


TEAMS = st.sampled_from(["fraud", "search", "gone"])
GIVEN = st.builds(
    Given,
    resource=st.sampled_from(["experiment", "registered_model", "registered_model_version", "workspace"]),
    pattern=st.sampled_from([EVERYTHING, "7"]),
    permission=st.sampled_from(["READ", "EDIT", "MANAGE", "USE"]),
)


@st.composite
def pictures(draw: st.DrawFn) -> Picture:
    """Whatever a registry may have come to."""
    names = draw(st.sets(st.tuples(TEAMS, st.sampled_from([*GRANTS, "made-by-hand"])), max_size=6))
    # MLflow keeps one permission for each kind and pattern of a role.
    given = {key: {(one.resource, one.pattern): one for one in draw(st.lists(GIVEN, max_size=4))} for key in names}
    roles = tuple(RoleThere(workspace=w, name=n, given=frozenset(given[w, n].values())) for w, n in sorted(names))
    users = draw(st.sets(st.sampled_from(["fraud.runs", "fraud.viewer", "search.approver", "gone.runs", "auditor", "bob"]), max_size=5))
    held = st.frozensets(st.sampled_from(sorted(names)), max_size=3) if names else st.just(frozenset())
    own = st.frozensets(st.tuples(TEAMS, GIVEN), max_size=2)
    people = tuple(
        AccountThere(user=user, is_admin=draw(st.booleans()), roles=draw(held), own=draw(own), knows=draw(st.booleans()))
        for user in sorted(users)
    )
    return Picture(
        workspaces=frozenset({"default", *(workspace for workspace, _ in names)}), roles=roles, accounts=(*EMPTY.accounts, *people)
    )


@given(pictures(), st.sampled_from(["{}", "{others: read}", "{auditors: [group:audit@example.com]}"]))
def test_from_any_state_the_registry_comes_to_what_the_file_says_and_stays(there: Picture, registry: str) -> None:
    wanted = rights(registry)
    now = done(there, acts(wanted, there))
    assert acts(wanted, now) == []
    found = {each.user: each for each in now.accounts}
    for account in wanted.accounts:
        assert found[account.user].roles == set(account.roles)
        assert found[account.user].knows
        assert not found[account.user].is_admin
    granted = {(role.workspace, role.name): {(each.resource, each.permission) for each in role.given} for role in now.roles}
    for role in wanted.roles:
        assert granted[role.workspace, role.name] == {(grant.resource, grant.permission) for grant in role.grants}
    strange = {user for user in found if user not in {account.user for account in wanted.accounts}}
    assert strange <= {"admin", "bob"}, "who is in the file no more is known no more"
    assert {role for role in there.roles if role.name == "made-by-hand"} <= set(now.roles)


@given(pictures(), st.data())
def test_interrupted_anywhere_it_goes_on_and_nobody_of_ours_ever_has_more_than_before_or_after(there: Picture, data: st.DataObject) -> None:
    wanted = rights()
    todo = acts(wanted, there)
    middle = done(there, todo[: data.draw(st.integers(0, len(todo)))])
    assert acts(wanted, done(middle, acts(wanted, middle))) == []
    before, last = held(there), held(done(there, todo))
    assert all(rights <= before.get(user, frozenset()) | last.get(user, frozenset()) for user, rights in held(middle).items())


def held(picture: Picture) -> dict[str, frozenset[tuple[str, Given]]]:
    """What each account has, by its roles and by itself."""
    given = {(role.workspace, role.name): role.given for role in picture.roles}
    return {each.user: each.own | {(key[0], one) for key in each.roles for one in given.get(key, frozenset())} for each in picture.accounts}


def test_who_leaves_the_file_loses_the_account_and_a_team_that_leaves_all_of_them() -> None:
    before = done(EMPTY, acts(rights(), EMPTY))
    without_ben = rights(text=LAPTOP.replace("      approver: [user:ben@example.com]\n", ""))
    assert [str(act) for act in acts(without_ben, before)] == ["remove account fraud.approver"]
    search = LAPTOP[LAPTOP.index("  search:\n") : LAPTOP.index("storage:")]
    gone = acts(rights(text=LAPTOP.replace(search, "\n").replace(", callers: [search]", "")), before)
    assert {str(act) for act in gone} == {
        "remove account search.runs",
        "remove account search.viewer",
        *(f"remove role search/{name}" for name in GRANTS),
    }


def test_what_pods_made_at_home_stays_theirs_and_what_anybody_holds_elsewhere_goes() -> None:
    mine = Given(resource="registered_model", pattern="cards", permission="MANAGE")
    before = done(EMPTY, acts(rights(), EMPTY))
    held_by = {"fraud.runs": frozenset({("fraud", mine), ("search", mine)}), "fraud.viewer": frozenset({("fraud", mine)})}
    there = replace(before, accounts=tuple(replace(each, own=held_by.get(each.user, frozenset())) for each in before.accounts))
    assert {str(act) for act in acts(rights(), there)} == {
        "revoke what it holds by itself from fraud.runs: MANAGE on registered_model cards in search",
        "revoke what it holds by itself from fraud.viewer: MANAGE on registered_model cards in fraud",
    }


def test_an_account_that_somebody_made_by_hand_is_named_and_left_alone() -> None:
    bob = AccountThere(user="bob", is_admin=True, roles=frozenset())
    there = replace(EMPTY, accounts=(*EMPTY.accounts, bob))
    assert strangers(there) == ["bob, an administrator"]
    assert not [act for act in acts(rights(), there) if act.user == "bob"]
