"""Who decides: when a credential is handed out, renewed, waited for and left alone.

::

    reading     a view asks: from the snapshot, or wait for the renewal under way
       |
    runtime     one per process and app: single flight, the schedule
       |  \
       |   turns                whose turn it is: at most eight at once, beside those that hang
       |   thread, threads      what ticks, and what may hang
       |
    renewal     one attempt: look, lease, look again, ask, publish, save, release
       |  \
       |   purpose, limit       what it may do
       |
    asking      the upstream, also where it repeats itself to the end
    adopting    what becomes of a record found in the store
       |
    snapshot    what a process holds; an account is a holding of snapshots
    back_off    the pause after a failure, shared through the store
    schedule    what is due when

No module here knows Flask, HTTP or a cache. Each is given its clock.
"""
