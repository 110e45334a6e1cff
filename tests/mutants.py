"""Breaks the library on purpose: every break must turn its tests red.

    python -m tests.mutants [NAME ...]

Each mutant is one replacement in one module, made in a copy of the tree, and names the tests that
must fail for it. A mutant that survives is a behaviour that nothing watches over.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

MODEL = "tests/test_model.py"
ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Mutant:
    name: str
    module: str
    old: str
    new: str
    tests: str


MUTANTS = [
    Mutant(
        "lease removed",
        "_engine/provider",
        "while not session.take_lease():",
        "while False:",
        "tests/test_provider.py::test_the_background_thread_does_not_wait_for_the_lease",
    ),
    Mutant(
        "lease removed, seen by the model",
        "_engine/provider",
        "while not session.take_lease():",
        "while False:",
        MODEL,
    ),
    Mutant(
        "shared back-off removed, seen by the model",
        "_engine/provider",
        "        shared = BackOff.from_note(session.note(_note(slot)), self._digest)",
        "        shared = None",
        MODEL,
    ),
    Mutant(
        "lost records not given back, seen by the model",
        "_engine/provider",
        "            self._restore(lost, session)\n",
        "            pass\n",
        MODEL,
    ),
    Mutant(
        "lease never released",
        "_engine/provider",
        "            session.release_lease()\n            self._land",
        "            self._land",
        "tests/test_provider.py::test_the_lease_is_free_after_a_renewal",
    ),
    Mutant(
        "re-read under the lease removed",
        "_engine/provider",
        "read again before asking WeChat.\n        if self._is_settled(flight, session):",
        "read again before asking WeChat.\n        if False:",
        "tests/test_provider.py::test_the_store_is_read_again_under_the_lease",
    ),
    Mutant(
        "waiting for the holder removed",
        "_engine/provider",
        "            if flight.mode in (Mode.TRY, Mode.VERIFY):\n",
        "            if True:\n",
        "tests/test_provider.py::test_a_cold_reader_waits_for_another_process",
    ),
    Mutant(
        "shared back-off removed",
        "_engine/provider",
        "        shared = BackOff.from_note(session.note(_note(slot)), self._digest)",
        "        shared = None",
        "tests/test_provider.py::test_the_back_off_is_shared_through_the_store",
    ),
    Mutant(
        "own back-off removed",
        "_engine/provider",
        "max(filter(None, (shared, slot.back_off))",
        "max(filter(None, (shared,))",
        "tests/test_provider.py::test_with_store_and_wechat_down_each_process_backs_off",
    ),
    Mutant(
        "settings digest removed",
        "_engine/back_off",
        '        if note.get("digest") != digest:',
        "        if not note:",
        "tests/test_provider.py::test_corrected_settings_are_not_held_up",
    ),
    Mutant(
        "long back-off removed",
        "_engine/back_off",
        "_SHORT, _LONG, _LONG_AFTER = 60.0, 400.0, 1800.0",
        "_SHORT, _LONG, _LONG_AFTER = 60.0, 60.0, 1800.0",
        "tests/test_provider.py::test_the_worst_day_costs_fewer_than_300_calls",
    ),
    Mutant(
        "permanent errors retried like others",
        "_engine/back_off",
        "        if asked is not None and asked.hold:",
        "        if False:",
        "tests/test_provider.py::test_a_permanent_error_waits_a_quarter_of_an_hour",
    ),
    Mutant(
        "margin removed",
        "_credential",
        "        return self.expires_at - min(_MARGIN, (self.expires_at - self.issued_at) / 10)",
        "        return self.expires_at",
        "tests/test_provider.py::test_no_ticket_is_handed_out_in_the_margin",
    ),
    Mutant(
        "half-life lead removed",
        "_credential",
        "self.expires_at - min(ahead, (self.expires_at - self.issued_at) / 2)",
        "self.expires_at - ahead",
        "tests/test_provider.py::test_a_day_of_remaining_lives_has_no_tight_loop",
    ),
    Mutant(
        "record from the future believed",
        "_credential",
        " or now < self.issued_at - CLOCK_SKEW:",
        ":",
        "tests/test_provider.py::test_generations_survive_a_lost_store_and_a_clock_set_back",
    ),
    Mutant(
        "generation check on save removed",
        "_storage/store",
        "        if stored is None or credential.is_newer_than(stored):",
        "        if True:",
        "tests/test_provider.py::test_a_late_result_replaces_nothing_newer",
    ),
    Mutant(
        "generation counted after the call",
        "_engine/provider",
        "                generation=max(int(credential.issued_at), generation),",
        "                generation=(slot.held.generation + 1 if slot.held else 1),",
        "tests/test_provider.py::"
        "test_what_a_replaced_renewal_brings_at_last_replaces_nothing_newer",
    ),
    Mutant(
        "lost records not given back",
        "_engine/provider",
        "            self._restore(lost, session)\n",
        "            pass\n",
        "tests/test_provider.py::test_a_lost_record_is_given_back_without_an_upstream_call",
    ),
    Mutant(
        "stale ticket renewed by every process while the store is down",
        "_engine/provider",
        "not is_invalid and not session.is_sound(slot.kind):",
        "False:",
        "tests/test_provider.py::test_a_store_that_is_down_is_logged_once_and_costs_no_call",
    ),
    Mutant(
        "rejected token not dropped",
        "_engine/provider",
        "            self._drop(token, used, session)\n",
        "",
        "tests/test_provider.py::test_a_rejected_token_is_not_handed_out",
    ),
    Mutant(
        "rejected token not retried",
        "_engine/provider",
        "        if may_be_rejected and getattr(",
        "        if False and getattr(",
        "tests/test_provider.py::test_a_rejected_token_is_replaced_once",
    ),
    Mutant(
        "failure not shared with waiters",
        "_engine/provider",
        "flight.error or self._state(slot) is not State.INVALID",
        "self._state(slot) is not State.INVALID",
        "tests/test_provider.py::test_a_reader_shares_the_failure_of_the_threads_attempt",
    ),
    Mutant(
        "failure not remembered",
        "_engine/provider",
        "        return slot.failure is not None and 0 <= self._time() - slot.landed_at < _MOMENT",
        "        return False",
        "tests/test_provider.py::test_a_failure_is_remembered_without_a_look_at_the_store",
    ),
    Mutant(
        "overdue renewal not replaced",
        "_engine/provider",
        "                if flight.hangs is None and now >= flight.deadline + _GRACE:",
        "                if False:",
        "tests/test_provider.py::test_a_renewal_that_hangs_is_replaced",
    ),
    Mutant(
        "renewals that hang are under no back-off",
        "_engine/provider",
        "                if flight.hangs is None or flight.hangs.blocks(self._time()):",
        "                if flight.hangs is None:",
        "tests/test_provider.py::test_renewals_that_hang_for_ever_are_fewer_and_fewer",
    ),
    Mutant(
        "overdue renewal keeps its lease",
        "_engine/provider",
        "            flight.overdue.session.release_lease()",
        "            pass",
        "tests/test_provider.py::test_a_renewal_that_hangs_is_replaced",
    ),
    Mutant(
        "pause between two refresh() removed",
        "_engine/provider",
        'Mode.FORCE: _Limit("refresh", ((1, 10),))',
        'Mode.FORCE: _Limit("refresh", ((9, 10),))',
        "tests/test_provider.py::test_refresh_twice_in_ten_seconds_is_one_renewal_for_the_cluster",
    ),
    Mutant(
        "PID check removed",
        "_engine/worker",
        "        pid = os.getpid()\n        run = self._current",
        "        pid = 1\n        run = self._current",
        "tests/test_worker.py::test_a_forked_child_goes_on_with_the_ticket_and_a_thread_of_its_own",
    ),
    Mutant(
        "thread dies of an exception",
        "_engine/worker",
        "            except Exception as error:",
        "            except ArithmeticError if not __debug__ else () as error:",
        "tests/test_worker.py::test_it_survives_every_exception",
    ),
    Mutant(
        "query in the URL that requests is given",
        "_upstream/http",
        "                base_url + path,",
        '                base_url + path + "?" + call.query,',
        "tests/test_http.py::test_the_query_is_in_no_url",
    ),
    Mutant(
        "cut-off of a dripping answer removed",
        "_upstream/http",
        "        _start(self._timer)\n",
        "        pass\n",
        "tests/test_http.py",
    ),
    Mutant(
        "a resolver that hangs is waited for",
        "_upstream/http",
        "    errand.join(call.left())",
        "    errand.join()",
        "tests/test_http.py::test_resolver_that_takes_too_long",
    ),
    Mutant(
        "the first address may take all the time",
        "_upstream/http",
        "_share(call.left(), len(addresses) - tried)",
        "call.left()",
        "tests/test_http.py::test_a_live_address_behind_two_that_swallow_packets",
    ),
    Mutant(
        "tickets served to strangers",
        "_views",
        "            name = client\n",
        "            pass\n        name = client\n",
        "tests/test_central.py::test_everybody_else_gets_401",
    ),
    Mutant(
        "a whole life promised to a client",
        "_views",
        "life = int(credential.expires_at - time.time())",
        "life = 7200",
        "tests/test_central.py::test_what_is_left_of_its_life",
    ),
    Mutant(
        "a rejected ticket not passed on",
        "_engine/provider",
        "rejected = slot.held if flight.mode is Mode.VERIFY else None",
        "rejected = None",
        "tests/test_central.py::test_a_rejected_ticket_is_passed_on",
    ),
    Mutant(
        "agents share their keys",
        "_extension",
        "            prefix = f\"{corp}{settings.digest[:8]}-{settings.agent_id or ''}:\"\n",
        "",
        "tests/test_accounts.py",
    ),
    Mutant(
        "raw URL replaced by request.url",
        "_extension",
        "    return page_url(environ, settings.public_origin)",
        "    return request.url",
        "tests/test_url_servers.py tests/test_extension.py",
    ),
    Mutant(
        "pickle read from the store",
        "_storage/cache",
        "            backend.serializer = _TextSerializer()",
        "            pass",
        "tests/test_cache.py",
    ),
    Mutant(
        "pages may verify as often as they like",
        "_engine/provider",
        'Mode.VERIFY: _Limit("verify", ((1, 600), (24, 86400)))',
        'Mode.VERIFY: _Limit("verify", ((10**6, 600),))',
        "tests/test_provider.py::test_pages_cost_one_call_in_ten_minutes_for_the_whole_cluster",
    ),
    Mutant(
        "no daily limit for pages",
        "_engine/provider",
        "((1, 600), (24, 86400))",
        "((1, 600),)",
        "tests/test_provider.py::test_pages_cost_24_calls_a_day",
    ),
    Mutant(
        "pages pass over the back-off",
        "_engine/provider",
        "        if flight.mode is Mode.FORCE:\n            return False",
        "        if flight.mode in _LIMITS:\n            return False",
        "tests/test_provider.py::test_a_rejected_signature_does_not_pass_over_the_back_off",
    ),
    Mutant(
        "pages of any host are signed",
        "_page/url",
        "    if not _is_host_of(page, hosts):",
        "    if False:",
        "tests/test_views.py::test_anything_else_is_refused_with_a_reason",
    ),
    Mutant(
        "a domain's name at the end is enough",
        "_page/url",
        'f".{host}".endswith(entry)',
        "host.endswith(entry[1:])",
        "tests/test_views.py::test_page_hosts",
    ),
    Mutant(
        "the port does not count",
        "_page/url",
        "host = without_default_port(page[2].lower(), page[1])",
        'host = page[2].lower().partition(":")[0]',
        "tests/test_views.py",
    ),
    Mutant(
        "the query of a page is logged",
        "_views",
        're.split("[?#]", url, maxsplit=1)[0]',
        "url",
        "tests/test_views.py::test_a_rejected_signature_is_verified_once",
    ),
    Mutant(
        "the nonce is missing on the spare script",
        "_page/script",
        '        run(Markup("window.wx||document.write',
        '        Markup("<script>%s</script>") % (Markup("window.wx||document.write',
        "tests/test_extension.py::test_nonce_stands_on_both_tags",
    ),
]


def main(names: list[str]) -> int:
    survivors = []
    chosen = [mutant for mutant in MUTANTS if not names or mutant.name in names]
    tests = sorted({test for mutant in chosen for test in mutant.tests.split()})
    if _pytest(ROOT, tests) != 0:
        print("The named tests fail without any mutant: mend that first.")
        return 1
    for mutant in chosen:
        verdict = _run(mutant)
        print(f"{verdict:8}  {mutant.name}", flush=True)
        if verdict != "red":
            survivors.append(mutant.name)
    print(f"{len(survivors)} of {len(chosen)} mutants survived {survivors or ''}")
    return 1 if survivors else 0


def _run(mutant: Mutant) -> str:
    with tempfile.TemporaryDirectory() as directory:
        tree = Path(directory)
        for name in ("flask_wxjsapi", "tests", "examples"):
            shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("setup.cfg", "conftest.py"):
            shutil.copy(ROOT / name, tree)
        source = tree / "flask_wxjsapi" / f"{mutant.module}.py"
        text = source.read_text()
        if text.count(mutant.old) != 1:
            return f"stale ({text.count(mutant.old)})"
        source.write_text(text.replace(mutant.old, mutant.new))
        # 1 is "tests failed"; anything else but 0 means that they did not run.
        code = _pytest(tree, mutant.tests.split())
        return {0: "ALIVE", 1: "red"}.get(code, f"broken ({code})")


def _pytest(tree: Path, tests: list[str]) -> int:
    command = [sys.executable, "-m", "pytest", "-q", "-x", *tests, "-p", "no:cacheprovider"]
    try:
        env = os.environ | {"WXJSAPI_TEST_QUICK": "1", "WXJSAPI_TEST_EXAMPLES": "200"}
        done = subprocess.run(command, cwd=tree, env=env, capture_output=True, timeout=300)
        return done.returncode
    except subprocess.TimeoutExpired:
        return 1  # it hangs, which is what the break is about


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
