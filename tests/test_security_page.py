"""Each row of docs/security.rst has a test: what an attack costs is measured, and not only said."""

from __future__ import annotations

import ast
import configparser
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = "docs/security.rst"

#: By the first cell of a row: the tests that hold what the second one says.
TESTS = {
    # Who can write to the store.
    "a ticket that does not work": [
        "engine/test_reading.py::test_a_rejected_signature_heals_where_the_ticket_was_replaced",
        "faults/test_plants.py::test_a_plant_comes_to_its_end",
    ],
    "a pickle": [
        "test_cache.py::test_planted_pickle_is_not_loaded",
        "faults/test_files.py::test_a_planted_pickle_is_not_loaded",
    ],
    "a value of another type, what is no JSON, or a directory in place of a file": [
        "test_cache.py::test_what_is_no_file_is_put_aside",
        "test_cache.py::test_damaged_record_is_absent",
        "test_cache.py::test_record_of_another_redis_type_is_absent",
        "faults/test_redis.py::test_damage_under_our_keys_costs_cold_processes_one_call",
        "faults/test_plants.py::test_a_plant_comes_to_its_end",
    ],
    "a value of megabytes": [
        "test_cache.py::test_damaged_record_is_absent",
        "faults/test_plants.py::test_a_plant_comes_to_its_end",
    ],
    "a life, a time or a generation beyond what the extension writes": [
        "test_store.py::test_record_out_of_bounds_is_absent",
        "test_store.py::test_record_out_of_bounds_is_replaced",
        "faults/test_plants.py::test_a_plant_comes_to_its_end",
    ],
    "a time of a day ahead": [
        "engine/test_reading.py::test_a_record_planted_far_ahead_spoils_none_that_follows",
    ],
    "a lease without an end": [
        "test_lease.py::test_redis_lease_that_lasts_longer_than_ours_is_shortened",
        "test_lease.py::test_redis_lease_that_is_repaired_is_told_once",
        "faults/test_redis.py::test_damage_under_the_lease_is_over_with_a_leases_life",
    ],
    "a pause": [
        "engine/test_back_off.py::test_a_note_that_is_none_of_ours_is_passed_over",
        "test_extension.py::test_refresh_passes_over_the_back_off",
    ],
    "a text with line breaks or control characters in a pause": [
        "engine/test_back_off.py::test_texts_of_a_note_are_cleaned",
        "engine/test_back_off.py::test_a_message_of_a_note_is_cleaned",
    ],
    "that ``refresh()`` and pages' complaints were heard lately": [
        "engine/test_limit.py::test_a_damaged_note_has_no_times",
        "engine/test_limit.py::test_no_more_times_are_kept_than_count",
    ],
    "nothing at all: they delete what is there": [
        "faults/test_redis.py::test_flushes_cost_no_call_and_no_line",
    ],
    # Another user of the machine.
    "to read the cache directory": [
        "test_cache.py::test_nobody_else_reads_the_directory",
        "faults/test_files.py::test_nobody_else_can_read_what_is_there_afterwards",
    ],
    "to put their own directory in its place": [
        "test_lease.py::test_directory_of_another_user_is_refused",
        "test_cache.py::test_directory_that_others_can_replace_is_refused",
        "test_cache.py::test_cache_dir_that_is_made_is_not_open_to_all",
        "test_lease.py::test_directory_below_a_sticky_one_is_taken",
    ],
    "to put a link in its place": [
        "test_cache.py::test_directory_that_is_a_link_is_refused",
        "test_cache.py::test_directory_that_becomes_a_link_is_refused",
    ],
    "to be first in ``/tmp`` with the name of our lease's directory": [
        "test_lease.py::test_host_directory_that_is_taken_is_passed_over",
    ],
    "to leave a file that we cannot read": [
        "test_cache.py::test_file_that_cannot_be_read_is_removed",
        "faults/test_files.py::test_a_look_does_not_sleep_over_a_file_of_another_user",
    ],
    # A visitor.
    "a ``Host`` that is no host name": [
        "test_extension.py::test_config_with_a_hostile_host_header"
    ],
    "a ``Host`` that is not yours": ["test_views.py::test_a_host_that_is_not_trusted_is_a_400"],
    "a whole URL in place of the path, ``GET http://evil.example/``": [
        "test_url.py::test_absolute_form_never_gives_the_host",
    ],
    "a path's prefix with a host in it, ``//evil.example``, which a proxy passes on": [
        "test_extension.py::test_client_js_comes_from_the_own_host",
    ],
    "a title or another argument of ``wx_script()`` with HTML in it": [
        "test_extension.py::test_hostile_share",
        "test_extension.py::test_hostile_title_through_a_template",
    ],
    "half of a character, or what else cannot be encoded": [
        "faults/test_leaks.py::test_mistakes_and_settings_leak_nothing",
        "test_signature.py::test_what_cannot_be_encoded_is_not_quoted",
    ],
    "HTML without a script that takes the names ``currentScript``, ``querySelector``, ``wx``, "
    "``WeixinJSBridge``": [
        "browser/test_healing.py::test_forged_elements",
        "browser/test_healing.py::test_forged_elements_and_the_script_alone",
    ],
    # Whoever calls the endpoints.
    "a page of a host that is not in ``WXJSAPI_PAGE_HOSTS``": [
        "test_views.py::test_page_hosts",
        "test_views.py::test_strangers_do_not_fill_the_log",
    ],
    "a page of the ``Host`` that they send themselves": [
        "test_views.py::test_with_a_public_origin_no_host_of_a_request_is_signed",
    ],
    "a URL of many kilobytes, with control characters, or with other hosts in its user part": [
        "test_views.py::test_anything_else_is_refused_with_a_reason",
        "test_views.py::test_the_reason_quotes_no_query",
    ],
    "``rejected=1`` without a signature of ours, with one for another page, or of an older "
    "ticket": [
        "test_views.py::test_a_signature_that_is_not_ours_is_no_complaint",
        "test_views.py::test_a_signature_for_another_page_is_no_complaint",
        "test_views.py::test_a_signature_of_an_older_ticket_is_no_complaint",
    ],
    "``rejected=1`` with a signature that the current ticket made": [
        "test_views.py::test_a_rejected_signature_is_verified_once",
        "test_views.py::test_complaints_of_strangers_silence_nobody",
    ],
    "the same from a page of another site, as an image, or by ``POST``": [
        "test_views.py::test_another_site_has_nothing_to_complain_of",
        "test_views.py::test_a_complaint_is_a_get",
    ],
    "the answer, by a script of another site": ["test_views.py::test_no_cors_for_others"],
    "an answer that a cache keeps for somebody else": [
        "test_views.py::test_the_answer_is_the_config",
        "test_views.py::test_no_cors_for_others",
    ],
    "accounts that are not there, where there is an :doc:`account_loader <accounts>`": [
        "test_account_loader.py::test_strangers_ask_the_loader_a_few_times_a_second",
        "faults/test_loader_faults.py::test_strangers_who_name_ever_other_accounts",
    ],
    "accounts that are there, one after the other": [
        "test_account_loader.py::test_accounts_share_one_thread_and_are_kept_once_they_are_read",
        "test_account_memory.py::test_the_thread_drops_what_nobody_has_read_for_a_day",
    ],
    "one account's signature for the pages of another": [
        "test_account_loader.py::test_the_endpoint_signs_for_each_account_on_its_hosts",
    ],
    # The account_loader.
    "raises, with a secret in the text": [
        "test_account_loader.py::test_a_loader_that_fails_is_not_asked_by_every_reader",
        "faults/test_leaks.py::test_no_failure_leaks",
    ],
    "answers what cannot be right": [
        "test_account_loader.py::test_a_bad_answer_is_named_without_its_secret",
    ],
    "hangs": ["faults/test_loader_faults.py::test_a_loader_that_hangs_holds_up_its_account_alone"],
    # A central server.
    "no bearer token": [
        "test_central.py::test_everybody_else_gets_401",
        "test_central.py::test_tokens_are_compared_in_constant_time",
        "test_central.py::test_the_log_has_a_line_a_minute",
    ],
    "a bearer token": [
        "test_central.py::test_nothing_else_is_served",
        "test_central.py::test_no_other_method",
    ],
    "a bearer token, and name ever other tickets as rejected": [
        "test_central.py::test_a_wrong_fingerprint_costs_nothing",
    ],
    "a bearer token, and name the current ticket as rejected": [
        "test_central.py::test_a_rejected_ticket_is_passed_on",
        "engine/test_limit.py::test_each_span_has_its_most",
    ],
    "a page of another site, and a visitor with a bearer token": [
        "test_central.py::test_no_page_of_another_host_may_read_it",
    ],
    # The network.
    "have a certificate that nobody signed": [
        "test_http.py::test_self_signed_certificate_is_refused",
    ],
    "redirect to a host of theirs": [
        "test_http.py::test_redirect_is_not_followed",
        "test_http.py::test_a_redirects_body_is_not_read",
    ],
    "answer a byte a second, without an end, or not at all": [
        "test_http.py::test_body_without_an_end",
        "test_http.py::test_tls_handshake_that_drips",
        "test_http.py::test_proxy_that_drips",
        "test_http.py::test_resolver_that_takes_too_long",
    ],
    "answer with a few bytes that unpack to gigabytes": [
        "test_http.py::test_a_bomb_is_not_unpacked"
    ],
    "echo what they were sent in an error's text": ["faults/test_leaks.py::test_no_failure_leaks"],
    "read along where there is no TLS": ["test_central.py::test_doctor_warns_of_plain_http"],
    "stand in the environment as a proxy": [
        "test_http.py::test_query_through_a_tunnel",
        "test_http.py::test_socks_proxy_without_what_it_needs",
        "test_http.py::test_netrc_is_not_used_elsewhere",
    ],
    "know a hole in a library": [
        "test_security_page.py::test_the_lowest_versions_are_those_of_the_page",
    ],
}


@cache
def names_in(file: str) -> set[str]:
    tree = ast.parse((ROOT / "tests" / file).read_text("utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def cells(page: str) -> list[tuple[str, str]]:
    """The rows of a page's tables, but for their headings."""
    text = (ROOT / page).read_text("utf-8")
    rows: list[tuple[str, str]] = []
    for table in text.split(".. list-table::")[1:]:
        found = re.findall(
            r"^   \* - (.+(?:\n       .+)*)\n     - (.+(?:\n       .+)*)", table, re.M
        )
        rows += [(" ".join(what.split()), " ".join(cost.split())) for what, cost in found[1:]]
    return rows


def test_each_row_of_the_page_has_its_tests() -> None:
    """No row without a test, and no test for a row that is gone."""
    rows = cells(PAGE)
    assert all(cost for _, cost in rows)
    assert [what for what, _ in rows] == list(TESTS)
    assert all(TESTS.values())


@pytest.mark.parametrize("row", TESTS)
def test_the_tests_of_a_row_exist(row: str) -> None:
    """By file and name."""
    named = [test.split("::") for test in TESTS[row]]
    assert [name for file, name in named if name not in names_in(file)] == []


def test_both_languages_have_the_same_rows() -> None:
    """The Chinese page's tables are as long as the English one's."""
    assert len(cells("docs/zh/security.rst")) == len(cells(PAGE))


def test_the_lowest_versions_are_those_of_the_page() -> None:
    """What the package admits is what the page calls free of known holes."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    admitted = dict(
        requirement.split(">=") for requirement in setup["options"]["install_requires"].split()
    )
    (row,) = (cost for what, cost in cells(PAGE) if what == "know a hole in a library")
    for name in ("Flask", "requests"):
        assert f"{name} {admitted[name]}" in row
