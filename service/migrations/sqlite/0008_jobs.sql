-- Jobs that move everything of a key off its old versions. `counts` and `census` are JSON;
-- `rate` and `ended_ms` are 0 for none. `lease` is the number of the newest lease and
-- never starts again.
CREATE TABLE jobs (
    id             BLOB    NOT NULL PRIMARY KEY,
    tenant_id      BLOB    NOT NULL REFERENCES tenants (id),
    key_id         BLOB    NOT NULL REFERENCES keys (id),
    kind           TEXT    NOT NULL,
    subject        TEXT    NOT NULL,
    dry_run        INTEGER NOT NULL,
    target         INTEGER NOT NULL,
    state          TEXT    NOT NULL,
    not_before_ms  INTEGER NOT NULL,
    rate           INTEGER NOT NULL,
    counts         TEXT    NOT NULL,
    census         TEXT    NOT NULL,
    expected       INTEGER NOT NULL,
    steps          INTEGER NOT NULL,
    cursor         BLOB    NOT NULL,
    lease          INTEGER NOT NULL,
    worker         TEXT    NOT NULL,
    lease_until_ms INTEGER NOT NULL,
    speed_milli    INTEGER NOT NULL,
    stepped_ms     INTEGER NOT NULL,
    created_by     TEXT    NOT NULL,
    created_ms     INTEGER NOT NULL,
    ended_ms       INTEGER NOT NULL,
    revision       INTEGER NOT NULL
) STRICT;

-- One open job for each key and subject.
CREATE UNIQUE INDEX jobs_open ON jobs (key_id, subject) WHERE ended_ms = 0;
CREATE INDEX jobs_ended ON jobs (key_id, subject, ended_ms);
CREATE INDEX jobs_created ON jobs (tenant_id, created_ms, id);
