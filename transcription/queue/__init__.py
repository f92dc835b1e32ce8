"""Who works on what: claim, lease, release, sweep, and the wake-ups.

The row is the queue. Each transition is an UPDATE whose WHERE names the state it expects, in columns of that row alone:
PostgreSQL looks at those again after waiting for another transaction, but not at a joined table. When it changes no
row somebody else was first, and the caller stops. A transition of several rows locks them in one order, so that no two
wait for each other: recording, jobs by id, then a job's sections, downloads, deliveries. Leases and waits are reckoned
by the database's clock. A Celery message only wakes a worker: losing, doubling or reordering messages changes nothing.
"""
