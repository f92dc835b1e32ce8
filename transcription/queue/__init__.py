"""Who works on what: claim, lease, release, sweep, and the wake-ups.

The rows are the queue. Each transition is an UPDATE whose WHERE names the state it expects, in columns of its own row
alone: PostgreSQL checks those again after waiting for another transaction, but not a joined table. An UPDATE that
changes no row came too late, and its caller stops. A transition of several rows locks them in one order, so that no two
wait for each other: recording, jobs by id, then a job's sections, downloads, deliveries. Leases and waits use the
database's clock. A Celery message only wakes a worker: losing, repeating or reordering messages changes nothing.
"""
